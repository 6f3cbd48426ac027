"""The records that flow: Request -> WireRequest -> WireResponse -> Result (or Pending, then Result)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import attrs

from .redact import printable

if TYPE_CHECKING:
    from os import PathLike

    from .call import Call
    from .errors import ImpastoError
    from .files import File

Scalar = str | int | float

MOST_ARTIFACTS = 64
"""The most artifacts that are taken from one answer; the bytes of one with more are kept in an UnusableResult."""


@attrs.frozen(kw_only=True)
class Request:
    """A checked call of one operation. ``job``: the id of a job that runs already and is to be fetched.

    ``warnings``: what the operation's rules say of it, which its result says too.
    """

    operation: str
    params: attrs.AttrsInstance
    target: str
    constants: Mapping[str, Scalar] = {}
    job: str | None = None
    user: str | None = None
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class WireRequest:
    """What goes to the provider, fields and files apart and not serialised: the transport does that.

    ``target`` is a path below the account's base URL (or a model id, where the transport knows no paths).
    ``encoding`` is how a transport that knows both writes it: as a multipart form, or as JSON with files in base64.
    ``max_bytes`` bounds the whole request as it goes out. ``regions`` are those that serve the target, where
    that matters; empty means any. ``call`` is bound by the route.
    """

    target: str
    method: Literal["GET", "POST"] = "POST"
    fields: Mapping[str, Scalar] = {}
    files: Mapping[str, File] = {}
    encoding: Literal["form", "json"] = "form"
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    max_bytes: int | None = None
    regions: tuple[str, ...] = ()
    call: Call = attrs.field(default=cast("Call", None), repr=False)

    def bound(self, call: Call) -> WireRequest:
        """The same request as part of a call. Every call needs one; ``attrs.evolve`` would take twice as long."""
        return WireRequest(
            target=self.target,
            method=self.method,
            fields=self.fields,
            files=self.files,
            encoding=self.encoding,
            headers=self.headers,
            max_bytes=self.max_bytes,
            regions=self.regions,
            call=call,
        )


class Spool(Protocol):
    """Where an answer goes that is too large to be held in memory. One is made for each answer, see ``Call.spool``."""

    def holds(self, size: int) -> bool:
        """Whether so many bytes of the answer may be in memory. Asked as they come, until it says no."""
        ...

    async def write(self, data: bytes) -> None:
        """Takes what comes next, from the answer's first byte on. What is paid for is taken wherever there is room."""
        ...

    async def finish(self) -> File:
        """All that was taken, which may be cut short."""
        ...


class Body:
    """A response's body: chunks that can be collected, in memory or in a spool, or passed on as they come.

    ``received`` is what memory holds so far, so that an answer that breaks off is not lost.
    """

    __slots__ = ("_chunks", "_received", "is_spooled")

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._received: list[bytes] = []
        self.is_spooled = False

    async def collect(self, spool: Spool | None = None) -> bytes | None:
        """All of it; None where it is in the spool."""
        kept, size = self._received, 0
        async for chunk in self._chunks:
            kept.append(chunk)
            if spool is not None:
                size += len(chunk)
                if not spool.holds(size):
                    await self._pass_on(spool)
                    return None
        whole = kept[0] if len(kept) == 1 else b"".join(kept)
        self._received = [whole]  # a large answer is held once from here: the call keeps what it received
        return whole

    async def _pass_on(self, spool: Spool) -> None:
        kept, self._received, self.is_spooled = self._received, [], True
        try:
            for chunk in kept:
                await spool.write(chunk)
            async for chunk in self._chunks:
                await spool.write(chunk)
        finally:  # where the spool fails, or is cancelled, the answer still comes: its connection ends here
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()

    @property
    def received(self) -> bytes:
        """The bytes that were collected, also when the rest never came."""
        return b"".join(self._received)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


