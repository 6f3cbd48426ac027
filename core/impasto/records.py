"""The records of a call: Request -> WireRequest -> WireResponse -> Result (or Pending, then Result)."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from .charges import costs_with_failures
from .costs import Cost, Usage
from .record_class import record
from .wire import Scalar, WireRequest, WireResponse

if TYPE_CHECKING:
    from os import PathLike

    from .errors import ImpastoError
    from .files import File

MAX_ARTIFACTS = 64
"""The most artifacts taken from one answer. The bytes of a larger answer are kept in an UnusableResult."""


@record(kw_only=True)
class Request:
    """A checked call of one operation. ``job``: the id of a running job whose result is to be fetched.

    ``count``: the images that it asks for. ``warnings``: those of the operation's rules, repeated in the result.
    ``stream``: the caller takes partial results, so a provider that streams is asked for a stream of events (the hook
    ``normalize_event``).
    """

    operation: str
    params: attrs.AttrsInstance
    target: str
    constants: Mapping[str, Scalar] = {}
    job: str | None = None
    user: str | None = None
    warnings: tuple[str, ...] = ()
    count: int = 1
    stream: bool = False


@record(kw_only=True)
class Artifact:
    """One image, sound or 3D model. ``seed`` is the one that was used, ``finish_reason`` the provider's word.

    ``revised_prompt`` is the prompt that the provider made of the caller's, if it says so. Give ``file`` in place of
    ``data`` if the data is on disk.
    """

    _data: bytes = attrs.field(default=b"", alias="data")
    media_type: str
    seed: int | None = None
    finish_reason: str | None = None
    revised_prompt: str | None = None
    file: File | None = None

    @property
    def data(self) -> bytes:
        """The data. It is read each time if it is on disk, which blocks: ``file`` is not None then."""
        return self._data if self.file is None else self.file.read()

    @property
    def content(self) -> File:
        """Return the data, in memory or on disk, as a file that can be opened."""
        from .files import File

        return self.file or File.of(self._data)

    @property
    def b64_json(self) -> str:
        """The data as base64 text, as in OpenAI's answers."""
        from base64 import b64encode

        return b64encode(self.data).decode("ascii")

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the data to ``path`` and return it. A file that can't be written whole is not left behind.

        A file of this name is overwritten. Warns if the name has the ending of another format than the data.

        Raises:
            OSError: the data are still here, and can be saved elsewhere.
        """
        from .files import EXTENSIONS, media_type_of

        target, data, is_new = Path(path), self.data, True
        try:
            file = target.open("xb")
        except FileExistsError:
            file, is_new = target.open("wb"), False
        try:
            with file:
                file.write(data)
        except OSError:
            if is_new:
                target.unlink()
            raise
        media_type = media_type_of(data[:16]) or self.media_type
        ending = target.suffix.lower().replace(".jpeg", ".jpg")
        if ending != EXTENSIONS.get(media_type) and ending in EXTENSIONS.values():
            warnings.warn(f"{target.name!r} contains {media_type} data, which its name does not show", stacklevel=2)
        return target

    def __repr__(self) -> str:
        about = f"media_type={self.media_type!r}, seed={self.seed!r}, finish_reason={self.finish_reason!r}"
        return f"Artifact(data=<{self.content.size} bytes>, {about})"


@attrs.frozen(kw_only=True)
class FailedArtifact:
    """An artifact that did not arrive: its index among all that should have, and the error."""

    index: int
    error: ImpastoError


@record(kw_only=True)
class Result:
    """The outcome of a successful call.

    ``cost`` is what the call cost, as far as it is known: the provider's own if it reports one, otherwise the price of
    each artifact and of each failed one that was charged; None if a price is unknown. ``possible_cost`` has the failed
    artifacts and earlier attempts too that may have been charged; the client sets it. ``errors`` holds the failed
    artifacts.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...] = ()
    errors: tuple[FailedArtifact, ...] = ()
    request_id: str | None = None
    cost: Cost | None = None
    usage: Usage | None = None
    possible_cost: Cost | None = None

    def completed(
        self, price: Cost | None, request: Request, *, is_free: bool = False, earlier_attempts: int = 0
    ) -> Result:
        """Return the result with the request's warnings, its costs by the price of an image, and the missing images.

        ``is_free``: it is proved that nothing was charged; ``earlier_attempts`` may have been. Every call needs a
        result that is completed; ``attrs.evolve`` would take twice as long.
        """
        count, cost, errors, warnings = len(self.artifacts), self.cost, self.errors, (*request.warnings, *self.warnings)
        usage = self.usage
        if cost is not None and not is_valid_cost(cost):
            cost, warnings = None, (*warnings, "the plugin reports an invalid cost, which is not counted")
        if usage is not None and not is_valid_usage(usage):
            usage, warnings = None, (*warnings, "the plugin reports an invalid usage, which is not counted")
        if count > request.count and (request.job is None or request.count > 1):  # 1 is the default of ``resume``
            of = "" if request.count == 1 else f" for {request.count}"
            warnings = (*warnings, f"the provider answered one request{of} with {count} artifacts: all are counted")
        if (present := count + len(errors)) < request.count:
            from .call_errors import missing_artifact

            errors = (*errors, *(missing_artifact(index, request.count) for index in range(present, request.count)))
        possible = cost  # the provider's own has all of its answer in it
        if cost is None and price is not None:
            cost = possible = price if count == 1 else price.times(count)
            if errors:
                cost, possible = costs_with_failures(cost, errors, price)
        if is_free and cost is not None:
            cost = possible = cost.times(0)
        if earlier_attempts and possible is not None:
            possible = possible + price.times(earlier_attempts * request.count) if price is not None else None
        return Result(
            artifacts=self.artifacts,
            warnings=warnings,
            errors=errors,
            request_id=self.request_id,
            cost=cost,
            usage=usage,
            possible_cost=possible,
        )

    def priced(self, price: Cost) -> Result:
        """Return the result with its costs by the price of an image, whatever the provider reports."""
        cost, possible = costs_with_failures(price.times(len(self.artifacts)), self.errors, price)
        return attrs.evolve(self, cost=cost, possible_cost=possible)


