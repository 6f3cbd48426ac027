"""The kinds of faults. Each is a record of its options, and acts on the socket itself."""

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

from impasto_plugins.emulator.server.exchange import Refuse, Reply, json_reply
from impasto_plugins.emulator.settings import bounded_number
from impasto_plugins.emulator.state.charges import LogEntry

PROXY_PAGE = (
    b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1><p>The proxy could not reach the server.</p>"
)
_CHUNK_BYTES = 1 << 16
_MAX_BYTES = 1 << 40


@runtime_checkable
class FaultKind(Protocol):
    """A kind of fault. ``charged``: the default for charging the operation."""

    charged: ClassVar[bool]

    @property
    def replaces(self) -> bool:
        """Return True if the operation does not run."""
        ...

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Answer the request with the fault. ``answer`` is the operation's, ``refuse`` builds a refusal."""
        ...


@attrs.frozen(kw_only=True)
class StatusFault:
    """Another answer: any ``status``, ``headers`` and ``body``.

    The ``body`` is in the provider's form (with ``name`` and ``errors``), a proxy's html page, nothing, or damaged
    JSON; or ``text`` as ``media_type``. A redirect is ``status`` 302 with ``{"location": ...}``; a 200 can be html,
    empty or malformed too.
    """

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    status: int = bounded_number(500, 200, 599)
    body: str = attrs.field(default="provider", validator=in_(("provider", "html", "empty", "malformed")))
    text: str | None = None
    media_type: str | None = None
    name: str | None = None
    errors: tuple[str, ...] = ("a fault of the emulator",)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the other answer."""
        base_answer = self._base_answer(refuse)
        headers = {
            **base_answer.headers,
            **({"content-type": self.media_type} if self.media_type else {}),
            **self.headers,
        }
        return respond(record, attrs.evolve(base_answer, headers=headers))

    def _base_answer(self, refuse: Refuse) -> Reply:
        if self.text is not None:
            return Reply(status=self.status, headers={"content-type": "text/plain"}, body=self.text.encode())
        match self.body:
            case "html":
                return Reply(status=self.status, headers={"content-type": "text/html; charset=utf-8"}, body=PROXY_PAGE)
            case "empty":
                return Reply(status=self.status, headers={"content-type": "image/png"})
            case "malformed":
                return Reply(status=self.status, headers={"content-type": "application/json"}, body=b"{not json")
            case _:
                return refuse(self.status, self.name, self.errors)


@attrs.frozen(kw_only=True)
class DelayFault:
    """The answer comes ``seconds`` late."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    seconds: float = bounded_number(1.0, 0)

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the answer after ``seconds``."""
        await asyncio.sleep(self.seconds)
        return respond(record, answer)


@attrs.frozen(kw_only=True)
class SlowFault:
    """The body comes slowly: ``piece`` bytes at a time, ``bytes_per_second``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    bytes_per_second: float = bounded_number(10_000.0, 0.1)
    piece: int = bounded_number(1024, 1)

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the answer piece by piece."""
        response = await _start_response(request, record, answer)
        for at in range(0, len(answer.body), self.piece):
            await response.write(answer.body[at : at + self.piece])
            await asyncio.sleep(self.piece / self.bytes_per_second)
        return response


@attrs.frozen(kw_only=True)
class TruncateFault:
    """The connection ends after a ``fraction`` of the body that ``content-length`` announced."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    fraction: float = bounded_number(0.5, 0, 1)

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the head with the whole length, then a part of the body."""
        body = answer.body
        return _write_raw(request, record, answer, _fraction_of(body, self.fraction), f"content-length: {len(body)}")


@attrs.frozen(kw_only=True)
class CutFault:
    """A complete answer with a truncated image; ``framing`` by ``length``, or by the ``close`` of the connection."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    fraction: float = bounded_number(0.5, 0, 1)
    framing: str = attrs.field(default="length", validator=in_(("length", "close")))

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send an answer whose image lacks its end."""
        part = _fraction_of(answer.body, self.fraction)
        if self.framing == "close":
            return _write_raw(request, record, answer, part, "connection: close")
        return respond(record, attrs.evolve(answer, body=part))


@attrs.frozen(kw_only=True)
class FramingFault:
    """An answer with wrong framing: ``two-lengths``, ``length-and-chunked`` or ``short-length``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    wrong: str = attrs.field(
        default="two-lengths", validator=in_(("two-lengths", "length-and-chunked", "short-length"))
    )

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Write the answer with wrong framing to the socket."""
        body, length = answer.body, len(answer.body)
        match self.wrong:
            case "two-lengths":
                return _write_raw(
                    request, record, answer, body, f"content-length: {length}", f"content-length: {length - 1}"
                )
            case "length-and-chunked":
                chunked_body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
                framing = (f"content-length: {length}", "transfer-encoding: chunked")
                return _write_raw(request, record, answer, chunked_body, *framing)
            case _:
                return _write_raw(request, record, answer, body, f"content-length: {max(0, length - 7)}", close=False)


@attrs.frozen(kw_only=True)
class ResetFault:
    """A TCP reset ``at`` the ``headers``, before any is sent, or in the ``body`` after a ``fraction`` of it."""

    charged: ClassVar[bool] = False

    at: str = attrs.field(default="headers", validator=in_(("headers", "body")))
    fraction: float = bounded_number(0.5, 0, 1)

    @property
    def replaces(self) -> bool:
        """Return True if the reset comes before the headers."""
        return self.at == "headers"

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send a part of the answer, if any, then reset the connection."""
        if self.at == "body":
            response = await _start_response(request, record, answer)
            await response.write(_fraction_of(answer.body, self.fraction))
            await asyncio.sleep(0.05)  # a reset overtakes bytes that are not delivered yet
        if (transport := request.transport) is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return _WrittenResponse()


