"""Input images: a truncated or damaged one is refused before it is paid for, and no complete one is."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto import File
from impasto_plugins.images.limits import Limits
from tests.images import animated, chunk, drawn, png

ANY = Limits()
PNG = png(64, 64)
JPEG = drawn("JPEG")


def noisy(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((96, 64), 90).convert("RGB").save(out, kind, **options)
    return out.getvalue()


def sixteen_bits() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(out, "PNG")
    return out.getvalue()


def with_preview() -> bytes:
    """A JPEG whose EXIF has a complete small JPEG, with an end of its own, as cameras write it."""
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + noisy("JPEG")
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + noisy("JPEG", progressive=True)[2:]


def multi_picture() -> bytes:
    """A multi-picture JPEG, as phones write it: complete images one after the other."""
    out = io.BytesIO()
    frames = [Image.effect_noise((96, 64), 90).convert("RGB") for _ in range(2)]
    frames[0].save(out, "MPO", save_all=True, append_images=frames[1:])
    return out.getvalue()


COMPLETE = {
    "png": PNG,
    "noisy png": noisy("PNG"),
    "png of 16 bits": sixteen_bits(),
    "palette png": drawn("PNG", "P"),
    "png with text and resolution": drawn("PNG", dpi=(300, 300), icc_profile=b"profile" * 99),
    "png of many small chunks": PNG[:33] + b"".join(chunk(b"teXt", b"k\0v") for _ in range(500)) + PNG[33:],
    "apng": animated("PNG"),
    "jpeg": noisy("JPEG"),
    "progressive jpeg": noisy("JPEG", progressive=True),
    "jpeg with restarts": noisy("JPEG", restart_marker_blocks=2),
    "grey jpeg": drawn("JPEG", "L"),
    "jpeg with a preview": with_preview(),
    "multi-picture jpeg": multi_picture(),
    "webp": noisy("WEBP"),
    "lossless webp": noisy("WEBP", lossless=True),
    "webp with alpha and exif": drawn("WEBP", "RGBA", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "animated webp": animated("WEBP"),
}


def problems(data: bytes, folder: Path) -> list[str]:
    """Return the problems of bytes, which are the same for a file on disk and an open file."""
    path = folder / "bytes"
    path.write_bytes(data)
    with path.open("rb") as source:
        files = [File.of(data), File.of(("bytes", path.read_bytes())), File.of(path), File.of(source)]
        found = [[problem.replace(str(folder) + "/", "") for problem in ANY(file)] for file in files]
        for file in files:
            file.close()
    assert all(each == found[0] for each in found), found
    return found[0]


@pytest.mark.parametrize("kind", COMPLETE)
def test_a_complete_image_is_accepted(kind: str, tmp_path: Path) -> None:
    assert problems(COMPLETE[kind], tmp_path) == []
    assert problems(COMPLETE[kind] + b"after it", tmp_path) == []


@pytest.mark.parametrize("kind", [kind for kind in COMPLETE if kind != "multi-picture jpeg"])
def test_a_truncated_image_is_refused(kind: str, tmp_path: Path) -> None:
    data = COMPLETE[kind]
    for size in (len(data) // 2, len(data) * 9 // 10, len(data) - 2, len(data) - 1):
        assert len(problems(data[:size], tmp_path)) == 1, size


def test_a_multi_picture_jpeg_whose_first_image_is_truncated_is_refused(tmp_path: Path) -> None:
    data = COMPLETE["multi-picture jpeg"]
    first = data.index(b"\xff\xd9\xff\xd8", 1000)
    assert len(problems(data[: first // 2], tmp_path)) == 1
    assert problems(data[: first + 2], tmp_path) == [], "only the first image counts"


@pytest.mark.parametrize("at", ["IHDR", "IDAT", "tEXt", "IEND"])
def test_a_png_with_one_wrong_byte_is_refused(at: str, tmp_path: Path) -> None:
    whole = PNG[:33] + chunk(b"tEXt", b"Comment\0a lighthouse") + PNG[33:]
    place = whole.index(at.encode())
    for wrong in (place + 4, place - 1) if at != "IEND" else (place + 4, place + 7):
        data = whole[:wrong] + bytes([whole[wrong] ^ 1]) + whole[wrong + 1 :]
        assert len(problems(data, tmp_path)) == 1, wrong


@pytest.mark.parametrize("kind", ["noisy png", "jpeg", "webp"])
def test_an_image_that_ends_in_zeros_or_html_is_refused_if_its_format_shows_it(kind: str, tmp_path: Path) -> None:
    """A download that broke off into a file of the final size. A WebP has no checksum and no end of its own."""
    data = COMPLETE[kind]
    half = len(data) // 2
    assert len(problems(data[:half] + bytes(len(data) - half), tmp_path)) == 1
    page = b"<html>502 Bad Gateway</html>".ljust(len(data) - half)
    assert (problems(data[:half] + page, tmp_path) == []) is (kind == "webp")


def test_a_png_without_pixels_is_refused(tmp_path: Path) -> None:
    assert len(problems(PNG[:33] + chunk(b"IEND", b""), tmp_path)) == 1


def test_a_webp_whose_frame_is_longer_than_its_riff_is_refused(tmp_path: Path) -> None:
    """Cut in half, and its length corrected by a tool that did not read the frame."""
    data = noisy("WEBP")[: len(noisy("WEBP")) // 4 * 2]
    repaired = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert problems(repaired, tmp_path) == ["'bytes' is an incomplete or damaged WebP file; give the whole file"]


@pytest.mark.parametrize(
    "endless",
    [
        PNG[:33] + chunk(b"teXt", b"") * 400_000,
        JPEG[:-2].replace(b"\xff\xda", b"\xff\xe1\x00\x02" * 400_000 + b"\xff\xda", 1)[:-9],
        b"RIFF" + struct.pack("<I", 3_200_004) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x3f\0\0\x3f\0\0"
        + (b"EXIF" + bytes(4)) * 400_000,
    ],
    ids=["png", "jpeg", "webp"],
)  # fmt: skip
def test_an_image_of_endless_pieces_is_refused(endless: bytes) -> None:
    assert len(list(ANY(File.of(endless)))) == 1
