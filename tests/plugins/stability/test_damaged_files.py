"""A cut or damaged file is refused by its field's name, and nothing is sent: every file field, every entrance."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import impasto
from impasto import InvalidRequest, Operation
from impasto_plugins.cli.main import main
from impasto_plugins.images import pixel_data
from tests.conftest import KEY
from tests.images import damaged as damaged_images, drawn, padded, png
from tests.media import mp3, wav
from tests.plugins.stability import bedrock_cases, cases
from tests.recorder import Recorder, picture

WHOLE = png(700, 700)
IMAGES = {
    "png without its end": WHOLE[:-12],
    "png with a wrong byte": WHOLE[:60] + bytes([WHOLE[60] ^ 1]) + WHOLE[61:],
    "half a jpeg": (jpeg := drawn("JPEG", size=(700, 700)))[: len(jpeg) // 2],
    "half a webp": (webp := drawn("WEBP", size=(700, 700)))[: len(webp) // 2],
    **damaged_images(),
}
SOUNDS = {
    "half a wav": wav(40)[: len(wav(40)) // 2],
    "wav without its last byte": wav(20)[:-1],
    "half an mp3": mp3(40)[: len(mp3(40)) // 2 + 7],
    "mp3 without its last byte": mp3(20)[:-1],
    "mp3 with the first byte of a frame": mp3(20) + mp3(1)[:1],
}
DIRECT = [(operation, field) for operation in cases.BY_TARGET.values() for field in operation.file_fields]
BEDROCK = [(operation, field) for operation in bedrock_cases.MODELS.values() for field in operation.file_fields]


def damaged(operation: Operation, field: str) -> dict[str, bytes]:
    return SOUNDS if operation.fields[field].role == "audio" else IMAGES


@pytest.mark.parametrize(("operation", "field"), DIRECT, ids=lambda it: it if isinstance(it, str) else it.target[9:])
async def test_every_file_field_refuses_a_damaged_file(
    client: impasto.Client, recorder: Recorder, operation: Operation, field: str
) -> None:
    for kind, data in damaged(operation, field).items():
        with pytest.raises(InvalidRequest) as refused:
            await client.invoke(operation.id, cases.request(operation, field, data))
        assert [problem.field for problem in refused.value.problems] == [field], kind
        assert "incomplete" in str(refused.value), kind
    assert recorder.requests == []


@pytest.mark.parametrize(("operation", "field"), BEDROCK, ids=lambda it: it if isinstance(it, str) else it.target)
def test_every_file_field_on_bedrock_refuses_a_damaged_file(operation: Operation, field: str) -> None:
    for kind, data in IMAGES.items():
        with pytest.raises(InvalidRequest) as refused:
            operation.request(operation.id, bedrock_cases.request(operation, field, data))
        assert [problem.field for problem in refused.value.problems] == [field], kind


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("field", ["image", "mask"])
async def test_the_drop_in_function_refuses_a_damaged_file(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, kind: str, field: str
) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("STABILITY_API_BASE", recorder.url)
    arguments: dict[str, Any] = {"image": png(700, 700), "mask": png(700, 700), field: IMAGES[kind]}
    with pytest.raises(InvalidRequest) as refused:
        await impasto.aimage_edit(model="stability/inpaint", prompt="a sail", **arguments)
    assert [problem.field for problem in refused.value.problems] == [field]
    assert recorder.requests == []


def test_commands_refuse_a_damaged_file(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(IMAGES["png without its end"])
    (tmp_path / "cut.wav").write_bytes(SOUNDS["half a wav"])
    for words in (
        ["edit", "stability/inpaint", "cut.png", "--prompt", "a sail"],
        ["audio", "stability/stable-audio-3/audio-to-audio", "a choir", "--audio", "cut.wav"],
        ["model3d", "stability/stable-fast-3d", "cut.png"],
    ):
        result = CliRunner().invoke(main, words, env={**environment, "STABILITY_API_BASE": "http://127.0.0.1:1"})
        assert result.exit_code == 2, result.output
        assert "incomplete" in result.stderr
        assert "Nothing was sent." in result.stderr


def test_a_batch_refuses_a_damaged_file_before_it_starts(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(IMAGES["png without its end"])
    row = {"id": "x", "model": "stability/erase", "image": "cut.png"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    words = ["batch", "run", "rows.jsonl", "--out", "out"]
    result = CliRunner().invoke(main, words, env={**environment, "STABILITY_API_BASE": "http://127.0.0.1:1"})
    assert result.exit_code == 2, result.output
    assert "image: " in result.stderr
    assert "incomplete or damaged PNG" in result.stderr


async def test_a_large_image_in_memory_is_checked_in_a_thread(client: impasto.Client, recorder: Recorder) -> None:
    """The loop turns while 9 MB are read: without a thread it would not turn between the call and its refusal."""
    data = padded(9_000_000)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    await client.warm("stability/erase")
    turning = asyncio.create_task(turn())
    with pytest.raises(InvalidRequest, match="incomplete or damaged PNG"):
        await client.run("stability/erase", image=data[:-1])
    turning.cancel()
    assert turns > 0
    assert recorder.requests == []


async def test_a_small_file_with_many_pixels_is_checked_in_a_thread(
    client: impasto.Client, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 million pixels in 2 KB: inflating them takes longer than the loop may wait."""
    threads: list[str] = []
    rows = pixel_data.PngRows.feed

    def feed(self: pixel_data.PngRows, piece: bytes) -> bool:
        threads.append(threading.current_thread().name)
        return rows(self, piece)

    monkeypatch.setattr(pixel_data.PngRows, "feed", feed)
    await client.run("stability/erase", image=png(3000, 3000))
    assert threads
    assert threading.current_thread().name not in threads


@pytest.mark.parametrize("kind", damaged_images())
async def test_a_damaged_answer_that_was_charged_is_delivered(
    client: impasto.Client, recorder: Recorder, kind: str
) -> None:
    """Only what is sent is decoded: an image that was paid for is not judged by more than its end."""
    data = damaged_images()[kind]
    recorder.answer = lambda _: picture(data)
    (artifact,) = (await client.run("stability/stable-image-core", prompt="a sail")).artifacts
    assert artifact.data == data
