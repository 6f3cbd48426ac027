"""Input images with valid structure and damaged pixel data are refused. No complete image is."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from PIL import Image

from impasto import File
from impasto_plugins.images.limits import Limits
from tests.images import chunk, noisy

ANY = Limits()
SIDE = 160
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def problems(data: bytes) -> list[str]:
    return list(ANY(File.of(("image", data))))


def refusal(name: str) -> list[str]:
    return [f"'image' is an incomplete or damaged {name} file; give the whole file"]


@cache
def images() -> dict[str, Image.Image]:
    """Noise has no run of zeros in any encoding; flat images have long ones."""
    noise = noisy(SIDE)
    images = {"noise": noise, "grey noise": noise.convert("L").convert("RGB"), "odd": noise.crop((0, 0, 157, 83))}
    for colour in ("white", "black", "#808080", "#c81e4d"):
        images[colour] = Image.new("RGB", (SIDE * 2, SIDE * 2), colour)
        images[f"half {colour}"] = images[colour].copy()
        images[f"half {colour}"].paste(noise.resize((SIDE * 2, SIDE)), (0, 0))
    images["one pixel"] = Image.new("RGB", (1, 1), "red")
    images["gradient"] = Image.linear_gradient("L").convert("RGB")
    images["columns"] = Image.frombytes("L", (256, 256), bytes((0, 255)) * (128 * 256)).convert("RGB")
    return images


JPEG: dict[str, dict[str, object]] = {
    "baseline": {"quality": 90},
    "coarse": {"quality": 5},
    "finest": {"quality": 100, "subsampling": 0},
    "optimized": {"quality": 90, "optimize": True},
    "restarts": {"quality": 90, "restart_marker_blocks": 3},
    "rgb": {"quality": 90, "keep_rgb": True},
    "progressive": {"quality": 90, "progressive": True},
    "progressive restarts": {"quality": 100, "progressive": True, "restart_marker_rows": 1, "subsampling": 0},
}
WEBP: dict[str, dict[str, object]] = {
    "lossy": {"quality": 80},
    "fast": {"quality": 100, "method": 0},
    "lossless": {"lossless": True, "method": 0, "quality": 0},
}


def encode(image: Image.Image, kind: str, options: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", images())
def test_a_complete_image_is_accepted(name: str) -> None:
    image = images()[name]
    for kind, modes, forms in (("JPEG", ("RGB", "L", "CMYK"), JPEG), ("WEBP", ("RGB", "RGBA"), WEBP)):
        for mode, (form, options) in itertools.product(modes, forms.items()):
            if form != "rgb" or mode == "RGB":
                data = encode(image.convert(mode), kind, options)
                assert problems(data) == [], (kind, mode, form)
                assert problems(data + b"after it" + data) == [], (kind, mode, form)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("form", JPEG)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_truncated_jpeg_with_an_end_is_refused(form: str, mode: str, share: float) -> None:
    if form == "rgb" and mode != "RGB":
        return
    data = encode(images()["noise"].convert(mode), "JPEG", JPEG[form])
    assert problems(data[: int(len(data) * share)] + b"\xff\xd9") == refusal("JPEG")


@pytest.mark.parametrize("form", ["baseline", "progressive"])
def test_a_jpeg_that_is_truncated_in_a_flat_half_is_refused(form: str) -> None:
    data = encode(images()["half white"], "JPEG", JPEG[form])
    assert problems(data[: len(data) * 2 // 5] + b"\xff\xd9") == refusal("JPEG")


@pytest.mark.parametrize(("kind", "form"), [*(("JPEG", form) for form in JPEG), *(("WEBP", form) for form in WEBP)])
def test_an_image_whose_second_half_is_zeros_is_refused(kind: str, form: str) -> None:
    options = (JPEG if kind == "JPEG" else WEBP)[form]
    data = encode(images()["noise"], kind, options)
    half = len(data) // 2
    name = "JPEG" if kind == "JPEG" else "WebP"
    assert problems(data[:half] + bytes(len(data) - half - 2) + data[-2:]) == refusal(name)


def test_zeros_after_the_last_block_of_a_flat_grey_jpeg_are_accepted() -> None:
    """Data, no data and any other data decode to the same image there, so nothing can be concluded."""
    data = encode(images()["#808080"], "JPEG", JPEG["optimized"])
    assert problems(data[:-2] + bytes(9000) + data[-2:]) == []


def test_a_jpeg_with_a_few_bytes_after_its_last_block_is_accepted() -> None:
    """Cameras fill up the data to a multiple of some size."""
    data = encode(images()["noise"], "JPEG", JPEG["baseline"])
    assert problems(data[:-2] + bytes(511) + data[-2:]) == []


def test_zeros_in_metadata_are_accepted() -> None:
    jpeg = encode(images()["noise"], "JPEG", {"icc_profile": bytes(9000), "exif": b"Exif\0\0II*\0" + bytes(9000)})
    assert problems(jpeg) == []
    webp = encode(images()["noise"], "WEBP", {"icc_profile": bytes(9000), "xmp": bytes(9000)})
    assert problems(webp) == []


def test_forms_that_can_not_be_judged_are_accepted() -> None:
    """An arithmetic coder may omit its last zero bytes, and Pillow decodes no 12 bits per channel."""
    data = encode(images()["noise"], "JPEG", JPEG["baseline"])
    frame = data.index(b"\xff\xc0")
    assert problems(data[:frame] + b"\xff\xc9" + data[frame + 2 : -99] + b"\xff\xd9") == []
    assert problems(data[: frame + 4] + b"\x0c" + data[frame + 5 :]) == []


def test_a_jpeg_too_large_to_be_decoded_for_a_check_is_accepted() -> None:
    data = encode(Image.new("L", (4104, 4104)), "JPEG", {"quality": 5})
    assert problems(data[: len(data) // 2] + b"\xff\xd9") == []


COLOURS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bit depths of each colour type of a PNG (W3C PNG, table 8)."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASS = ("16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777")
"""Which pass of Adam7 a pixel belongs to, by row and column (W3C PNG, 8.1)."""


def rows_of(width: int, height: int, colour: int, depth: int, *, interlaced: bool) -> Iterator[bytes]:
    """The rows as the specification counts them: pixel by pixel."""
    for number in "1234567" if interlaced else "1":
        for y in range(height):
            columns = [x for x in range(width) if not interlaced or PASS[y % 8][x % 8] == number]
            if columns:
                yield bytes(1 + -(-len(columns) * depth * CHANNELS[colour] // 8))


def png_of(header: tuple[int, ...], rows: bytes, *, stream: bytes = b"", pieces: int = 3) -> bytes:
    stream = stream or zlib.compress(rows)
    size = -(-len(stream) // pieces)
    palette = chunk(b"PLTE", bytes(6)) if header[3] == 3 else b""
    data = b"".join(chunk(b"IDAT", stream[at : at + size]) for at in range(0, len(stream), size))
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + palette + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), [(colour, depth) for colour in COLOURS for depth in COLOURS[colour]])
def test_a_png_with_too_few_rows_is_refused(colour: int, depth: int, *, interlaced: bool) -> None:
    for width, height in ((1, 1), (3, 5), (8, 8), (21, 13)):
        rows = list(rows_of(width, height, colour, depth, interlaced=interlaced))
        header = (width, height, depth, colour, 0, 0, int(interlaced))
        whole = png_of(header, b"".join(rows))
        Image.open(io.BytesIO(whole)).load()
        assert problems(whole) == []
        assert problems(png_of(header, b"".join(rows) + bytes(99))) == [], "data after the last row are skipped"
        for few in (b"".join(rows)[:-1], b"".join(rows[:-1]), b"".join(rows[: len(rows) // 2])):
            assert problems(png_of(header, few)) == refusal("PNG"), (width, height)


def test_a_png_whose_data_can_not_be_inflated_is_refused() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    for data in (b"no deflate stream", zlib.compress(bytes(64 * 65))[:-20]):
        assert problems(SIGNATURE + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")) == refusal("PNG")


def test_a_png_in_chunks_of_one_byte_or_with_a_wrong_zlib_checksum_is_accepted() -> None:
    """Decoders read no further than the last row, and the checksum comes after it."""
    header = (64, 64, 8, 0, 0, 0, 0)
    stream = zlib.compress(bytes(64 * 65))
    for data in (stream, stream[:-4] + b"\0\0\0\0", stream[:-4]):
        for pieces in (1, len(data)):
            assert problems(png_of(header, b"", stream=data, pieces=pieces)) == []


@pytest.mark.parametrize("start", [b"\x78\x9d", b"\x79\x9c", b"\x88\x1c", b"\x78\xbb"])
def test_a_png_whose_zlib_header_is_wrong_is_refused(start: bytes) -> None:
    """A wrong sum, another method, too large a window, a dictionary (RFC 1950, 2.2)."""
    stream = start + zlib.compress(bytes(64 * 65))[2:]
    assert problems(png_of((64, 64, 8, 0, 0, 0, 0), b"", stream=stream)) == refusal("PNG")


def test_a_large_png_is_checked_in_little_memory() -> None:
    data = png_of((4096, 4096, 8, 6, 0, 0, 0), bytes(4096 * (1 + 4 * 4096)), pieces=1)
    tracemalloc.start()
    try:
        assert problems(data) == []
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
