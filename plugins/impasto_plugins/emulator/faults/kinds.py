"""The ways in which an exchange can fail. Each kind is a record of its options, and does it to the socket itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import attrs
from aiohttp import web
from attrs.validators import in_

from impasto_plugins.emulator.server.exchange import Answer, Refuse, json_answer
from impasto_plugins.emulator.settings import bounded
from impasto_plugins.emulator.state.charges import Record

HTML = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1><p>The proxy could not reach the server.</p>"
_PIECE = 1 << 16
_HUGE = 1 << 40


@runtime_checkable
class Failure(Protocol):
    """``replaces``: the operation's own answer is not needed. ``charged``: the default, whether it is booked."""

    charged: ClassVar[bool]

    @property
    def replaces(self) -> bool: ...

    async def apply(
        self, request: web.Request, record: Record, answer: Answer, refuse: Refuse
    ) -> web.StreamResponse: ...


@attrs.frozen(kw_only=True)
class Status:
    """Another answer: any ``status`` with a ``body`` in the provider's form (``name`` and ``errors`` can be given),
    a proxy's html page, nothing, or damaged JSON; or ``text`` as ``media_type``. ``headers`` come on top.

    A redirect is ``status`` 302 with ``{"location": ...}``; a 200 can be html, empty or malformed too.
    """

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    status: int = bounded(500, 200, 599)
    body: str = attrs.field(default="provider", validator=in_(("provider", "html", "empty", "malformed")))
    text: str | None = None
    media_type: str | None = None
    name: str | None = None
    errors: tuple[str, ...] = ("the emulator was told to fail",)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        made = self._made(refuse)
        headers = {**made.headers, **({"content-type": self.media_type} if self.media_type else {}), **self.headers}
        return respond(record, attrs.evolve(made, headers=headers))

    def _made(self, refuse: Refuse) -> Answer:
        if self.text is not None:
            return Answer(status=self.status, headers={"content-type": "text/plain"}, body=self.text.encode())
        match self.body:
            case "html":
                return Answer(status=self.status, headers={"content-type": "text/html; charset=utf-8"}, body=HTML)
            case "empty":
                return Answer(status=self.status, headers={"content-type": "image/png"})
            case "malformed":
                return Answer(status=self.status, headers={"content-type": "application/json"}, body=b"{not json")
            case _:
                return refuse(self.status, self.name, self.errors)


@attrs.frozen(kw_only=True)
class Delay:
    """The answer comes ``seconds`` late."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    seconds: float = bounded(1.0, 0)

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        await asyncio.sleep(self.seconds)
        return respond(record, answer)


@attrs.frozen(kw_only=True)
class Slow:
    """The body dribbles: ``piece`` bytes at a time, ``bytes_per_second``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    bytes_per_second: float = bounded(10_000.0, 0.1)
    piece: int = bounded(1024, 1)

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        response = await _begun(request, record, answer)
        for at in range(0, len(answer.body), self.piece):
            await response.write(answer.body[at : at + self.piece])
            await asyncio.sleep(self.piece / self.bytes_per_second)
        return response


@attrs.frozen(kw_only=True)
class Truncate:
    """The connection ends after a ``fraction`` of the body that ``content-length`` announced."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    fraction: float = bounded(0.5, 0, 1)

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        body = answer.body
        return _raw(request, record, answer, _part(body, self.fraction), f"content-length: {len(body)}")


@attrs.frozen(kw_only=True)
class Cut:
    """A complete answer with a picture cut short; ``framing`` by ``length``, or by the ``close`` of the connection."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    fraction: float = bounded(0.5, 0, 1)
    framing: str = attrs.field(default="length", validator=in_(("length", "close")))

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        part = _part(answer.body, self.fraction)
        if self.framing == "close":
            return _raw(request, record, answer, part, "connection: close")
        return respond(record, attrs.evolve(answer, body=part))


