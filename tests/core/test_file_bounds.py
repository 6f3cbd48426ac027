"""Files at their bounds: positions beyond an end, the longest path, what is taken for base64, the heads of an MP3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from impasto import File
from impasto.files import media_type_of
from tests.core.test_files import PNG, refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "picture.png"
    target.write_bytes(PNG)
    return target


def test_a_file_that_stands_beyond_its_end_is_empty(path: Path) -> None:
    with path.open("rb") as source:
        source.seek(len(PNG) + 100)
        file = File.of(source)
        assert (file.size, file.media_type, file.read()) == (0, "application/octet-stream", b"")
        file.close()


def test_a_reader_of_an_open_file_can_be_moved_and_never_leaves_its_part(path: Path) -> None:
    path.write_bytes(b"before" + PNG)
    with path.open("rb") as source:
        source.seek(6)
        file = File.of(source)
        with file.open() as reader:
            assert reader.seek(-3, os.SEEK_END) == len(PNG) - 3
            assert reader.read() == PNG[-3:]
            assert reader.seek(4) == 4
            assert reader.read(4) == PNG[4:8]
            assert reader.seek(-2, os.SEEK_CUR) == 6
            assert reader.tell() == 6
            assert reader.seek(-1000, os.SEEK_CUR) == 0, "never before its beginning"
            assert reader.read() == PNG
            reader.seek(len(PNG) + 5)
            assert reader.read() == b""
        file.close()


@pytest.mark.parametrize("second", [0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2])
def test_every_head_of_an_mp3_frame(second: int) -> None:
    assert media_type_of(bytes((0xFF, second))) == "audio/mpeg"


@pytest.mark.parametrize("second", [0xFC, 0xF8, 0xE0, 0xE1])
def test_frames_of_other_layers_are_no_mp3(second: int) -> None:
    assert media_type_of(bytes((0xFF, second))) is None


def test_the_longest_path_that_linux_has_is_looked_for_and_a_longer_one_is_no_path() -> None:
    assert "can't read" in refused("a.b/" * 1023 + "x.pn")
    assert refused("a.b/" * 1024 + "x").startswith("text of 4,097 characters is not the path of a file")


def test_text_of_64_letters_is_taken_for_base64_and_shorter_text_for_a_path() -> None:
    assert "can't read" in refused("a" * 63)
    assert refused("a" * 64).startswith("text of 64 characters is not the path of a file; give base64")


def test_a_pair_whose_content_is_a_path_or_an_open_file_keeps_its_name(path: Path) -> None:
    assert File.of(("mine.png", path)).label == "mine.png"
    assert File.of(("", path)).label == str(path)
    with pytest.raises(ValueError, match="not tuple"):
        File.of(("a", PNG, "b", "c"))
