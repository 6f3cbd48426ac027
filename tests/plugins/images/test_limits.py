"""The formats and sizes that are recognized, and the problems of images that exceed a limit."""

from __future__ import annotations

import io
import time
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from impasto import File
from impasto_plugins.images.limits import Limits
from impasto_plugins.images.size import size_of
from tests.images import WRONG, animated, drawn, padded, png

ANY = Limits()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return drawn("JPEG", size=(120, 80), exif=exif.tobytes())


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(64, 65), (64, 65)),
        (png(16_384, 64), (16_384, 64)),
        (drawn("PNG", "I;16"), (96, 96)),
        (drawn("PNG", "P"), (96, 96)),
        (drawn("PNG", "LA"), (96, 96)),
        (drawn("JPEG", size=(97, 95)), (97, 95)),
        (drawn("JPEG", "CMYK"), (96, 96)),
        (drawn("JPEG", "L"), (96, 96)),
        (drawn("JPEG", progressive=True), (96, 96)),
        (drawn("JPEG", icc_profile=bytes(200_000)), (96, 96)),
        (drawn("JPEG", comment=b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01"), (96, 96)),
        (rotated(), (120, 80)),
        (drawn("WEBP", size=(97, 95)), (97, 95)),
        (drawn("WEBP", "RGBA", size=(97, 95)), (97, 95)),
        (drawn("WEBP", lossless=True, size=(97, 95)), (97, 95)),
        (drawn("WEBP", size=(97, 95), exif=b"Exif\0\0"), (97, 95)),
        (animated("PNG"), (96, 96)),
        (animated("WEBP"), (96, 96)),
        (drawn("JPEG")[:2] + b"\xff" * 50 + drawn("JPEG")[2:], (96, 96)),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_size_is_that_of_a_decoder(data: bytes, size: tuple[int, int], tmp_path: Path) -> None:
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.size == size
    assert size_of(File.of(data)) == size
    path = tmp_path / "image"
    path.write_bytes(data)
    assert size_of(File.of(path)) == size
    with path.open("rb") as source:
        file = File.of(source)
    assert size_of(file) == size
    file.close()
    assert list(ANY(File.of(data))) == []


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_file_of_another_format_is_refused_with_its_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "looks-like.png"
    path.write_bytes(data)
    [problem] = ANY(File.of(path))
    assert f"{str(path)!r} " in problem
    assert problem.endswith(("is not a PNG, JPEG or WebP image; give PNG, JPEG or WebP", "file; give the whole file"))


def test_a_png_bomb_is_measured_without_being_decoded() -> None:
    bomb = png(30_000, 30_000)
    tracemalloc.start()
    [problem] = Limits(max_pixels=9_437_184)(File.of(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem == "is 30000x30000 pixels: width x height must be at most 9,437,184"
    assert peak < 2**20


@pytest.mark.parametrize(
    "endless",
    [b"\xff\xd8\xff" + b"\xff" * 5_000_000, b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000],
    ids=["fill bytes", "empty segments"],
)
def test_a_jpeg_without_a_frame_is_refused_soon(endless: bytes) -> None:
    start = time.process_time()
    [problem] = ANY(File.of(endless))
    assert problem == "'bytes' is an incomplete or damaged JPEG file; give the whole file"
    assert time.process_time() - start < 1.0, "it takes 10 ms; reading on to the end takes many seconds"


def test_audio_has_no_size() -> None:
    with pytest.raises(ValueError, match="not a PNG, JPEG or WebP image: audio/wav"):
        size_of(File.of(WRONG["wav"]))


def test_markers_without_a_length_are_skipped() -> None:
    whole = drawn("JPEG")
    assert size_of(File.of(whole[:2] + b"\xff\x01\xff\xd0" + whole[2:])) == (96, 96)


def test_an_image_with_a_side_of_zero_pixels_is_refused() -> None:
    head = b"RIFF\x16\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a"
    assert len(list(ANY(File.of(head + b"\x00\x00\x10\x00")))) == 1
    assert not list(ANY(File.of(head + b"\x10\x00\x10\x00")))


def test_all_exceeded_limits_are_in_one_message() -> None:
    limits = Limits(min_side=64, max_side=100, min_pixels=5_000, aspect=2.5)
    [problem] = limits(File.of(png(101, 40)))
    assert problem == (
        "is 101x40 pixels: each side must be at least 64, each side must be at most 100, "
        "width x height must be at least 5,000, the aspect ratio must be from 1:2.5 to 2.5:1"
    )
    assert str(limits) == "PNG, JPEG or WebP, sides 64..100, 5,000 or more pixels, aspect ratio 1:2.5 to 2.5:1"
    assert str(Limits(max_pixels=10)) == "PNG, JPEG or WebP, 1..10 pixels"
    assert str(Limits(max_side=10)) == "PNG, JPEG or WebP, sides 1..10"


def test_a_file_larger_than_the_whole_request_is_refused() -> None:
    [problem] = Limits(max_bytes=1000)(File.of(padded(1001)))
    assert problem == "has 1,001 bytes; a request may have at most 1,000"
    assert not list(Limits(max_bytes=1000)(File.of(padded(1000))))
