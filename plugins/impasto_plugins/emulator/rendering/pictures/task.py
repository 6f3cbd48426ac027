"""A rendering task, and its output."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import attrs
from PIL import Image, PngImagePlugin

from impasto import File, Operation
from impasto_plugins.images.size import size_of

from . import sizes

MAX_PIXELS = 1 << 26
"""Pixels of the largest upload that is decoded; two operations accept larger ones, which become a grey picture."""

_FORMATS = ("PNG", "JPEG", "WEBP")


class UnreadableImage(Exception):
    """A field's image can't be decoded."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


@attrs.frozen(kw_only=True)
class RenderTask:
    """One rendering: checked values (files as bytes), the seed, and the scale of sizes that are chosen here."""

    operation: Operation
    values: Mapping[str, object]
    seed: int
    scale: float = 1.0

    def text(self, name: str) -> str:
        """Return a text field; empty if it is absent."""
        return str(self.values.get(name) or "")

    def number(self, name: str) -> float:
        """Return a number; the provider's default if it is absent."""
        value = self.values.get(name)
        if not isinstance(value, int | float):
            value = self.operation.fields[name].default
        return float(value or 0)

    def has(self, name: str) -> bool:
        """Return True if the field is present."""
        return self.values.get(name) is not None

    def decode_all(self) -> None:
        """Raise UnreadableImage if any uploaded image can't be decoded."""
        for name, value in self.values.items():
            if isinstance(value, bytes) and self.operation.fields[name].role != "audio":
                self.image(name)

    def image(self, name: str) -> Image.Image:
        """Return an uploaded picture, decoded: RGBA if it has any transparency, otherwise RGB.

        Raises UnreadableImage.
        """
        data = self.values[name]
        assert isinstance(data, bytes)  # noqa: S101 - a file field's value
        try:
            size = size_of(File.of(data))
            if size[0] * size[1] > MAX_PIXELS:
                return Image.new("RGB", sizes.size_by_area(size, 1024), "grey")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as source:
                return source.convert("RGBA" if source.has_transparency_data else "RGB")
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise UnreadableImage(name, "not a valid image") from error


@attrs.frozen
class Generated:
    """The output: an image, audio or a 3D model."""

    data: bytes
    media_type: str


def encode(image: Image.Image, format: str, mark: str) -> Generated:
    """Return the picture in ``png``, ``jpeg`` or ``webp``.

    ``mark`` goes into its metadata: equal pixels but other bytes, as with the vendor's signed provenance.
    """
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
    return Generated(target.getvalue(), f"image/{format}")