@attrs.frozen(kw_only=True)
class WireResponse:
    """What the provider answered. Header names are lower case.

    ``body`` is empty while the answer still streams; ``stream`` is None once it was collected. ``file`` is the body
    where it was too large for memory, see the hook ``passes_on``.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(default=b"", repr=False)
    stream: Body | None = attrs.field(default=None, repr=False)
    file: File | None = attrs.field(default=None, repr=False)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str | None:
        """The provider's id of this exchange, safe to log."""
        headers = self.headers
        given = headers.get("x-request-id") or headers.get("x-amzn-requestid")
        return printable(given) if given else None


@attrs.frozen(kw_only=True)
class Artifact:
    """One picture, sound or model. ``seed``: the one that was used; ``finish_reason``: the provider's word.

    ``file`` has the data where the caller asked for large ones in a spool; ``data`` is empty then.
    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    media_type: str
    seed: int | None = None
    finish_reason: str | None = None
    file: File | None = attrs.field(default=None, repr=False)

    @property
    def content(self) -> File:
        """The data, wherever they are, as something that can be opened."""
        from .files import File

        return self.file or File.of(self.data)

    @property
    def b64_json(self) -> str:
        """The data as base64 text, the form of OpenAI's answers."""
        from base64 import b64encode

        return b64encode(self.content.read()).decode("ascii")

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the data to ``path`` and return it. A file that can't be written whole is not left behind.

        Raises:
            OSError: the data are still here, and can be saved elsewhere.
        """
        target, data, is_new = Path(path), self.content.read(), True
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


@attrs.frozen(kw_only=True)
class Cost:
    """What was charged. ``as_of``: the date at which the price was known (ISO)."""

    usd: float
    credits: float | None = None
    as_of: str

    def times(self, n: int) -> Cost:
        """The cost of n of them."""
        return attrs.evolve(self, usd=round(self.usd * n, 10), credits=self.credits and round(self.credits * n, 10))


@attrs.frozen(kw_only=True)
class Lost:
    """An artifact that did not come: its place among all that should have, and the error."""

    index: int
    error: ImpastoError


@attrs.frozen(kw_only=True)
class Result:
    """What came of a call: 1 to ``MOST_ARTIFACTS`` artifacts for each request, also if fewer were asked for.

    ``cost`` is that of all artifacts, None if the price is not known. ``errors`` holds what was lost.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...] = ()
    errors: tuple[Lost, ...] = ()
    request_id: str | None = None
    cost: Cost | None = None

    def at(self, price: Cost | None, warnings: tuple[str, ...] = ()) -> Result:
        """Return the same result with its cost, ``price`` for each artifact, and the request's warnings.

        Every call needs one; ``attrs.evolve`` would take twice as long.
        """
        cost, warnings = price, (*warnings, *self.warnings)
        if (count := len(self.artifacts)) > 1:
            cost = price.times(count) if price is not None else None
            warnings = (*warnings, f"the provider answered one request with {count} artifacts: all are counted")
        return Result(
            artifacts=self.artifacts,
            warnings=warnings,
            errors=self.errors,
            request_id=self.request_id,
            cost=cost,
        )


@attrs.frozen(kw_only=True)
class Pending:
    """The provider accepted a job: how to ask for it. ``keeps`` is how long the result is kept, in seconds.

    ``ready``: its result is there already, such as a picture that is answered as an address: it is asked for at once.
    """

    id: str
    poll: WireRequest
    keeps: float | None = None
    ready: bool = False


Handler = Callable[[WireRequest], Awaitable[WireResponse]]
Position = Literal["outer", "retry", "limit", "inner"]


class Middleware(Protocol):
    """Stands around every exchange: gets the request and the next handler, returns its answer.

    ``position``, an attribute, says where: ``outer`` (cache, trace), ``retry``, ``limit`` or ``inner``
    (where it is missing). A refusal reaches it as an ImpastoError, raised by ``next``.
    """

    def __call__(self, wire: WireRequest, next: Handler, /) -> Awaitable[WireResponse]: ...
