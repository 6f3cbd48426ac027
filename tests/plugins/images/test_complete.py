"""Whether a picture is all there, also where a smaller one stands inside it."""

from __future__ import annotations

import pytest

from impasto import File
from impasto_plugins.images import complete
from tests.pictures import animated, chunk, drawn, png

PNG = png(64, 64)
JPEG = drawn("JPEG")
WEBP = drawn("WEBP")
WHOLE = {
    "png": (PNG, "image/png"),
    "apng": (animated("PNG"), "image/png"),
    "jpeg": (JPEG, "image/jpeg"),
    "progressive": (drawn("JPEG", "RGB", (96, 96), progressive=True), "image/jpeg"),
    "cmyk": (drawn("JPEG", "CMYK"), "image/jpeg"),
    "webp": (WEBP, "image/webp"),
    "animated webp": (animated("WEBP"), "image/webp"),
}


def is_complete(data: bytes, media_type: str) -> bool:
    """What is said of the bytes, which is what is said of them in a file."""
    said = complete.is_complete(data, media_type)
    assert complete.is_complete(File.of(data), media_type) is said
    return said


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_picture(name: str) -> None:
    data, media_type = WHOLE[name]
    assert is_complete(data, media_type)
    assert is_complete(data + b"after it", media_type)


@pytest.mark.parametrize("name", WHOLE)
def test_a_picture_cut_anywhere(name: str) -> None:
    data, media_type = WHOLE[name]
    for size in range(0, len(data) - 2, max(1, len(data) // 200)):
        assert not is_complete(data[:size], media_type), size
    assert not is_complete(data[:-2], media_type)


def test_the_end_of_a_preview_is_not_the_pictures() -> None:
    """Provenance data hold a whole small picture: cut just behind that, the large one is not there."""
    preview = chunk(b"caBX", PNG)
    whole = PNG[:33] + preview + PNG[33:]
    assert is_complete(whole, "image/png")
    assert not is_complete(whole[: 33 + len(preview) + 10], "image/png")
    segment = b"\xff\xeb" + (len(JPEG) + 2).to_bytes(2, "big") + JPEG
    whole = JPEG[:2] + segment + JPEG[2:]
    assert is_complete(whole, "image/jpeg")
    assert not is_complete(whole[: 2 + len(segment) + 20], "image/jpeg")


def test_fill_bytes_before_a_marker() -> None:
    assert is_complete(JPEG[:2] + b"\xff\xff" + JPEG[2:], "image/jpeg")


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"RIFF", bytes(40), b"\xff\xd8\xff\xe0\x00\x00" * 9]
)
def test_what_is_no_picture_is_no_whole_one(data: bytes) -> None:
    for media_type in ("image/png", "image/jpeg", "text/html"):
        assert not is_complete(data, media_type)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
def test_the_end_of_a_jpeg_is_found_wherever_it_stands(size: int) -> None:
    """It is looked for in windows from the end, and may stand across two of them."""
    for behind in (size - 1, size, size + 1):
        assert is_complete(JPEG + bytes(behind), "image/jpeg")
        assert not is_complete(JPEG[:-2] + bytes(behind), "image/jpeg")
