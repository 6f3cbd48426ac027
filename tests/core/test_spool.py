"""A large answer goes to the caller's spool while it comes, and only where it is the artifact itself."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

import impasto
from impasto import (
    Body,
    Call,
    ChargeUnknown,
    ContentFiltered,
    File,
    Request,
    Result,
    Spool,
    UnusableResult,
    WireResponse,
    hookimpl,
)
from tests.images import padded
from tests.recorder import JOB, Recorder, in_json, picture
from tests.reliability.servers import ServedRequest, Wire, head, raw, serving

CORE, CREATIVE = "stability/stable-image-core", "stability/upscale-creative"
HELD = 100_000
LARGE = padded(300_000)


class Disk:
    """A spool: what it took, in pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def fits_in_memory(self, size: int) -> bool:
        return size <= HELD

    async def write(self, data: bytes) -> None:
        self.pieces.append(data)

    async def finish(self) -> File:
        return File.of(io.BytesIO(b"".join(self.pieces)))


class Spooling(Call):
    """A call with a spool for each answer that may have one."""

    has_spools = True
    instances: ClassVar[list[Disk]]

    def spool(self, response: WireResponse) -> Disk:
        self.instances.append(Disk())
        return self.instances[-1]


@pytest.fixture(autouse=True)
def spools() -> list[Disk]:
    Spooling.instances = []
    return Spooling.instances


async def run(client: impasto.Client, model: str = CORE, **params: object) -> Result:
    return await client.invoke(model, {"prompt": "p", **params}, call=Spooling)


async def test_a_large_picture_is_in_a_file(
    client: impasto.Client, recorder: Recorder, spools: list[Disk], tmp_path: Path
) -> None:
    recorder.answer = lambda _: picture(LARGE)
    (artifact,) = (await run(client)).artifacts
    assert (artifact.file is not None, artifact.media_type, artifact.seed) == (True, "image/png", 7)
    assert artifact.data == artifact.content.read() == LARGE == b"".join(spools[0].pieces)
    assert max(map(len, spools[0].pieces)) < len(LARGE)
    assert artifact.save(tmp_path / "picture.png").read_bytes() == LARGE
    assert len(artifact.b64_json) == 400_000


async def test_a_small_picture_is_in_memory(client: impasto.Client, recorder: Recorder, spools: list[Disk]) -> None:
    recorder.answer = lambda _: picture(padded(HELD))
    (artifact,) = (await run(client)).artifacts
    assert (len(artifact.data), artifact.file, spools[0].pieces) == (HELD, None, [])
    assert artifact.content.read() == artifact.data


