"""The records of a call: Request -> WireRequest -> WireResponse -> Result (or Pending, then Result)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from .wire import Scalar, WireRequest, WireResponse

if TYPE_CHECKING:
    from os import PathLike

    from .errors import ImpastoError
    from .files import File

MAX_ARTIFACTS = 64
"""The most artifacts taken from one answer. The bytes of a larger answer are kept in an UnusableResult."""


@attrs.frozen(kw_only=True)
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


@attrs.frozen(kw_only=True)
class Artifact:
    """One image, sound or 3D model. ``seed`` is the one that was used, ``finish_reason`` the provider's word.

    Give ``file`` in place of ``data`` if the data is on disk.
    """

    _data: bytes = attrs.field(default=b"", alias="data")
    media_type: str
    seed: int | None = None
    finish_reason: str | None = None
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

        Raises:
            OSError: the data are still here, and can be saved elsewhere.
        """
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
        return target

    def __repr__(self) -> str:
        about = f"media_type={self.media_type!r}, seed={self.seed!r}, finish_reason={self.finish_reason!r}"
        return f"Artifact(data=<{self.content.size} bytes>, {about})"


@attrs.frozen(kw_only=True)
class Cost:
    """The cost of a call. ``as_of``: the date (ISO) at which the price was known."""

    usd: float
    credits: float | None = None
    as_of: str

    def times(self, n: int) -> Cost:
        """Return the cost of n of them."""
        return attrs.evolve(self, usd=round(self.usd * n, 10), credits=self.credits and round(self.credits * n, 10))


@attrs.frozen(kw_only=True)
class FailedArtifact:
    """An artifact that did not arrive: its index among all that should have, and the error.

    ``request_failed``: its whole request did, so that the cost of the result does not include it.
    """

    index: int
    error: ImpastoError
    request_failed: bool = False


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens that a provider counted."""

    input_tokens: int
    output_tokens: int
    input_text_tokens: int | None = None
    input_image_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            input_text_tokens=_sum(self.input_text_tokens, other.input_text_tokens),
            input_image_tokens=_sum(self.input_image_tokens, other.input_image_tokens),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@attrs.frozen(kw_only=True)
class Result:
    """The outcome of a successful call.

    ``cost`` is that of all artifacts: the provider's own if it reports one, otherwise the price of each; None if the
    price is unknown. ``errors`` holds the failed artifacts.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...] = ()
    errors: tuple[FailedArtifact, ...] = ()
    request_id: str | None = None
    cost: Cost | None = None
    usage: Usage | None = None

    def completed(self, price: Cost | None, request: Request) -> Result:
        """Return the result with the request's warnings, its cost by the price of an image, and the missing images.

        Every call needs one; ``attrs.evolve`` would take twice as long.
        """
        count, cost, errors, warnings = len(self.artifacts), self.cost, self.errors, (*request.warnings, *self.warnings)
        usage = self.usage
        if cost is not None and not is_valid_cost(cost):
            cost, warnings = None, (*warnings, "the plugin reports an invalid cost, which is not counted")
        if usage is not None and not _is_valid_usage(usage):
            usage, warnings = None, (*warnings, "the plugin reports an invalid usage, which is not counted")
        if cost is None and price is not None:
            cost = price if count == 1 else price.times(count)
        if count > request.count:
            of = "" if request.count == 1 else f" for {request.count}"
            warnings = (*warnings, f"the provider answered one request{of} with {count} artifacts: all are counted")
        if (present := count + len(errors)) < request.count:
            from .call_errors import missing_artifact

            errors = (*errors, *(missing_artifact(index, request.count) for index in range(present, request.count)))
        return Result(
            artifacts=self.artifacts,
            warnings=warnings,
            errors=errors,
            request_id=self.request_id,
            cost=cost,
            usage=usage,
        )


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


def _is_valid_usage(usage: object) -> bool:
    if not isinstance(usage, Usage):
        return False
    counts = (usage.input_tokens, usage.output_tokens, usage.input_text_tokens or 0, usage.input_image_tokens or 0)
    return all(type(each) is int and 0 <= each <= _MOST_TOKENS for each in counts)


@attrs.frozen
class Partial:
    """A partial result of a call that runs on, such as a blurred image. ``index``: its number among those of the call.

    It is never the result, and nothing is paid for it by itself.
    """

    artifact: Artifact
    index: int = 0


@attrs.frozen(kw_only=True)
class Download:
    """An image of an answer that has its address only. ``request`` fetches it; ``index`` is its number in the answer.

    ``seed`` and ``finish_reason`` are those that the answer states for it.
    """

    request: WireRequest
    index: int = 0
    seed: int | None = None
    finish_reason: str | None = None


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
