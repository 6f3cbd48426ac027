"""OpenAI's masks are converted to the provider's; all others are unchanged."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from impasto import File
from impasto_plugins.images.masks import to_provider
from impasto_plugins.images.pixel_data import MAX_PIXELS
from tests.images import WRONG, chunk, drawn, png


def raw_png(depth: int, colour: int, row: bytes, *extra: bytes, size: tuple[int, int] = (2, 1)) -> bytes:
    """A PNG of one row, as its specification has it: some kinds no library writes."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\x00" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + pixels + chunk(b"IEND", b"")


def trns(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def palette(*alphas: int) -> bytes:
    return chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", bytes(alphas))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def half_clear(mode: str) -> Image.Image:
    """Two pixels: one clear, one opaque."""
    alpha = Image.new("L", (2, 1))
    alpha.putpixel((1, 0), 255)
    image = Image.new(mode, (2, 1))
    image.putalpha(alpha)
    return image


CLEAR_THEN_OPAQUE = {
    "rgba": encode(half_clear("RGBA"), "PNG"),
    "la": encode(half_clear("LA"), "PNG"),
    "rgba, 16 bits": raw_png(16, 6, struct.pack(">8H", 9, 9, 9, 0, 9, 9, 9, 65535)),
    "la, 16 bits": raw_png(16, 4, struct.pack(">4H", 9, 0, 9, 65535)),
    "palette with alpha": raw_png(8, 3, b"\x00\x01", palette(0, 255)),
    "palette with alpha of its first colour only": raw_png(8, 3, b"\x00\x01", palette(0)),
    "one clear colour": raw_png(8, 2, b"\x01\x02\x03\x01\x02\x04", trns(1, 2, 3)),
    "one clear colour, 16 bits": raw_png(16, 2, struct.pack(">6H", 65535, 0, 0, 0, 0, 0), trns(65535, 0, 0)),
    "one clear grey, 1 bit": raw_png(1, 0, b"\x80", trns(1)),
    "one clear grey, 2 bits": raw_png(2, 0, b"\xd0", trns(3)),
    "one clear grey, 4 bits": raw_png(4, 0, b"\x51", trns(5)),
    "one clear grey, 8 bits": raw_png(8, 0, b"\x05\x06", trns(5)),
    "one clear grey, 16 bits": raw_png(16, 0, struct.pack(">2H", 1281, 1282), trns(1281)),
    "webp": encode(half_clear("RGBA"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", CLEAR_THEN_OPAQUE)
def test_a_clear_pixel_becomes_white_and_an_opaque_one_black(kind: str) -> None:
    converted = to_provider(File.of(("mask.png", CLEAR_THEN_OPAQUE[kind])))
    with Image.open(io.BytesIO(converted.read())) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (2, 1))
        assert image.tobytes() == b"\xff\x00"
    assert (converted.label, converted.media_type) == ("mask.png", "image/png")


def test_a_clear_pixel_becomes_black_if_the_provider_edits_black() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 100, 254)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    mask = to_provider(File.of(encode(image, "PNG")), is_black_edited=True)
    with Image.open(io.BytesIO(mask.read())) as converted:
        assert list(converted.tobytes()) == [0, 0, 255]


def test_half_transparent_pixels_become_grey() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((1, 100, 254)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    with Image.open(io.BytesIO(to_provider(File.of(encode(image, "PNG"))).read())) as converted:
        assert list(converted.tobytes()) == [254, 155, 1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_mask_keeps_its_orientation(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    converted = to_provider(File.of(encode(half_clear("RGBA"), kind, lossless=True, exif=exif)))
    with Image.open(io.BytesIO(converted.read())) as image:
        assert (image.size, image.tobytes()) == ((2, 1), b"\xff\x00")
        assert image.getexif()[0x0112] == 6


OPAQUE = {
    "rgb": drawn("PNG"),
    "grey": drawn("PNG", "L"),
    "1 bit": png(96, 96),
    "jpeg": drawn("JPEG"),
    "cmyk jpeg": drawn("JPEG", "CMYK"),
    "webp": drawn("WEBP"),
    "alpha, all opaque": encode(Image.new("RGBA", (9, 9), (1, 2, 3, 255)), "PNG"),
    "grey with alpha, all opaque": encode(Image.new("LA", (9, 9), (1, 255)), "PNG"),
    "palette with alpha, all opaque": raw_png(8, 3, b"\x00\x01", palette(255, 255)),
    "a clear colour that no pixel has": raw_png(8, 2, b"\x01\x02\x03\x01\x02\x04", trns(7, 7, 7)),
    "a clear grey that no pixel has, 16 bits": raw_png(16, 0, struct.pack(">2H", 1281, 1282), trns(1283)),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_an_opaque_mask_is_the_providers_own_and_is_unchanged(kind: str) -> None:
    mask = File.of(OPAQUE[kind])
    assert to_provider(mask) is mask


def test_a_huge_mask_without_alpha_is_not_decoded() -> None:
    mask = File.of(raw_png(8, 2, b"", size=(100_000, 100_000)))
    assert to_provider(mask) is mask


def test_a_huge_mask_with_alpha_is_refused_with_the_limit_before_it_is_decoded() -> None:
    with pytest.raises(ValueError, match=f"30000x30000.*{MAX_PIXELS:,}"):
        to_provider(File.of(raw_png(8, 6, b"", size=(30_000, 30_000))))


@pytest.mark.parametrize("cut", [40, 20, 14])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_damaged_mask_is_a_value_error(kind: str, cut: int) -> None:
    noisy = Image.effect_noise((64, 64), 90).convert("RGBA")
    noisy.putalpha(Image.effect_noise((64, 64), 90))
    data = encode(noisy, kind)
    with pytest.raises(ValueError, match="incomplete or damaged"):
        to_provider(File.of(data[: len(data) // 2 - cut]))


@pytest.mark.parametrize("lacks", [1, 4, 12, 13, 20])
def test_an_incomplete_mask_that_pillow_decodes_is_refused(lacks: int) -> None:
    """Pillow decodes a PNG without its IEND, and one whose last rows are missing."""
    noisy = Image.effect_noise((64, 64), 90).convert("RGBA")
    noisy.putalpha(Image.effect_noise((64, 64), 90))
    with pytest.raises(ValueError, match="incomplete or damaged PNG"):
        to_provider(File.of(encode(noisy, "PNG")[:-lacks]))


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_not_an_image_is_refused_here_or_by_the_fields_own_check(kind: str) -> None:
    mask = File.of(WRONG[kind])
    try:
        assert to_provider(mask) is mask
    except ValueError as error:
        assert "incomplete or damaged" in str(error)  # noqa: PT017 - either is right


PEAK = """
import pathlib, re, sys
from PIL import ImageChops, PngImagePlugin, WebPImagePlugin
from impasto import File
from impasto_plugins.images.masks import bytes_to_decode, to_provider
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
mask = File.of(pathlib.Path(sys.argv[1]).read_bytes())
before = peak()
to_provider(mask)
print(bytes_to_decode(mask), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decoding_a_mask_takes_no_more_memory_than_announced(kind: str, tmp_path: Path) -> None:
    """The gateway counts it against max_bytes_in_flight."""
    grey = Image.linear_gradient("L").resize((2048, 2048))
    Image.merge("RGBA", (grey, grey, grey, grey)).save(tmp_path / "mask", kind, quality=50, method=0)
    process = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "mask")], capture_output=True, text=True, check=True
    )
    announced, peak = map(int, process.stdout.split())
    assert peak <= announced + 4_000_000, "the file itself, and what the interpreter takes beside it"
