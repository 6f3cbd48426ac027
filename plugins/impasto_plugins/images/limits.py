"""Limits of an image before it is sent: format by content, sides, pixels, aspect ratio, size."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from impasto import File

from .completeness import is_intact
from .size import reading, size_in

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WebP"}


def damaged(file: File) -> str:
    """Return the message for an image whose header can't be read, or that fails ``is_intact``."""
    return f"{file.label!r} is an incomplete or damaged {FORMATS[file.media_type]} file; give the whole file"


@attrs.frozen(kw_only=True)
class Limits:
    """An image's limits: sides and pixels in pixels, ``max_bytes`` in bytes.

    ``aspect`` limits the longer side divided by the shorter. Called with a file, it yields the file's problems.
    """

    min_side: int | None = None
    max_side: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    aspect: float | None = None
    max_bytes: int | None = None

    def __call__(self, file: File) -> Iterator[str]:
        """Yield the problems of a file. The bytes come first: a file that is too large is not opened."""
        if file.media_type not in FORMATS:
            yield f"{file.label!r} is not a PNG, JPEG or WebP image; give {self}"
            return
        if self.max_bytes is not None and file.size > self.max_bytes:
            yield f"has {file.size:,} bytes; a request may have at most {self.max_bytes:,}"
            return
        try:
            with reading(file) as source:
                width, height = size_in(source, file.media_type)
                problem = self._describe_excess(width, height)
                intact = bool(problem) or is_intact(source, file.size, file.media_type)
        except (OSError, ValueError):
            yield damaged(file)
            return
        if problem:
            yield f"is {width}x{height} pixels: {problem}"
        elif not intact:
            yield damaged(file)

    def _describe_excess(self, width: int, height: int) -> str:
        """Return the limits that a size exceeds, all of them; an empty text if it exceeds none."""
        short, long, pixels = min(width, height), max(width, height), width * height
        problems = []
        if self.min_side is not None and short < self.min_side:
            problems.append(f"each side must be at least {self.min_side}")
        if self.max_side is not None and long > self.max_side:
            problems.append(f"each side must be at most {self.max_side}")
        if self.min_pixels is not None and pixels < self.min_pixels:
            problems.append(f"width x height must be at least {self.min_pixels:,}")
        if self.max_pixels is not None and pixels > self.max_pixels:
            problems.append(f"width x height must be at most {self.max_pixels:,}")
        if self.aspect is not None and long > self.aspect * short:
            problems.append(f"the aspect ratio must be from 1:{self.aspect:g} to {self.aspect:g}:1")
        return ", ".join(problems)

    def __str__(self) -> str:
        parts = ["PNG, JPEG or WebP"]
        if self.min_side is not None or self.max_side is not None:
            upper = f"..{self.max_side}" if self.max_side is not None else " or more"
            parts.append(f"sides {self.min_side or 1}{upper}")
        if self.min_pixels is not None or self.max_pixels is not None:
            upper = f"..{self.max_pixels:,}" if self.max_pixels is not None else " or more"
            parts.append(f"{self.min_pixels or 1:,}{upper} pixels")
        if self.aspect is not None:
            parts.append(f"aspect ratio 1:{self.aspect:g} to {self.aspect:g}:1")
        return ", ".join(parts)
