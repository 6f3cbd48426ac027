"""Values on both sides of a field's bounds, generated from the field itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal

from impasto.fields import Field

HUGE = 10**5000
_UNBOUNDED = 10_000


def valid_values(field: Field) -> Iterator[object]:
    """Yield valid values up to each limit. Files have none: only the plugin knows what is in them."""
    low, high = field.minimum, field.maximum
    match field.kind:
        case "text" if field.pattern is None or field.role == "prompt":  # a prompt may be any text
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
            step, first = field.step or 1, int(low or 0)
            yield from {int(bound) - (int(bound) - first) % step for bound in (low, high) if bound is not None}
        case "number":
            yield from (bound for bound in (low, high) if bound is not None)
            if low is not None and high is not None:
                yield from (math.nextafter(low, high), math.nextafter(high, low), (low + high) / 2)
        case "boolean":
            yield from (True, False)
        case "color":
            yield from ("#000000", "#ffffff", "#A0b1C2")
        case "texts" if field.item is None or field.item.pattern is None:
            for count in {max(int(low or 0), 1), int(high or 3)}:
                yield [f"word {number}" for number in range(count)]
        case "numbers" | "groups" if field.item is not None:
            items = [*valid_values(field.item)]
            for count in {max(int(low or 0), 1), int(high or 3)} if items else ():
                yield from ([each] * count for each in items)
        case "group":
            yield from field.choices
            yield from _valid_objects(field)
        case _:
            return


def _valid_objects(field: Field) -> Iterator[object]:
    """Yield objects that have each valid value of each nested field, if a value of each required one is known."""
    required = {name: next(valid_values(each), None) for name, each in field.fields.items() if each.required}
    if None not in required.values():
        for name, each in field.fields.items():
            yield from ({**required, name: value} for value in valid_values(each))


_AWKWARD = "\r\n--\t\x1b[1m\x7f\u202e\u200d \"';%n{{7*7}} (word:999)"


def invalid_values(field: Field) -> Iterator[object]:
    """Yield invalid values: of another type, and just beyond the limits."""
    yield object()
    if field.kind == "other":
        return
    yield from ([[1]], {"a": 1})
    match field.kind:
        case "text":
            yield from (5, 0.5, True, b"x", "a\x00b", "a\ud83c")
            if field.maximum is not None:
                yield from ("x" * (int(field.maximum) + 1), "\U0001f30a" * (int(field.maximum) + 1))
            if field.minimum:
                yield from ("", " \t\n")
            if field.pattern is not None:
                yield from (each for each in ("0", "A a", "-", "\x01") if re.fullmatch(field.pattern, each) is None)
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
        case "files" | "texts":
            item = b"x" if field.kind == "files" else "x"
            yield from (item, True, [5], [b"" if field.kind == "files" else ""])
            if field.minimum:
                yield [item] * (int(field.minimum) - 1)
            if field.maximum is not None:
                yield [item] * (int(field.maximum) + 1)
        case "numbers" | "groups" if field.item is not None:
            yield from ("x", True, ["x"], *([each] for each in invalid_values(field.item)))
            if field.maximum is not None and (valid := next(valid_values(field.item), None)) is not None:
                yield [valid] * (int(field.maximum) + 1)
        case "boolean":
            yield from (0, 1, "true", "")
        case "color":
            yield from ("red", "#fff", "#gggggg", "ff8800", "#ff8800 ", "", 7, True)
        case "group":
            yield from ("x", True, {"no_such_field": 1})
            for name, each in field.fields.items():
                yield from ({name: value} for value in invalid_values(each))
        case kind:
            yield from (True, "1", "", math.nan, math.inf, -math.inf, Decimal(1), 1j)
            yield from _beyond(field, whole=kind == "integer")


def _beyond(field: Field, *, whole: bool) -> Iterator[object]:
    if field.step is not None and field.step > 1:
        yield int(field.minimum or 0) + 1
    for bound, way in ((field.minimum, -1), (field.maximum, 1)):
        if bound is not None:
            yield int(bound) + way if whole else math.nextafter(bound, way * math.inf)
            yield from (float(bound), HUGE * way) if whole else (bound + way, HUGE * way)
