"""What is to be made, and what came of it."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import attrs
from PIL import Image, PngImagePlugin

from impasto import File, Operation
from impasto_plugins.images.size import size_of

from . import sizes

MOST_PIXELS = 1 << 26
"""Larger uploads, which two operations take, are not decoded: a grey picture of their shape stands for them."""

_FORMATS = ("PNG", "JPEG", "WEBP")


class Unreadable(Exception):
    """A field's picture can't be decoded."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")


@attrs.frozen(kw_only=True)
class Task:
    """One thing to make: checked values (files as bytes), the seed, and the scale of sizes that are chosen here."""

    operation: Operation
    values: Mapping[str, object]
    seed: int
    scale: float = 1.0

    def text(self, name: str) -> str:
        """A text field; empty where it was not given."""
        return str(self.values.get(name) or "")

    def number(self, name: str) -> float:
        """A number; the provider's default where it was not given."""
        value = self.values.get(name)
        if not isinstance(value, int | float):
            value = self.operation.fields[name].default
        return float(value or 0)

    def given(self, name: str) -> bool:
        return self.values.get(name) is not None

    def decode_all(self) -> None:
        """Raises Unreadable where any uploaded picture can't be decoded."""
        for name, value in self.values.items():
            if isinstance(value, bytes) and self.operation.fields[name].role != "audio":
                self.image(name)

    def image(self, name: str) -> Image.Image:
        """An uploaded picture, decoded; RGBA where it has any transparency, else RGB. Raises Unreadable."""
        data = self.values[name]
        assert isinstance(data, bytes)  # noqa: S101 - a file field's value
        try:
            size = size_of(File.of(data))
            if size[0] * size[1] > MOST_PIXELS:
                return Image.new("RGB", sizes.by_area(size, 1024), "grey")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                return opened.convert("RGBA" if opened.has_transparency_data else "RGB")
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise Unreadable(name, "can't be decoded") from error


@attrs.frozen
class Made:
    """What was made: a picture, or what ``sounds`` and ``models3d`` make."""

    data: bytes
    media_type: str


def encode(image: Image.Image, format: str, mark: str) -> Made:
    """The picture in ``png``, ``jpeg`` or ``webp``. ``mark`` goes into its metadata: equal pixels, other bytes,
    as with the vendor's signed provenance."""
    target = io.BytesIO()
    match format:
        case "jpeg":
            image.convert("RGB").save(target, "JPEG", quality=90, comment=mark.encode())
        case "webp":
            image.save(target, "WEBP", quality=90, method=2, xmp=mark.encode())
        case _:
            info = PngImagePlugin.PngInfo()
            info.add_text("request", mark)
            image.save(target, "PNG", compress_level=1, pnginfo=info)
    return Made(target.getvalue(), f"image/{format}")