async def test_a_caller_without_a_spool_gets_the_answer_in_memory(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: picture(LARGE)
    (artifact,) = (await client.invoke(CORE, {"prompt": "p"})).artifacts
    assert (artifact.data, artifact.file) == (LARGE, None)


class SpoolingText(Spooling):
    """A call with a spool for every answer."""

    def text_spool(self, response: WireResponse) -> Disk:
        return self.spool(response)


async def test_a_large_answer_that_is_parsed_is_read_back(
    client: impasto.Client, recorder: Recorder, spools: list[Disk]
) -> None:
    recorder.answer = lambda _: in_json({"id": "x", "name": "bad_request", "errors": ["e" * 200_000]}, status=400)
    with pytest.raises(impasto.BadRequest, match="eeee"):
        await client.invoke(CORE, {"prompt": "p"}, call=SpoolingText)
    assert len(b"".join(spools[0].pieces)) > 200_000


async def test_a_large_answer_that_waits_for_memory_until_the_calls_time_is_over_is_saved(
    client: impasto.Client, recorder: Recorder
) -> None:
    class Waiting(SpoolingText):
        async def load(self, file: File) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

    recorder.answer = lambda _: in_json({"image": "e" * 200_000})
    with pytest.raises(ChargeUnknown) as caught:
        await client.invoke(CORE, {"prompt": "p"}, timeout=0.3, call=Waiting)
    assert caught.value.file is not None
    assert json.loads(caught.value.file.read()) == {"image": "e" * 200_000}


async def test_an_answer_that_is_not_an_image_is_not_spooled(
    client: impasto.Client, recorder: Recorder, spools: list[Disk]
) -> None:
    recorder.answer = lambda _: in_json({"id": "x", "name": "bad_request", "errors": ["e" * 200_000]}, status=400)
    with pytest.raises(impasto.BadRequest):
        await run(client)
    recorder.answer = lambda _: picture(LARGE, reason="CONTENT_FILTERED")
    with pytest.raises(ContentFiltered) as filtered:
        await run(client)
    assert filtered.value.artifacts[0].data == LARGE
    assert spools == []


async def test_a_jobs_result_is_spooled(client: impasto.Client, recorder: Recorder, spools: list[Disk]) -> None:
    recorder.jobs = {"/v2beta/stable-image/upscale/creative"}
    recorder.answer = lambda request: picture(LARGE) if request.path.endswith(JOB) else None
    (artifact,) = (await run(client, CREATIVE, image=padded(1000))).artifacts
    assert artifact.content.read() == LARGE
    assert len(spools) == 1


async def test_a_large_answer_that_can_not_be_used_is_saved(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: picture(LARGE[:-20])
    with pytest.raises(UnusableResult, match=r"its 299,980 bytes are in the error's \.file") as cut:
        await run(client)
    assert cut.value.file is not None
    assert (cut.value.raw, cut.value.file.read()) == (b"", LARGE[:-20])


async def test_the_beginning_of_an_answer_that_broke_off_is_saved(client: impasto.Client) -> None:
    promised = head(200, {"content-type": "image/png", "content-length": str(len(LARGE))})
    async with serving() as server:
        server.posts = [raw(promised, LARGE[:-20], end="close")]
        with pytest.raises(ChargeUnknown, match="broke off") as caught:
            await run(client.with_options(api_base=server.url))
    assert caught.value.file is not None
    assert (caught.value.raw, caught.value.file.read()) == (b"", LARGE[:-20])


async def test_a_spool_that_fails_leaves_no_connection_open(
    client: impasto.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer still comes: nobody reads it, and its connection is ended at once, not when the error is forgotten."""

    async def full(disk: Disk, data: bytes) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(Disk, "write", full)
    end = asyncio.Event()

    async def slow(request: ServedRequest, wire: Wire) -> None:
        await wire.send(head(200, {"content-type": "image/png", "content-length": str(len(LARGE))}) + LARGE[:-20])
        with suppress(ConnectionError):
            await wire.reader.read()
        end.set()

    async with serving() as server:
        server.posts = [slow]
        with pytest.raises(ChargeUnknown) as caught:
            await run(client.with_options(api_base=server.url))
        await asyncio.wait_for(end.wait(), 60)
    assert caught.value.billed == "unknown"


async def test_a_plugins_own_word_counts(client: impasto.Client, recorder: Recorder, spools: list[Disk]) -> None:
    class Never:
        """Holds every answer in memory, as it wants to look at them."""

        @hookimpl
        def middleware(self) -> None:
            return None

        @hookimpl(tryfirst=True)
        def is_artifact_body(self, request: Request, response: WireResponse) -> bool:
            return False

    recorder.answer = lambda _: picture(LARGE)
    result = await client.with_options(middleware=[Never()]).invoke(CORE, {"prompt": "p"}, call=Spooling)
    assert (result.artifacts[0].data, spools) == (LARGE, [])


async def test_a_body_is_collected_in_memory_or_passed_on_to_a_spool() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 50_000

    holder, disk = Body(chunks()), Disk()
    assert await holder.collect() == holder.received == b"x" * 150_000
    spool: Spool = disk
    passed = Body(chunks())
    assert await passed.collect(spool) is None
    assert (passed.received, (await spool.finish()).read()) == (b"", b"x" * 150_000)
