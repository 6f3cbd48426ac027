"""Values on both sides of a field's bounds, generated from the field itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal

from impasto.fields import Field

HUGE = 10**5000
_UNBOUNDED = 10_000


def valid_values(field: Field) -> Iterator[object]:
    """Yield valid values up to each limit. Files have none: only the plugin knows what is in them."""
    low, high = field.minimum, field.maximum
    match field.kind:
        case "text":
            most = _UNBOUNDED if high is None else int(high)
            yield from ("x" * most, "\U0001f30a" * most, "e\u0301" * (most // 2)) if most > 1 else ("x",)
            if most >= len(_AWKWARD):
                yield _AWKWARD
            yield "x" * max(int(low or 0), 1)
            if not low:
                yield ""
        case "choice":
            yield from field.choices
        case "integer":
            yield from {int(bound) for bound in (low, high) if bound is not None}
        case "number":
            yield from (bound for bound in (low, high) if bound is not None)
            if low is not None and high is not None:
                yield from (math.nextafter(low, high), math.nextafter(high, low), (low + high) / 2)
        case _:
            return


_AWKWARD = "\r\n--\t\x1b[1m\x7f\u202e\u200d \"';%n{{7*7}} (word:999)"


def invalid_values(field: Field) -> Iterator[object]:
    """Yield invalid values: of another type, and just beyond the limits."""
    yield object()
    if field.kind == "other":
        return
    yield from ([1], {"a": 1})
    match field.kind:
        case "text":
            yield from (5, 0.5, True, b"x", "a\x00b", "a\ud83c")
            if field.maximum is not None:
                yield from ("x" * (int(field.maximum) + 1), "\U0001f30a" * (int(field.maximum) + 1))
            if field.minimum:
                yield from ("", " \t\n")
        case "choice":
            first = field.choices[0]
            yield from (first.upper() + "X", f"{first} ", "", 7, True, b"x")
        case "file":
            yield from (
                b"",
                5,
                True,
                "https://example.com/picture.png",
                "file:///etc/hostname",
                "data:image/png;base64,%",
            )
        case kind:
            yield from (True, "1", "", math.nan, math.inf, -math.inf, Decimal(1), 1j)
            yield from _beyond(field, whole=kind == "integer")


def _beyond(field: Field, *, whole: bool) -> Iterator[object]:
    for bound, way in ((field.minimum, -1), (field.maximum, 1)):
        if bound is not None:
            yield int(bound) + way if whole else math.nextafter(bound, way * math.inf)
            yield from (float(bound), HUGE * way) if whole else (bound + way, HUGE * way)
