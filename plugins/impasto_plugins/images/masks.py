"""OpenAI's masks (transparent pixels are edited) converted to the provider's (white is edited, black kept)."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from impasto import File

from .complete import is_intact
from .limits import FORMATS, damaged
from .pixel_data import DECODING, MOST_PIXELS
from .size import reading, size_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

BYTES_PER_PIXEL = {"image/png": 10, "image/jpeg": 10, "image/webp": 20}
"""Bytes that a pixel needs at most while a mask is decoded: the original, RGBA, its alpha and the inverse."""


def bytes_to_decode(mask: File) -> int:
    """Return the bytes of memory that ``to_provider`` needs for a mask, from its header; 0 if it won't be decoded."""
    if mask.media_type not in FORMATS:
        return 0
    try:
        width, height = size_of(mask)
    except (ValueError, OSError):  # damaged: refused before it is decoded
        return 0
    return width * height * BYTES_PER_PIXEL[mask.media_type] if width * height <= MOST_PIXELS else 0


def to_provider(mask: File) -> File:
    """Return the mask in the provider's form: an 8-bit grey PNG of 255 - alpha, or as it is if wholly opaque.

    Decodes, so run it in a thread. A file that is not an image is returned as it is; the field's own check refuses it.
    Raises ValueError if the mask is too large or damaged.
    """
    if mask.media_type not in FORMATS:
        return mask
    try:
        with DECODING, open_image(mask) as picture:
            if not picture.has_transparency_data:
                return mask
            with reading(mask) as source:
                intact = is_intact(source, mask.size, mask.media_type)  # Pillow fills in what is missing
            width, height = picture.size
            alpha = _alpha(picture, mask) if intact and width * height <= MOST_PIXELS else None
            turned = picture.info.get("exif")  # how a viewer turns it: the picture to edit may be turned so too
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError):
        raise ValueError(f"{mask.label!r} begins as {FORMATS[mask.media_type]} but can't be read as one") from None
    if not intact:
        raise ValueError(damaged(mask))
    if alpha is None:
        raise ValueError(f"is {width}x{height} pixels; a mask with transparency may have {MOST_PIXELS:,}")
    if alpha.getextrema() == (255, 255):
        return mask
    from PIL import ImageChops

    out = io.BytesIO()
    with DECODING:
        ImageChops.invert(alpha).save(out, "PNG", exif=turned)
    return File.of((mask.label, out.getvalue()))


def _alpha(picture: Image, mask: File) -> Image:
    """Return the alpha of every pixel, 0 to 255."""
    key = picture.info.get("transparency")
    if isinstance(key, int | tuple) and picture.mode != "P":
        # One colour stands for transparent, in the file's own bits a channel; Pillow's pixels have 8.
        depth = _depth(mask)
        if picture.mode == "I;16":
            return _all_but(key, picture)
        if isinstance(key, tuple):
            picture.info["transparency"] = tuple(value >> (depth - 8) for value in key)
        elif picture.mode == "L":
            picture.info["transparency"] = key * 255 // (2**depth - 1)
    # A picture that has the channel is not copied for it.
    return (picture if picture.mode in ("RGBA", "LA") else picture.convert("RGBA")).getchannel("A")


def _all_but(key: object, grey: Image) -> Image:
    """Return the alpha of 16-bit grey with one transparent value."""
    from PIL import ImageMath

    alpha: Image = ImageMath.lambda_eval(
        lambda names: names["convert"]((names["grey"] != key) * 255, "L"), grey=grey.convert("I")
    )
    return alpha


def _depth(png: File) -> int:
    """Return the bits per channel in the header of a PNG."""
    with png.open() as reader:
        return reader.read(25)[24]


@contextmanager
def open_image(file: File) -> Iterator[ImageFile]:
    """Open an image and read its header. Nothing is decoded yet."""
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # 40 ms: only where a mask is looked at

    # The format's own reader, not Image.open: that one warns of or refuses large pictures which a model takes.
    readers: dict[str, Callable[..., ImageFile]] = {
        "image/png": PngImagePlugin.PngImageFile,
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
    }
    with file.open() as source, readers[file.media_type](source) as picture:
        yield picture
