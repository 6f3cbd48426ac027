"""Answers too large for memory: they go out while they come, are whole or plainly cut off, and are never held."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc
from functools import cache
from typing import Any

import aiohttp
import pytest

from impasto_plugins.gateway.calls import streamed_answers as large_module
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from impasto_plugins.gateway.http.spool import SpoolFile
from tests.images import drawn, padded
from tests.plugins.gateway.conftest import MASTER, Running, Start, config
from tests.reliability.servers import PICTURE_HEADERS, Answer, ServedRequest, Server, Wire, accepted_job, head, raw

MIB = 1 << 20


@cache
def large(size: int = 4 * MIB) -> bytes:
    """A picture that is not held."""
    return padded(size)


SHIPPED = {name: getattr(large_module, name) for name in ("MAX_MEMORY_BYTES", "IMAGE_BYTES")}


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of what is held otherwise, so that the pictures here may be smaller."""
    for name in SHIPPED:
        monkeypatch.setattr(large_module, name, MIB)


@pytest.fixture
def as_shipped(little_is_held: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much is held as it is otherwise."""
    for name, value in SHIPPED.items():
        monkeypatch.setattr(large_module, name, value)


def answered(picture: bytes, *, cut: int = 0, end: str = "") -> Answer:
    """The provider's answer, without its last bytes."""
    promised = head(200, {**PICTURE_HEADERS, "content-length": str(len(picture))})
    whole = picture[: len(picture) - cut]
    return raw(promised, *(whole[at : at + MIB] for at in range(0, len(whole), MIB)), end=end)


class Halfway:
    """A provider's answer that stops behind so many bytes until ``go``; the rest of it is a reset, if that is so."""

    def __init__(self, picture: bytes, at: int, *, resets: bool = False) -> None:
        self.picture, self.at, self.resets = picture, at, resets
        self.go = asyncio.Event()

    async def __call__(self, request: ServedRequest, wire: Wire) -> None:
        await wire.send(head(200, {**PICTURE_HEADERS, "content-length": str(len(self.picture))}))
        await wire.send(self.picture[: self.at])
        await self.go.wait()
        if self.resets:  # takes with it what was not read yet
            wire.reset()
        else:
            await wire.send(self.picture[self.at :])


@pytest.fixture
def provider(provider: Server) -> Server:
    provider.posts = provider.polls = [answered(large())]
    return provider


@pytest.fixture
async def gateway(start: Start, provider: Server) -> Running:
    return await start(config(provider.url))


def settled(gateway: Running) -> bool:
    return gateway.gateway._app.memory.used_bytes == 0 and gateway.gateway._app.running_count == 0


def post(gateway: Running, **body: Any) -> Any:
    payload = {"model": "sd3", "prompt": "p", **body}
    return gateway.session.post(f"{gateway.url}/v1/images/generations", json=payload)


async def test_it_comes_whole(gateway: Running, provider: Server) -> None:
    answer = await gateway.sdk.images.with_raw_response.generate(model="sd3", prompt="p")
    response = answer.parse()
    assert response.data is not None
    assert base64.b64decode(response.data[0].b64_json or "", validate=True) == large()
    assert (response.output_format, response.size) == ("png", "64x64")
    assert response.data[0].model_extra == {"seed": 7, "finish_reason": "SUCCESS"}
    assert answer.headers["x-impasto-cost-usd"] == "0.065"
    assert answer.headers["x-request-id"].startswith("req_")
    assert len(provider.paid) == 1
    assert settled(gateway)


async def test_it_goes_out_while_it_comes(gateway: Running, provider: Server) -> None:
    halfway = Halfway(large(), 3 * MIB)
    provider.posts = [halfway]
    async with post(gateway) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        body = await answer.content.readexactly(2 * MIB)
        halfway.go.set()
        body += await answer.content.read()
    assert base64.b64decode(json.loads(body)["data"][0]["b64_json"], validate=True) == large()


async def cut_off(gateway: Running, halfway: Halfway | None = None, **body: Any) -> bytes:
    """What came of an answer that did not come to its end."""
    came = b""
    with pytest.raises(aiohttp.ClientPayloadError):
        async with post(gateway, **body) as answer:
            assert answer.status == 200
            if halfway is not None:
                halfway.go.set()
            async for piece in answer.content.iter_any():
                came += piece
    return came


FAULTS = {
    "closed": answered(large(), cut=20, end="close"),
    "without its trailer": answered(large()[:-20]),
}


@pytest.mark.parametrize("body", [{}, {"stream": True}], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_ends_the_connection_and_not_the_answer(
    gateway: Running, provider: Server, fault: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    provider.posts = [FAULTS[fault]]
    came = await cut_off(gateway, **body)
    assert "the response was cut off in its image (" in caplog.text
    assert base64.b64encode(large()[:3000]) in came[:5000]
    assert not came.endswith((b"}", b"\n"))
    assert len(provider.paid) == 1
    await gateway.idle()
    assert settled(gateway)


async def test_a_reset_ends_it_too(gateway: Running, provider: Server) -> None:
    halfway = Halfway(large(), 3 * MIB, resets=True)
    provider.posts = [halfway]
    await cut_off(gateway, halfway)
    assert len(provider.paid) == 1


async def test_a_time_out_ends_it_too(start: Start, provider: Server) -> None:
    gateway = await start(config(provider.url, general="  timeout: 1\n"))
    provider.posts = [Halfway(large(), 3 * MIB)]
    await cut_off(gateway)
    assert len(provider.paid) == 1


async def test_a_caller_who_leaves_does_not_end_the_call(gateway: Running, provider: Server) -> None:
    halfway = Halfway(large(), 2 * MIB)
    provider.posts = [halfway]
    async with post(gateway) as answer:
        await answer.content.readexactly(MIB)
        answer.close()
    await asyncio.sleep(0.1)
    assert gateway.gateway._app.running_count == 1
    halfway.go.set()
    await gateway.idle()
    assert settled(gateway)


async def test_a_stream_of_events(gateway: Running) -> None:
    stream = await gateway.sdk.images.generate(model="sd3", prompt="p", stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.completed"]
    assert base64.b64decode(events[0].b64_json, validate=True) == large()
    async with post(gateway, stream=True) as answer:
        assert answer.headers["x-impasto-cost-usd"] == "0.065"
        assert (await answer.read()).endswith(b"\n\ndata: [DONE]\n\n")


async def test_comments_stand_before_it_and_not_in_it(
    gateway: Running, provider: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.api.responses.COMMENT_SECONDS", 0.05)
    halfway = Halfway(large(), 3 * MIB)

    async def slowly(request: ServedRequest, wire: Wire) -> None:
        await asyncio.sleep(0.2)
        await halfway(request, wire)

    provider.posts = [slowly]
    async with post(gateway, stream=True) as answer:
        body = await answer.content.readexactly(MIB)
        await asyncio.sleep(0.2)
        halfway.go.set()
        body += await answer.read()
    assert body.startswith(b": working\n\n")
    assert body.rpartition(b": working")[2].startswith(b"\n\nevent: image_generation.completed\ndata: {")


async def test_several_at_once(gateway: Running, provider: Server) -> None:
    async with post(gateway, n=2) as answer:
        images = (await answer.json())["data"]
        assert int(answer.headers["content-length"]) > 2 * len(large())
    assert [base64.b64decode(each["b64_json"]) for each in images] == [large()] * 2
    assert len(provider.paid) == 2


async def test_a_jobs_result_that_broke_off_is_fetched_again(gateway: Running, provider: Server) -> None:
    provider.posts, provider.polls = [accepted_job()], [answered(large(), cut=20, end="close"), answered(large())]
    picture = base64.b64encode(drawn("PNG", size=(128, 128))).decode()
    images = [{"image_url": f"data:image/png;base64,{picture}"}]
    answer = await gateway.ask("POST", "/v1/images/edits", json={"model": "creative", "prompt": "p", "images": images})
    assert base64.b64decode(answer.json["data"][0]["b64_json"]) == large()
    assert (len(provider.paid), len(provider.polled)) == (1, 2)


async def test_a_url(start: Start, provider: Server, tmp_path: Any) -> None:
    gateway = await start(config(provider.url, more=f"files:\n  folder: {tmp_path / 'files'}\n"))
    answer = await gateway.generate(response_format="url")
    assert (await gateway.ask("GET", answer.json["data"][0]["url"])).body == large()


async def test_an_old_caller_gets_its_length(gateway: Running) -> None:
    """HTTP/1.0 has no chunks: an answer without a length would look whole wherever it broke off."""
    body = b'{"model": "sd3", "prompt": "p"}'
    request = f"POST /v1/images/generations HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {MASTER}\r\n"
    request += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(request.encode() + body)
    answer, _, rest = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    assert f"content-length: {len(rest)}".encode() in answer.lower()
    assert base64.b64decode(json.loads(rest)["data"][0]["b64_json"]) == large()
    writer.close()


@pytest.mark.parametrize("fits", [0, MIB, 3 * MIB])
async def test_an_answer_is_delivered_although_the_disk_is_full(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    append = SpoolFile._append

    def full(self: SpoolFile, piece: bytes) -> None:
        if self.size + len(piece) > fits:
            raise OSError(28, "No space left on device")
        append(self, piece)

    monkeypatch.setattr(SpoolFile, "_append", full)
    answer = await gateway.generate()
    assert base64.b64decode(answer.json["data"][0]["b64_json"], validate=True) == large()
    assert settled(gateway)


@pytest.mark.usefixtures("as_shipped")
async def test_memory_is_bounded_by_what_is_set_and_the_rest_goes_to_disk(
    start: Start, provider: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start(config(provider.url, general=f"  max_bytes_in_flight: {1 << 24}\n"))
    provider.posts = [answered(large(6 * MIB))]
    spooled: list[int] = []
    holds = large_module.SpooledAnswer.fits_in_memory

    def watched(self: large_module.SpooledAnswer, size: int) -> bool:
        holder = holds(self, size)
        if not holder:
            spooled.append(size)
        return holder

    monkeypatch.setattr(large_module.SpooledAnswer, "fits_in_memory", watched)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, gateway.gateway._app.memory.used_bytes)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(gateway.generate() for _ in range(6)))
    watching.cancel()
    assert [base64.b64decode(a.json["data"][0]["b64_json"]) == large(6 * MIB) for a in answers] == [True] * 6
    assert most <= 1 << 24
    assert spooled  # six times 6 MiB are more than 16
    assert max(spooled) < 6 * MIB


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize(("size", "is_held"), [(8 * MIB, True), (8 * MIB + 1, False)])
async def test_eight_mib_are_held(gateway: Running, provider: Server, size: int, is_held: bool) -> None:
    provider.posts = [answered(padded(size))]
    async with post(gateway) as answer:
        assert ("content-length" in answer.headers) is is_held
        assert base64.b64decode((await answer.json())["data"][0]["b64_json"]) == padded(size)


@pytest.mark.usefixtures("as_shipped")
async def test_memory_does_not_grow_with_the_picture(gateway: Running, provider: Server) -> None:
    picture = large(40 * MIB)
    provider.posts = [answered(picture)]
    await gateway.generate()  # imports, connects
    tracemalloc.start()
    try:
        async with post(gateway) as answer:
            size = 0
            async for piece in answer.content.iter_chunked(1 << 16):
                size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > len(picture) * 4 // 3
    assert peak < 16 * MIB  # what is held before it proves large, and the pieces on their way


@pytest.mark.parametrize("fits", [10 * MIB, 0], ids=["on disk", "in memory"])
async def test_pieces_that_go_out_while_it_comes_are_whole_in_base64(
    monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    """All but the last have one length, a multiple of 3, however unevenly the answer comes."""
    piece, append = large_module.CHUNK_BYTES, SpoolFile._append

    def full(self: SpoolFile, data: bytes) -> None:
        if self.size + len(data) > fits:
            raise OSError(28, "No space left on device")
        append(self, data)

    monkeypatch.setattr(SpoolFile, "_append", full)
    flow = MemoryBudget(1 << 30)
    answer, came = large_module.SpooledAnswer(MemoryReservation(flow), None, MIB), list[bytes]()

    async def read() -> None:
        async for each in answer.iter_chunks():
            came.append(each)

    reading = asyncio.create_task(read())
    sent = b""
    for size in (1, piece - 1, 7, piece + 5, 3 * piece - 1, 2):
        data = bytes([size % 251]) * size
        sent += data
        await answer.write(data)
        for _ in range(20):
            await asyncio.sleep(0)
        assert all(len(each) == piece for each in came)
    await answer.finish()
    await reading
    assert piece % 3 == 0
    assert b"".join(came) == sent
    assert {len(each) for each in came[:-1]} == {piece}
    assert flow.used_bytes == (0 if fits else len(sent)), "what a full disk leaves in memory counts"
    answer.close()