@attrs.frozen(kw_only=True)
class Framing:
    """An answer that says its length wrongly: ``two-lengths``, ``length-and-chunked`` or ``short-length``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    wrong: str = attrs.field(
        default="two-lengths", validator=in_(("two-lengths", "length-and-chunked", "short-length"))
    )

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        body, length = answer.body, len(answer.body)
        match self.wrong:
            case "two-lengths":
                return _raw(request, record, answer, body, f"content-length: {length}", f"content-length: {length - 1}")
            case "length-and-chunked":
                chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
                framing = (f"content-length: {length}", "transfer-encoding: chunked")
                return _raw(request, record, answer, chunked, *framing)
            case _:
                return _raw(request, record, answer, body, f"content-length: {max(0, length - 7)}", close=False)


@attrs.frozen(kw_only=True)
class Reset:
    """A TCP reset ``at`` the ``headers``, before any is sent, or in the ``body`` after a ``fraction`` of it."""

    charged: ClassVar[bool] = False

    at: str = attrs.field(default="headers", validator=in_(("headers", "body")))
    fraction: float = bounded(0.5, 0, 1)

    @property
    def replaces(self) -> bool:
        return self.at == "headers"

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        if self.at == "body":
            response = await _begun(request, record, answer)
            await response.write(_part(answer.body, self.fraction))
            await asyncio.sleep(0.05)  # a reset overtakes what was not yet delivered
        if (transport := request.transport) is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return _Written()


@attrs.frozen(kw_only=True)
class Close:
    """The connection ends without an answer."""

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        return _Written()


@attrs.frozen(kw_only=True)
class IdleClose:
    """A good answer, whose connection the server closes when it was idle for ``seconds``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    seconds: float = bounded(0.1, 0)

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        if (transport := request.transport) is not None:
            asyncio.get_running_loop().call_later(self.seconds, _close_if_idle, transport, _served.get(transport))
        return respond(record, answer)


@attrs.frozen(kw_only=True)
class MediaType:
    """A good answer that calls itself something else."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    media_type: str = "application/octet-stream"

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        return respond(record, attrs.evolve(answer, headers={**answer.headers, "content-type": self.media_type}))


@attrs.frozen(kw_only=True)
class Huge:
    """A body of so many ``bytes``, all of them zero after the picture's own."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    bytes: int = bounded(1 << 30, 0, _HUGE)

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        response = await _begun(request, record, answer, self.bytes)
        left = self.bytes - len(answer.body)
        await response.write(answer.body[: self.bytes])
        nothing = bytes(_PIECE)
        while left > 0:
            await response.write(nothing[: min(left, _PIECE)])
            left -= _PIECE
        return response


@attrs.frozen(kw_only=True)
class Pending:
    """The job is never ready: 202, for as long as the fault is in force."""

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        return respond(record, json_answer({"id": request.match_info.get("id", ""), "status": "in-progress"}, 202))


@attrs.frozen(kw_only=True)
class Filtered:
    """The picture broke the content policy: 200, blurred, ``CONTENT_FILTERED``. The operation makes it so."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    async def apply(self, request: web.Request, record: Record, answer: Answer, refuse: Refuse) -> web.StreamResponse:
        return respond(record, answer)


FILTERED = "filtered"

KINDS: Mapping[str, type] = {
    "status": Status,
    "delay": Delay,
    "slow": Slow,
    "truncate": Truncate,
    "cut": Cut,
    "framing": Framing,
    "reset": Reset,
    "close": Close,
    "idle-close": IdleClose,
    "media-type": MediaType,
    "huge": Huge,
    "pending": Pending,
    FILTERED: Filtered,
}
"""The kinds of fault by name."""


class _Written(web.StreamResponse):
    """Stands for what was done to the socket by hand: the server adds nothing to it."""

    def __init__(self, *, stays: bool = False) -> None:
        super().__init__()
        self._stays = stays

    @property
    def keep_alive(self) -> bool:
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


_served: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()
"""How many requests each connection brought."""


def count(request: web.Request) -> None:
    """Counts a request of its connection."""
    if (transport := request.transport) is not None:
        _served[transport] = _served.get(transport, 0) + 1


def _close_if_idle(transport: asyncio.Transport, served: int | None) -> None:
    if _served.get(transport) == served:
        transport.close()


def respond(record: Record, answer: Answer) -> web.Response:
    """Sends an answer as it is; the record tells its status."""
    record.status = answer.status
    headers = {record.id_header: record.id, **answer.headers}
    return web.Response(status=answer.status, headers=headers, body=answer.body)


async def _begun(request: web.Request, record: Record, answer: Answer, length: int | None = None) -> web.StreamResponse:
    """An answer whose headers have left."""
    record.status = answer.status
    response = web.StreamResponse(status=answer.status, headers={record.id_header: record.id, **answer.headers})
    response.content_length = len(answer.body) if length is None else length
    await response.prepare(request)
    return response


def _raw(
    request: web.Request, record: Record, answer: Answer, body: bytes, *framing: str, close: bool = True
) -> web.StreamResponse:
    """Writes what no server would: the given framing, the body, and the end of the connection."""
    record.status = answer.status
    headers = (f"{name}: {value}" for name, value in {record.id_header: record.id, **answer.headers}.items())
    head = "\r\n".join((f"HTTP/1.1 {answer.status} OK", *headers, *framing)) + "\r\n\r\n"
    if (transport := request.transport) is not None:
        transport.write(head.encode("latin-1") + body)
        if close:
            transport.close()
    return _Written(stays=not close)


def _part(body: bytes, fraction: float) -> bytes:
    return body[: int(len(body) * fraction)]
