"""Sounds and 3D models in a batch: both forms of a row, and what a stop left in the staging folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from impasto import InvalidRequest, Registry
from impasto.files import media_type_of
from impasto_plugins.batch.ledger.recovery import _is_whole, _without_room
from impasto_plugins.batch.manifest.rows import parse_row, tasks_of
from impasto_plugins.batch.tasks import ImageTask
from tests.images import drawn, png
from tests.media import FRAME, glb, mp3, wav

RAIN, SOLID = "stability/stable-audio-2.5/text-to-audio", "stability/stable-fast-3d"


def tasks_of_row(row: dict[str, object], folder: Path) -> list[ImageTask]:
    """What a row asks for."""
    return tasks_of(parse_row(row), Registry().operation(parse_row(row).model), folder)


def in_words(url: str, **body: object) -> dict[str, object]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


def test_both_forms_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "tune.wav").write_bytes(wav(7))
    (tmp_path / "chair.png").write_bytes(png(96, 96))
    assert len(tasks_of_row({"id": "a", "model": RAIN, "prompt": "rain", "n": 2}, tmp_path)) == 2
    (choir,) = tasks_of_row(
        {"id": "b", "model": "stability/stable-audio-3/inpaint", "prompt": "x", "audio": "tune.wav"}, tmp_path
    )
    assert choir.cost is not None
    assert choir.cost.credits == 26
    assert len(tasks_of_row(in_words("/v1/audio/generations", model=RAIN, prompt="rain", n=2), tmp_path)) == 2
    assert tasks_of_row(in_words("/v1/3d/generations", model=SOLID, image="chair.png"), tmp_path)[0].cost is not None


def test_a_path_and_a_model_of_different_kinds(tmp_path: Path) -> None:
    for url, model in (("/v1/images/generations", RAIN), ("/v1/audio/generations", SOLID)):
        with pytest.raises(InvalidRequest, match="model: makes"):
            tasks_of_row(in_words(url, model=model, prompt="rain"), tmp_path)


@pytest.mark.parametrize(
    "whole",
    [wav(3), wav(3)[:-5] + bytes(5), mp3(3), mp3(3)[:-68] + b"\1" + bytes(67), glb(), drawn("PNG"), drawn("WEBP")],
)
def test_a_whole_answer_in_a_reserved_file_is_taken_as_it_came(whole: bytes) -> None:
    media_type = media_type_of(whole[:16]) or ""
    for room in (0, 1, 5_000, 100_000):
        came = _without_room(whole + bytes(room), media_type)
        assert _is_whole(came, media_type)
        assert came == whole
    cut = whole[: len(whole) - len(FRAME) // 2]
    assert not _is_whole(cut, media_type) or media_type in ("audio/mpeg", "image/webp")