@attrs.frozen(kw_only=True)
class CloseFault:
    """The connection ends without an answer."""

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Close the connection."""
        if request.transport is not None:
            request.transport.close()
        return _WrittenResponse()


@attrs.frozen(kw_only=True)
class IdleCloseFault:
    """A good answer, whose connection the server closes after it was idle for ``seconds``."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    seconds: float = bounded_number(0.1, 0)

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the answer, and close the connection when it has been idle."""
        if (transport := request.transport) is not None:
            asyncio.get_running_loop().call_later(
                self.seconds, _close_if_idle, transport, _request_counts.get(transport)
            )
        return respond(record, answer)


@attrs.frozen(kw_only=True)
class MediaTypeFault:
    """A good answer with another media type."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    media_type: str = "application/octet-stream"

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the answer with the other media type."""
        return respond(record, attrs.evolve(answer, headers={**answer.headers, "content-type": self.media_type}))


@attrs.frozen(kw_only=True)
class HugeFault:
    """A body of so many ``bytes``: the image's own, then zeros."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    bytes: int = bounded_number(1 << 30, 0, _MAX_BYTES)

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the answer with zeros up to ``bytes``."""
        response = await _start_response(request, record, answer, self.bytes)
        remaining = self.bytes - len(answer.body)
        await response.write(answer.body[: self.bytes])
        zeros = bytes(_CHUNK_BYTES)
        while remaining > 0:
            await response.write(zeros[: min(remaining, _CHUNK_BYTES)])
            remaining -= _CHUNK_BYTES
        return response


@attrs.frozen(kw_only=True)
class PendingFault:
    """The job is never ready: 202 for as long as the fault is active."""

    charged: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Answer that the job is in progress."""
        return respond(record, json_reply({"id": request.match_info.get("id", ""), "status": "in-progress"}, 202))


@attrs.frozen(kw_only=True)
class FilteredFault:
    """The image breaks the content policy: 200, blurred, ``CONTENT_FILTERED``. The operation produces it."""

    charged: ClassVar[bool] = True
    replaces: ClassVar[bool] = False

    async def apply(self, request: web.Request, record: LogEntry, answer: Reply, refuse: Refuse) -> web.StreamResponse:
        """Send the blurred image that the operation made."""
        return respond(record, answer)


FILTERED = "filtered"

KINDS: Mapping[str, type] = {
    "status": StatusFault,
    "delay": DelayFault,
    "slow": SlowFault,
    "truncate": TruncateFault,
    "cut": CutFault,
    "framing": FramingFault,
    "reset": ResetFault,
    "close": CloseFault,
    "idle-close": IdleCloseFault,
    "media-type": MediaTypeFault,
    "huge": HugeFault,
    "pending": PendingFault,
    FILTERED: FilteredFault,
}
"""The kinds of fault by name."""


class _WrittenResponse(web.StreamResponse):
    """An answer that was written to the socket directly: the server adds nothing to it."""

    def __init__(self, *, keep_open: bool = False) -> None:
        super().__init__()
        self._keep_open = keep_open

    @property
    def keep_alive(self) -> bool:
        """True if the connection stays open."""
        return self._keep_open

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write no headers."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""


_request_counts: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()
"""The number of requests of each connection."""


def count_request(request: web.Request) -> None:
    """Count a request of its connection."""
    if (transport := request.transport) is not None:
        _request_counts[transport] = _request_counts.get(transport, 0) + 1


def _close_if_idle(transport: asyncio.Transport, request_count: int | None) -> None:
    if _request_counts.get(transport) == request_count:
        transport.close()


def respond(record: LogEntry, answer: Reply) -> web.Response:
    """Send an answer unchanged, and record its status."""
    record.status = answer.status
    headers = {record.id_header: record.id, **answer.headers}
    return web.Response(status=answer.status, headers=headers, body=answer.body)


async def _start_response(
    request: web.Request, record: LogEntry, answer: Reply, length: int | None = None
) -> web.StreamResponse:
    """Send an answer's headers and return it."""
    record.status = answer.status
    response = web.StreamResponse(status=answer.status, headers={record.id_header: record.id, **answer.headers})
    response.content_length = len(answer.body) if length is None else length
    await response.prepare(request)
    return response


def _write_raw(
    request: web.Request, record: LogEntry, answer: Reply, body: bytes, *framing: str, close: bool = True
) -> web.StreamResponse:
    """Write raw framing that no server would send, the body, and end the connection."""
    record.status = answer.status
    headers = (f"{name}: {value}" for name, value in {record.id_header: record.id, **answer.headers}.items())
    head = "\r\n".join((f"HTTP/1.1 {answer.status} OK", *headers, *framing)) + "\r\n\r\n"
    if (transport := request.transport) is not None:
        transport.write(head.encode("latin-1") + body)
        if close:
            transport.close()
    return _WrittenResponse(keep_open=not close)


def _fraction_of(body: bytes, fraction: float) -> bytes:
    return body[: int(len(body) * fraction)]
