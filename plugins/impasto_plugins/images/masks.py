"""Conversion of OpenAI's masks (transparent pixels are edited) to the provider's (white is edited, black is not)."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from impasto import File

from .completeness import is_intact
from .limits import FORMATS, damaged
from .pixel_data import DECODING, MAX_PIXELS
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
    except (ValueError, OSError):  # damaged: ``to_provider`` refuses it before it decodes anything
        return 0
    return width * height * BYTES_PER_PIXEL[mask.media_type] if width * height <= MAX_PIXELS else 0


def to_provider(mask: File, *, is_black_edited: bool = False) -> File:
    """Return the mask in the provider's form: an 8-bit grey PNG of 255 - alpha, or as it is if wholly opaque.

    ``is_black_edited``: a PNG of pure black, for all that is more clear than opaque, and of white. Decodes, so run it
    in a thread. A file that is not an image is returned as it is; the field's own check refuses it. Raises ValueError
    if the mask is too large or damaged.
    """
    if mask.media_type not in FORMATS:
        return mask
    try:
        with DECODING, open_image(mask) as image:
            if not image.has_transparency_data:
                return mask
            with reading(mask) as source:
                intact = is_intact(source, mask.size, mask.media_type)  # Pillow fills in what is missing
            width, height = image.size
            alpha = _alpha(image, mask) if intact and width * height <= MAX_PIXELS else None
            exif = image.info.get("exif")  # has the orientation: the image to edit may be turned in the same way
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError):
        raise ValueError(damaged(mask)) from None
    if not intact:
        raise ValueError(damaged(mask))
    if alpha is None:
        raise ValueError(f"is {width}x{height} pixels; a mask with transparency may have at most {MAX_PIXELS:,}")
    if alpha.getextrema() == (255, 255):
        return mask
    from PIL import ImageChops

    out = io.BytesIO()
    with DECODING:
        grey = alpha.point([0] * 128 + [255] * 128) if is_black_edited else ImageChops.invert(alpha)
        grey.save(out, "PNG", exif=exif)
    return File.of((mask.label, out.getvalue()))


def _alpha(image: Image, mask: File) -> Image:
    """Return the alpha of every pixel, 0 to 255."""
    key = image.info.get("transparency")
    if isinstance(key, int | tuple) and image.mode != "P":
        # One colour means transparent, given in the file's own bits per channel; Pillow's pixels have 8.
        depth = _depth(mask)
        if image.mode == "I;16":
            return _alpha_of_grey_16(image, key)
        if isinstance(key, tuple):
            image.info["transparency"] = tuple(value >> (depth - 8) for value in key)
        elif image.mode == "L":
            image.info["transparency"] = key * 255 // (2**depth - 1)
    # An image that has the channel is not copied for it.
    return (image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).getchannel("A")


def _alpha_of_grey_16(grey: Image, key: object) -> Image:
    """Return the alpha of a 16-bit grey image in which one value is transparent."""
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
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # 40 ms: only if there is a mask

    # The format's own reader, not Image.open, which warns about or refuses large images that a model accepts.
    readers: dict[str, Callable[..., ImageFile]] = {
        "image/png": PngImagePlugin.PngImageFile,
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
    }
    with file.open() as source, readers[file.media_type](source) as image:
        yield image
