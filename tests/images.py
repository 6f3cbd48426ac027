"""Images for tests: valid ones, and ones that are wrong in one way, made as cheaply as possible."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from random import Random

from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def png(width: int, height: int) -> bytes:
    """A whole PNG of 1 bit a pixel, black: 16,384 pixels square are 33 KB."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def padded(size: int, width: int = 64, height: int = 64) -> bytes:
    """A PNG of so many bytes: a private chunk takes up the rest."""
    whole = png(width, height)
    filling = size - len(whole) - 12
    assert filling >= 0, f"an image of {width}x{height} has {len(whole)} bytes already"
    return whole[:-12] + chunk(b"teSt", bytes(filling)) + whole[-12:]


@cache
def drawn(kind: str, mode: str = "RGB", size: tuple[int, int] = (96, 96), **options: object) -> bytes:
    """An image that Pillow writes: ``drawn("JPEG", "CMYK")``."""
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


@cache
def animated(kind: str) -> bytes:
    """Two frames: an APNG or an animated WebP."""
    out = io.BytesIO()
    frames = [Image.new("RGB", (96, 96), colour) for colour in ("red", "blue")]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def flat_jpeg(width: int, height: int) -> bytes:
    """A whole JPEG, the same with every encoder: grey, two bits a block."""

    def segment(marker: int, content: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content

    code = bytes((1, *[0] * 15, 0))  # one code of one bit, for the only symbol: no difference, or the end of a block
    tables = segment(0xDB, bytes((0, *[1] * 64))) + segment(0xC4, b"\x00" + code + b"\x10" + code)
    frame = segment(0xC0, b"\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00")
    bits = 2 * -(-width // 8) * -(-height // 8)
    data = bytes(bits // 8) + (bytes((0xFF >> bits % 8,)) if bits % 8 else b"")
    return b"\xff\xd8" + tables + frame + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + data + b"\xff\xd9"


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP of 30 bytes, of which only the header is sound."""
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\x16\x00\x00\x00WEBPVP8L\x0a\x00\x00\x00\x2f" + bits.to_bytes(4, "little") + bytes(5)


def noisy(side: int) -> Image.Image:
    """Noise in colour, the same each time; Pillow has no room to write finer noise as a JPEG of the best quality."""
    return Image.frombytes("RGB", (side, side), bytes(96 + each // 4 for each in Random(7).randbytes(3 * side * side)))


@cache
def damaged() -> dict[str, bytes]:
    """Images whose header, checksums and end are right, and whose pixel data are not all there."""
    noise = noisy(160)
    whole = {}
    for name, kind, options in (
        ("baseline", "JPEG", {}),
        ("progressive", "JPEG", {"progressive": True}),
        ("webp", "WEBP", {"quality": 90}),
    ):
        out = io.BytesIO()
        noise.save(out, kind, **options)
        whole[name] = out.getvalue()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 8, 0, 0, 0, 0))
    half = chunk(b"IDAT", zlib.compress(bytes(97 * 48))) + chunk(b"IEND", b"")
    return {
        "png of 48 rows of 96": b"\x89PNG\r\n\x1a\n" + header + half,
        **{f"{name} jpeg, cut and closed": _half(whole[name]) + b"\xff\xd9" for name in ("baseline", "progressive")},
        **{f"{name}, half zeros": _half(data).ljust(len(data) - 2, b"\0") + data[-2:] for name, data in whole.items()},
    }


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


WRONG = {
    "gif": b"GIF89a" + bytes(64),
    "psd": b"8BPS\x00\x01" + bytes(64),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"/>',
    "html": b"<!doctype html><title>Not found</title>",
    "pdf": b"%PDF-1.7\n" + bytes(64),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "fits": b"SIMPLE  =                    T",
    "tiff": b"II*\x00" + bytes(64),
    "bmp": b"BM" + bytes(64),
    "text": b"lighthouse",
    "zeros": bytes(1000),
    "png signature alone": b"\x89PNG\r\n\x1a\n",
    "png without a header": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "png header, wrong checksum": png(96, 96)[:29] + b"\x00\x00\x00\x00" + png(96, 96)[33:],
    "jpeg start alone": b"\xff\xd8\xff",
    "jpeg without a frame": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9",
    "webp start alone": b"RIFF\x08\x00\x00\x00WEBP",
    "webp of an unknown kind": b"RIFF\x20\x00\x00\x00WEBPVP9 " + bytes(24),
    "wav": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24),
    "webp not in a riff": b"JUNK\x08\x00\x00\x00WEBPVP8 " + bytes(24),
}
"""Contents that are not a usable PNG, JPEG or WebP, by their name."""
