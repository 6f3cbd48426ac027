"""A provider's stand-in that writes down what reaches it, byte for byte, and answers as it is told.

It knows nothing of the parameter classes and takes multipart apart by hand, so that it is a second witness.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
from aiohttp import web

from tests.images import png
from tests.media import glb, wav

JOB = "a1" * 32
SOUNDS = "/v2beta/audio/"


@attrs.frozen
class Part:
    """One part of a multipart body; ``filename`` is None for a plain field."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class ReceivedRequest:
    """One request as it came. ``headers`` are as sent, in their order."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")

    def header(self, name: str) -> str | None:
        """The one value of a header; fails where it came twice."""
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def boundary(self) -> str:
        found = re.fullmatch(
            r'multipart/form-data; boundary="?([0-9A-Za-z_.-]{1,70})"?', self.header("content-type") or ""
        )
        assert found is not None, f"not multipart: {self.header('content-type')}"
        return found[1]

    @property
    def parts(self) -> list[Part]:
        """The parts in their order. Fails on anything that a strict reader would not take."""
        before, *pieces, after = (b"\r\n" + self.body).split(b"\r\n--" + self.boundary.encode())
        assert before == b"", "something stands before the first boundary"
        assert after == b"--\r\n", "the last boundary is not closed"
        return [_part(piece) for piece in pieces]

    @property
    def fields(self) -> dict[str, str]:
        """The plain fields, as text; fails where a name came twice."""
        plain = [part for part in self.parts if part.filename is None]
        fields = {part.name: part.data.decode() for part in plain}
        assert len(fields) == len(plain), "a field came twice"
        return fields

    @property
    def files(self) -> dict[str, Part]:
        """The file parts by name; fails where a name came twice."""
        file_parts = [part for part in self.parts if part.filename is not None]
        files = {part.name: part for part in file_parts}
        assert len(files) == len(file_parts), "a file came twice"
        return files


def _part(piece: bytes) -> Part:
    assert piece.startswith(b"\r\n"), "a boundary does not end its line"
    head, blank, data = piece[2:].partition(b"\r\n\r\n")
    assert blank, "a part has no blank line after its headers"
    headers = dict(line.split(": ", 1) for line in head.decode("ascii").split("\r\n"))
    headers = {name.lower(): value for name, value in headers.items()}
    found = re.fullmatch(r'form-data; name="([^"]+)"(?:; filename="([^"]+)")?', headers["content-disposition"])
    assert found is not None, headers["content-disposition"]
    return Part(found[1], found[2], headers.get("content-type"), data)


@attrs.frozen(kw_only=True)
class Answer:
    """What the recorder answers."""

    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    body: bytes = attrs.field(default=b"", repr=False)


def picture(data: bytes = b"", *, seed: int = 7, reason: str = "SUCCESS") -> Answer:
    """A good answer with a picture."""
    headers = {"content-type": "image/png", "finish-reason": reason, "seed": str(seed), "x-request-id": "req-1"}
    return Answer(headers=headers, body=data or png(8, 8))


def sound() -> Answer:
    """A good answer with a sound."""
    headers = {"content-type": "audio/wav", "finish-reason": "SUCCESS", "seed": "7", "x-request-id": "req-1"}
    return Answer(headers=headers, body=wav(10))


def model_3d() -> Answer:
    """A good answer with a 3D model, which tells nothing beside it."""
    return Answer(headers={"content-type": "model/gltf-binary"}, body=glb())


def in_json(body: object, *, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


@attrs.define
class Recorder:
    """``requests`` holds them in order. ``jobs`` are paths that are answered with a job's id, whose result
    is there after ``pending`` polls. ``answer``, where it is set, answers instead (None: as usual)."""

    url: str = ""
    requests: list[ReceivedRequest] = attrs.field(factory=list[ReceivedRequest])
    jobs: set[str] = attrs.field(factory=set[str])
    pending: int = 0
    answer: Callable[[ReceivedRequest], Answer | None] | None = None

    @property
    def posts(self) -> list[ReceivedRequest]:
        return [each for each in self.requests if each.method == "POST"]

    def clear(self) -> None:
        """Forget all requests."""
        self.requests.clear()
        self.pending, self.answer = 0, None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received = ReceivedRequest(
            method=request.method,
            path=request.raw_path,
            headers=tuple((k.decode(), v.decode()) for k, v in request.raw_headers),
            body=await request.content.read(),
        )
        self.requests.append(received)
        answer = (self.answer(received) if self.answer is not None else None) or self._usual(received)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def _usual(self, request: ReceivedRequest) -> Answer:
        if request.path in self.jobs:
            return in_json({"id": JOB}, status=202 if request.path.startswith(SOUNDS) else 200)
        if request.path.endswith(JOB) and self.pending > 0:
            self.pending -= 1
            return in_json({"id": JOB, "status": "in-progress"}, status=202)
        if request.path.startswith("/v2beta/3d/"):
            return model_3d()
        return sound() if request.path.startswith(SOUNDS) else picture()


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    """A recorder that listens on loopback."""
    recorder = Recorder()
    runner = web.ServerRunner(web.Server(recorder.handle), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    recorder.url = f"http://{host}:{port}"
    try:
        yield recorder
    finally:
        await runner.cleanup()


@contextmanager
def recording_in_thread() -> Iterator[Recorder]:
    """A recorder with a loop of its own: for code that has none, and so that it may be slow without slowing a test."""
    started = threading.Event()
    running: list[tuple[Recorder, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with recording() as recorder:
            stop = asyncio.Event()
            running.append((recorder, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(60)
    recorder, loop, stop = running[0]
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
