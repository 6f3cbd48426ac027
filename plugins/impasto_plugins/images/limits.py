"""Limits of an image before it is sent: format by content, sides, pixels, aspect ratio, size."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from impasto import File

from .completeness import is_intact
from .size import reading, size_in

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WebP"}


_ALWAYS_FOUND = frozenset({*FORMATS, "image/gif", "image/avif"})
"""Types that a file's first bytes always show."""


def damaged(file: File) -> str:
    """Return the message for an image whose header can't be read, or that fails ``is_intact``."""
    return f"{file.label!r} is an incomplete or damaged {FORMATS[file.media_type]} file; give the whole file"


@attrs.frozen(kw_only=True)
class Limits:
    """An image's limits: sides and pixels in pixels, ``max_bytes`` in bytes.

    ``aspect`` limits the longer side divided by the shorter. ``media_types`` are further types, such as ``image/gif``
    or ``application/pdf``: of such a file only ``max_bytes`` is checked. Called with a file, it yields its problems.
    """

    min_side: int | None = None
    max_side: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    aspect: float | None = None
    max_bytes: int | None = None
    media_types: tuple[str, ...] = ()

    def __call__(self, file: File) -> Iterator[str]:
        """Yield the problems of a file. The bytes come first: a file that is too large is not opened."""
        if file.media_type not in FORMATS and not self._takes(file.media_type):
            what = "of another type" if self.media_types else "not a PNG, JPEG or WebP image"
            yield f"{file.label!r} is {what}; give {self}"
            return
        if self.max_bytes is not None and file.size > self.max_bytes:
            yield f"has {file.size:,} bytes; a request may have at most {self.max_bytes:,}"
            return
        if file.media_type not in FORMATS:
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

    def _takes(self, media_type: str) -> bool:
        """Return True for a further type, and for content of unknown type if it may be one of them."""
        if media_type == "application/octet-stream":
            return any(each not in _ALWAYS_FOUND for each in self.media_types)
        return media_type in self.media_types

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
        parts = [", ".join(("PNG", "JPEG", "WebP", *self.media_types)) if self.media_types else "PNG, JPEG or WebP"]
        if self.min_side is not None or self.max_side is not None:
            upper = f"..{self.max_side}" if self.max_side is not None else " or more"
            parts.append(f"sides {self.min_side or 1}{upper}")
        if self.min_pixels is not None or self.max_pixels is not None:
            upper = f"..{self.max_pixels:,}" if self.max_pixels is not None else " or more"
            parts.append(f"{self.min_pixels or 1:,}{upper} pixels")
        if self.aspect is not None:
            parts.append(f"aspect ratio 1:{self.aspect:g} to {self.aspect:g}:1")
        return ", ".join(parts)


COMPLETE_IMAGE = Limits()
"""The check of an image or a mask whose field has none of its own."""
