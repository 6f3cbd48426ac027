"""The records that every manifest format yields."""

from __future__ import annotations

import attrs

LONGEST_LINE = 32 << 20
"""In bytes: two images of the providers' size as data: URIs."""

RowFields = dict[str, object]


@attrs.frozen
class UnreadableLine:
    """A row that could not be read, and the reason."""

    reason: str


Line = tuple[int, RowFields | UnreadableLine, bytes]
"""A row: its line number, its values, and the line itself (empty if the format has no lines)."""
