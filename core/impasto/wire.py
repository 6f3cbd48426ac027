"""The records of an exchange with a provider: WireRequest -> WireResponse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

import attrs

from .record_class import record
from .redact import printable

if TYPE_CHECKING:
    from .call import Call
    from .files import File
    from .records import Result
    from .server_events import EventParser, ServerEvent

Scalar = str | int | float


@attrs.frozen
class FileRef:
    """Stands in a JSON body for a file's base64, or for its ``data:`` URL. The transport reads and encodes the file."""

    file: File
    data_url: bool = False


JSONValue: TypeAlias = Scalar | bool | FileRef | Sequence["JSONValue"] | Mapping[str, "JSONValue"] | None
"""A value of a JSON body. In a form only text, numbers and booleans can be sent."""


@attrs.frozen(kw_only=True, slots=False)  # copied for each call, see with_call
class WireRequest:
    """A request to the provider, fields and files apart. The transport serializes it.

    ``target`` is a path below the account's base URL (or a model id, if the transport has no paths). ``url`` is a whole
    address in its place, for a GET to that host or to one of ``Provider.hosts``; with ``anonymous`` it gets no key, as
    a signed address needs none. ``encoding``: a multipart form, or JSON with files in base64; a form may have several
    files of one name. ``max_bytes`` limits the whole request on the wire. ``regions`` are those that serve the target;
    empty means any. ``call`` is set by the route, and so is ``sign``, if the provider has this hook: called by the
    transport with ``method``, ``url``, ``headers`` and ``body``, it returns the headers to add.
    """

    target: str = ""
    url: str | None = None
    anonymous: bool = False
    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    fields: Mapping[str, JSONValue] = {}
    files: Sequence[tuple[str, File]] = ()
    encoding: Literal["form", "json"] = "form"
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    max_bytes: int | None = None
    regions: tuple[str, ...] = ()
    sign: Callable[..., Mapping[str, str]] | None = attrs.field(default=None, repr=False)
    call: Call = attrs.field(default=cast("Call", None), repr=False)

    def with_call(self, call: Call) -> WireRequest:
        """Return the same request with its call. Every call needs one; ``attrs.evolve`` takes four times as long."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__, call=call)
        return copied


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


LARGE_BYTES = 1 << 20
"""Bytes of an answer that is looked at before it is parsed, and of an event that is parsed in a thread."""

_EVENT_PIECE = 1 << 14
_EVENT_ROOM = 1 << 19
"""Bytes of a stream's events that are in memory without a question, and of a step beyond them."""
"""Bytes of a stream of events that are parsed in one turn of the loop."""

_MOST_VALUES = 1_000_000


def has_too_many_values(body: bytes | str) -> bool:
    """Return True for JSON of more values than are parsed: a few bytes of it become a list or a text of 60.

    Base64 has none of these characters, so an answer with images has few. Ask it of ``LARGE_BYTES`` and more.
    """
    if isinstance(body, str):
        return body[:64].lstrip()[:1] in ("{", "[") and sum(map(body.count, ",[{")) > _MOST_VALUES
    return body[:64].lstrip()[:1] in (b"{", b"[") and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES


@attrs.define(eq=False)
class Body:
    """A response's body: chunks to collect in memory or in a spool, or to stream.

    ``received`` holds the bytes in memory so far, so that an answer that breaks off is not lost.
    """

    _chunks: AsyncIterator[bytes] | None
    _received: list[bytes] = attrs.field(factory=list[bytes], init=False)
    is_spooled: bool = attrs.field(default=False, init=False)
    _parser: EventParser | None = attrs.field(default=None, init=False)
    _whole: bytes | None = attrs.field(default=None, init=False)

    @classmethod
    def of(cls, whole: bytes) -> Body:
        """Return a body that has come whole, and is small."""
        body = cls(None)
        body._whole, body._received = whole, [whole]
        return body

    async def collect(self, spool: Spool | None = None) -> bytes | None:
        """Return the whole body, or None if it is in the spool."""
        if self._whole is not None:
            return self._whole
        chunks, size = self._received, 0
        async for chunk in self:
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
            async for chunk in self:
                await spool.write(chunk)
        finally:  # where the spool fails, or is cancelled, the answer still comes: its connection ends here
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()

    async def events(self, hold: Callable[[int], Awaitable[object]] | None = None) -> AsyncGenerator[ServerEvent]:
        """Yield the server-sent events as they arrive. ``received`` has the bytes of the last one, and those after it.

        ``hold`` is awaited before these become so many more, a step at a time. Raises ChargeUnknown if an event is too
        large.
        """
        from .errors import ChargeUnknown
        from .server_events import EventParser, EventTooLarge  # few providers stream

        self._parser = parser = EventParser()
        room = _EVENT_ROOM
        try:
            async for chunk in self:
                if hold is not None and (lacks := parser.size + len(chunk) - room) > 0:
                    lacks = -(-lacks // _EVENT_ROOM) * _EVENT_ROOM
                    await hold(lacks)
                    room += lacks
                for at in range(0, len(chunk), _EVENT_PIECE):
                    for event in parser.feed(chunk[at : at + _EVENT_PIECE]):
                        yield event
                    if len(chunk) > _EVENT_PIECE:  # it may be thousands of lines
                        await asyncio.sleep(0)
        except EventTooLarge as error:
            raise ChargeUnknown(f"{error}; the request may have been charged") from None
        finally:  # whoever has read enough leaves the rest, whose connection ends here
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()

    @property
    def received(self) -> bytes:
        """The bytes collected so far, also if the rest never came."""
        if self._parser is not None:
            return self._parser.received
        if len(self._received) > 1:
            self._received = [b"".join(self._received)]  # held once: an error has them too
        return self._received[0] if self._received else b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _chunks_of(self._whole or b"") if self._chunks is None else self._chunks


async def _chunks_of(whole: bytes) -> AsyncIterator[bytes]:
    yield whole


@record(kw_only=True)
class WireResponse:
    """The provider's answer. Header names are lower case.

    ``body`` is empty while the answer still streams; ``stream`` is None after it was collected. ``file`` is the body
    if it was too large for memory, see the hook ``is_artifact_body``. ``result``: the result of a stream of events,
    whose last event is the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(default=b"", repr=False)
    stream: Body | None = attrs.field(default=None, repr=False)
    file: File | None = attrs.field(default=None, repr=False)
    result: Result | None = attrs.field(default=None, repr=False)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str | None:
        """The provider's id of this exchange, safe to log."""
        headers = self.headers
        value = headers.get("x-request-id") or headers.get("x-amzn-requestid")
        if not value:  # other vendors' names, such as request-id and x-acme-request-id
            value = next((text for name, text in headers.items() if name.endswith("request-id")), None)
        return printable(value) if value else None
