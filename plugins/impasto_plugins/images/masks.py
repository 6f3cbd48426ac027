"""OpenAI's masks (transparent pixels are edited) made into the provider's (white is edited, black kept)."""

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
"""Bytes that a pixel takes at most while a mask is decoded: as it was read, as RGBA, its alpha and the inverse.

The decoder of WebP has two more images of its own.
"""


def bytes_to_decode(mask: File) -> int:
    """Bytes of memory that ``to_provider`` takes for a mask, by its header; 0 if it will not be decoded."""
    if mask.media_type not in FORMATS:
        return 0
    try:
        width, height = size_of(mask)
    except (ValueError, OSError):  # damaged: refused before it is decoded
        return 0
    return width * height * BYTES_PER_PIXEL[mask.media_type] if width * height <= MOST_PIXELS else 0


def to_provider(mask: File) -> File:
    """The mask as a provider takes it: where any pixel is not opaque, an 8-bit grey PNG of 255 - alpha; else itself.

    Decodes, so run it in a thread. A file that is no image comes back as it is, for the field's own check to
    refuse. Raises ValueError if the mask is too large, or damaged.
    """
    if mask.media_type not in FORMATS:
        return mask
    try:
        with DECODING, opened(mask) as picture:
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
    """The alpha of every pixel, 0 to 255."""
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
    """The alpha of 16-bit grey of which one value is transparent."""
    from PIL import ImageMath

    alpha: Image = ImageMath.lambda_eval(
        lambda names: names["convert"]((names["grey"] != key) * 255, "L"), grey=grey.convert("I")
    )
    return alpha


def _depth(png: File) -> int:
    """Bits a channel, as the header of a PNG says."""
    with png.open() as reader:
        return reader.read(25)[24]


@contextmanager
def opened(file: File) -> Iterator[ImageFile]:
    """The picture with its header read and nothing decoded yet."""
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # 40 ms: only where a mask is looked at

    # The format's own reader, not Image.open: that one warns of or refuses large pictures which a model takes.
    readers: dict[str, Callable[..., ImageFile]] = {
        "image/png": PngImagePlugin.PngImageFile,
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
    }
    with file.open() as source, readers[file.media_type](source) as picture:
        yield picture
