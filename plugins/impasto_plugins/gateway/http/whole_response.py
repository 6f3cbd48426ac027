"""A response whose body is there: its head and its body are written at once."""

from __future__ import annotations

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import StreamWriter, _serialize_headers


class WholeResponse(web.StreamResponse):
    """A response of a body with its own headers; aiohttp adds what belongs to the connection."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self._whole = body

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        writer, headers = request.writer, self.headers
        assert isinstance(writer, StreamWriter)  # noqa: S101 - as aiohttp's protocol makes it
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        headers["content-length"] = str(len(self._whole))
        headers["date"] = rfc822_formatted_time()
        if not self._keep_alive:
            headers["connection"] = "close"
        elif request.version < HttpVersion11:
            headers["connection"] = "keep-alive"
        version = f"HTTP/{request.version[0]}.{request.version[1]}"
        head = _serialize_headers(f"{version} {self.status} {self.reason}", headers)
        await writer.write(head if request.method == "HEAD" else head + self._whole)
        self._payload_writer = writer
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the peer has read enough of it."""
        writer, self._payload_writer = self._payload_writer, None
        self._eof_sent = True
        if writer is not None:
            await writer.drain()
