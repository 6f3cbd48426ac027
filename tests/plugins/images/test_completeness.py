"""Completeness of an image, also if a smaller one is inside it."""

from __future__ import annotations

import pytest

from impasto import File
from impasto_plugins.images import completeness
from tests.images import animated, chunk, drawn, png

PNG = png(64, 64)
JPEG = drawn("JPEG")
WEBP = drawn("WEBP")
COMPLETE = {
    "png": (PNG, "image/png"),
    "apng": (animated("PNG"), "image/png"),
    "jpeg": (JPEG, "image/jpeg"),
    "progressive": (drawn("JPEG", "RGB", (96, 96), progressive=True), "image/jpeg"),
    "cmyk": (drawn("JPEG", "CMYK"), "image/jpeg"),
    "webp": (WEBP, "image/webp"),
    "animated webp": (animated("WEBP"), "image/webp"),
}


def is_complete(data: bytes, media_type: str) -> bool:
    """Check bytes, and a file with them: both have the same result."""
    result = completeness.is_complete(data, media_type)
    assert completeness.is_complete(File.of(data), media_type) is result
    return result


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_image_is_complete(name: str) -> None:
    data, media_type = COMPLETE[name]
    assert is_complete(data, media_type)
    assert is_complete(data + b"after it", media_type)


@pytest.mark.parametrize("name", COMPLETE)
def test_an_image_that_is_cut_anywhere_is_not_complete(name: str) -> None:
    data, media_type = COMPLETE[name]
    for size in range(0, len(data) - 2, max(1, len(data) // 200)):
        assert not is_complete(data[:size], media_type), size
    assert not is_complete(data[:-2], media_type)


def test_the_end_of_a_preview_is_not_that_of_the_image() -> None:
    """Provenance data have a complete small image: cut after that, the large one is not there."""
    preview = chunk(b"caBX", PNG)
    whole = PNG[:33] + preview + PNG[33:]
    assert is_complete(whole, "image/png")
    assert not is_complete(whole[: 33 + len(preview) + 10], "image/png")
    segment = b"\xff\xeb" + (len(JPEG) + 2).to_bytes(2, "big") + JPEG
    whole = JPEG[:2] + segment + JPEG[2:]
    assert is_complete(whole, "image/jpeg")
    assert not is_complete(whole[: 2 + len(segment) + 20], "image/jpeg")


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    assert is_complete(JPEG[:2] + b"\xff\xff" + JPEG[2:], "image/jpeg")


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"RIFF", bytes(40), b"\xff\xd8\xff\xe0\x00\x00" * 9]
)
def test_data_that_are_not_an_image_are_not_complete(data: bytes) -> None:
    for media_type in ("image/png", "image/jpeg", "text/html"):
        assert not is_complete(data, media_type)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
def test_the_end_of_a_jpeg_is_found_at_any_place(size: int) -> None:
    """It is searched in windows from the end, and may cross two of them."""
    for rest in (size - 1, size, size + 1):
        assert is_complete(JPEG + bytes(rest), "image/jpeg")
        assert not is_complete(JPEG[:-2] + bytes(rest), "image/jpeg")
