"""The records of a call: Request -> WireRequest -> WireResponse -> Result (or Pending, then Result)."""

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

MAX_ARTIFACTS = 64
"""The most artifacts taken from one answer. The bytes of a larger answer are kept in an UnusableResult."""


@attrs.frozen(kw_only=True)
class Request:
    """A checked call of one operation. ``job``: the id of a running job whose result is to be fetched.

    ``warnings``: the warnings of the operation's rules, repeated in the result.
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
    """A request to the provider, fields and files apart. The transport serializes it.

    ``target`` is a path below the account's base URL (or a model id, if the transport has no paths). ``encoding``: a
    multipart form, or JSON with files in base64. ``max_bytes`` limits the whole request on the wire. ``regions`` are
    those that serve the target; empty means any. ``call`` is set by the route.
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

    def with_call(self, call: Call) -> WireRequest:
        """Return the same request with its call. Every call needs one; ``attrs.evolve`` would take twice as long."""
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
    """A place for an answer that is too large for memory. Each answer gets one, see ``Call.spool``."""

    def fits_in_memory(self, size: int) -> bool:
        """Return True if so many bytes may stay in memory. Called as bytes arrive, until it returns False."""
        ...

    async def write(self, data: bytes) -> None:
        """Write the next bytes, beginning with the answer's first. Paid bytes are stored wherever there is room."""
        ...

    async def finish(self) -> File:
        """Return all bytes as a file, which may be cut short."""
        ...


@attrs.define(eq=False)
class Body:
    """A response's body: chunks to collect in memory or in a spool, or to stream.

    ``received`` holds the bytes in memory so far, so that an answer that breaks off is not lost.
    """

    _chunks: AsyncIterator[bytes]
    _received: list[bytes] = attrs.field(factory=list[bytes], init=False)
    is_spooled: bool = attrs.field(default=False, init=False)

    async def collect(self, spool: Spool | None = None) -> bytes | None:
        """Return the whole body, or None if it is in the spool."""
        chunks, size = self._received, 0
        async for chunk in self._chunks:
            chunks.append(chunk)
            if spool is not None:
                size += len(chunk)
                if not spool.fits_in_memory(size):
                    await self._move_to_spool(spool)
                    return None
        whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._received = [whole]  # a large answer is held once from here: the call keeps what it received
        return whole

    async def _move_to_spool(self, spool: Spool) -> None:
        chunks, self._received, self.is_spooled = self._received, [], True
        try:
            for chunk in chunks:
                await spool.write(chunk)
            async for chunk in self._chunks:
                await spool.write(chunk)
        finally:  # where the spool fails, or is cancelled, the answer still comes: its connection ends here
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()

    @property
    def received(self) -> bytes:
        """The bytes collected so far, also if the rest never came."""
        return b"".join(self._received)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


@attrs.frozen(kw_only=True)
class WireResponse:
    """The provider's answer. Header names are lower case.

    ``body`` is empty while the answer still streams; ``stream`` is None after it was collected. ``file`` is the body
    if it was too large for memory, see the hook ``is_artifact_body``.
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
        value = headers.get("x-request-id") or headers.get("x-amzn-requestid")
        return printable(value) if value else None


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
    """An artifact that did not arrive: its index among all that should have, and the error."""

    index: int
    error: ImpastoError


@attrs.frozen(kw_only=True)
class Result:
    """The result of a call: 1 to ``MAX_ARTIFACTS`` artifacts for each request, also if fewer were asked for.

    ``cost`` is that of all artifacts, None if the price is unknown. ``errors`` holds the failed artifacts.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...] = ()
    errors: tuple[FailedArtifact, ...] = ()
    request_id: str | None = None
    cost: Cost | None = None

    def with_cost(self, price: Cost | None, warnings: tuple[str, ...] = ()) -> Result:
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
    """An accepted job, and the request that polls it. ``result_ttl``: seconds for which the provider keeps the result.

    ``is_ready``: the result exists already, such as an image that is answered as a URL; it is fetched at once.
    """

    id: str
    poll: WireRequest
    result_ttl: float | None = None
    is_ready: bool = False


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