_MOST_USD = 1e6
"""USD or credits of the largest cost of one call that is believed: NaN or 1e300 would break every sum it enters."""

_MOST_TOKENS = 10**12


def is_valid_cost(cost: object) -> bool:
    """Return True for a cost that budgets and ledgers can count. A paid image is not lost with an invalid one."""
    if not isinstance(cost, Cost) or not isinstance(cost.as_of, str):
        return False
    usd, credits = cost.usd, cost.credits  # compared one by one, as each call does it: benchmark `dispatch`
    if type(usd) not in _NUMBERS or not 0 <= usd <= _MOST_USD:
        return False
    return credits is None or (type(credits) in _NUMBERS and 0 <= credits <= _MOST_USD)


_NUMBERS = (int, float)  # no bool


def is_valid_usage(usage: object) -> bool:
    """Return True for a count of tokens that sums can take."""
    if not isinstance(usage, Usage):
        return False
    counts = (usage.input_tokens, usage.output_tokens)
    details = (usage.input_text_tokens, usage.input_image_tokens, usage.output_text_tokens, usage.output_image_tokens)
    return all(_is_count(each) for each in counts) and all(each is None or _is_count(each) for each in details)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


@attrs.frozen
class Partial:
    """A partial result of a call that runs on, such as a blurred image. ``index``: its number among those of the call.

    It is never the result, and nothing is paid for it by itself.
    """

    artifact: Artifact
    index: int = 0


EventOutcome = Partial | Result | Usage
"""One part of what an event of a stream means, see the hook ``normalize_event``."""


@attrs.frozen(kw_only=True)
class Download:
    """An image of an answer that has its address only. ``request`` fetches it; ``index`` is its number in the answer.

    ``seed``, ``finish_reason`` and ``revised_prompt`` are those that the answer states for it. ``response``: the answer
    to the request, if it is there already, as that of a ``data:`` URI is.
    """

    request: WireRequest
    index: int = 0
    seed: int | None = None
    finish_reason: str | None = None
    revised_prompt: str | None = None
    response: WireResponse | None = None


@attrs.frozen(kw_only=True)
class Pending:
    """An accepted job, and the request that polls it. A poll may answer with another: its request replaces this one.

    Without ``poll`` the job goes on as before, as an answer to a poll may say without an address. ``is_ready``: the
    next poll has an answer already, it is sent at once. ``interval`` and ``first``: seconds between polls, and before
    the first. ``cancel``: the free request that stops the job; it is sent if the caller gives up. ``result_ttl``:
    seconds for which the provider keeps the result.

    ``downloads``: the job has ended, and its images are at these addresses; they are fetched at once, side by side.
    ``errors``: those that it refused or lacks. ``cost`` and ``usage``: those that the provider states for the job; a
    result without its own has them.
    """

    id: str
    poll: WireRequest | None = None
    result_ttl: float | None = None
    is_ready: bool = False
    interval: float | None = None
    first: float | None = None
    cancel: WireRequest | None = None
    downloads: tuple[Download, ...] = ()
    errors: tuple[FailedArtifact, ...] = ()
    cost: Cost | None = None
    usage: Usage | None = None


Handler = Callable[[WireRequest], Awaitable[WireResponse]]
Position = Literal["outer", "retry", "limit", "inner"]


class Middleware(Protocol):
    """A layer around every exchange: takes the request and the next handler, returns the answer.

    The attribute ``position`` is ``outer`` (cache, trace), ``retry``, ``limit`` or ``inner`` (the default). A refusal
    arrives as an ImpastoError that ``next`` raises.
    """

    def __call__(self, wire: WireRequest, next: Handler, /) -> Awaitable[WireResponse]:
        """Return the answer to the request. ``next`` sends it on."""
        ...
