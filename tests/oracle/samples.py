"""Derive requests from the contract: values at each bound, values just outside, and the rules between fields.

A request is a mapping of field names to values; a file is its bytes. Nothing here imports impasto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import attrs

from tests.images import WRONG, drawn, png
from tests.media import mp3, wav
from tests.oracle.contract import EVERY, FILE, Contract, Field, Limits

STEP = 1e-6
"""How far outside a bound a number with fractions is tried."""

Values = Mapping[str, Any]


@attrs.frozen
class Rejection:
    """A request that must be refused, and the fields that the refusal names."""

    values: Values
    names: tuple[str, ...]
    is_fraction: bool = False


def sample(name: str, field: Field) -> object:
    """Return a value in the midst of what the field takes; fields of different names have different ones."""
    mark = sum(map(ord, name)) % 16
    match field.kind:
        case "image":
            width, height = sample_size(field.limits)
            return png(width + mark, height + mark)
        case "audio":
            return wav(10)
        case "text":
            return f"a lighthouse, {name}"
        case "choice":
            return field.choices[mark % len(field.choices)]
    low, high = _bounds(field)
    value = low + (high - low) * (0.2 + mark / 25)
    return round(value) if field.kind == "integer" or "fractions" in field.open else round(value, 3)


def foreign_fields(contract: Contract) -> frozenset[tuple[str, Any]]:
    """Return fields that this operation lacks, with a value that each of the others takes."""
    fields = ((name, field) for each in EVERY for name, field in each.fields.items())
    return frozenset((n, sample(n, field)) for n, field in fields if n not in {*contract.fields, *contract.open})


def fill(contract: Contract, values: Values) -> Values:
    """Put files in the place of ``"file"``."""
    return {name: sample(name, contract.fields[name]) if value == FILE else value for name, value in values.items()}


def minimal_request(contract: Contract) -> Values:
    """Return the least request."""
    required = {name: sample(name, field) for name, field in contract.fields.items() if field.required}
    return {**required, **contract.least}


def full_requests(contract: Contract) -> Iterator[Values]:
    """Yield requests with as many fields as go together: one, or one for each mode of an operation that has modes."""
    modes = [(name, value) for name, field in contract.fields.items() for value in field.when]
    beside_a_mode = {name for name, field in contract.fields.items() if field.companions.keys() & dict(modes).keys()}
    yield _whole(contract, minimal_request(contract), beside_a_mode | dict(modes).keys())
    for name, value in modes:
        shut_out = {each for case in contract.cases if case.request.get(name) == value for each in case.rejects}
        yield _whole(contract, request(contract, name, value), shut_out)


def _whole(contract: Contract, base: Values, without: set[str]) -> Values:
    whole = dict(base)
    for name, field in contract.fields.items():
        if name not in without:
            whole = {name: sample(name, field), **fill(contract, field.companions), **whole}
    return whole


def valid_requests(contract: Contract) -> Iterator[Values]:
    """Yield requests that together hold each field at each of its bounds, and every choice.

    Fields that depend on no other are changed at once: as many requests as the longest list of choices is long.
    """
    minimum = minimal_request(contract)
    yield minimum
    values = {name: list(inside(field)) for name, field in contract.fields.items()}
    free = {name for name, field in contract.fields.items() if not (field.is_file or field.companions or field.when)}
    for index in range(max((len(values[name]) for name in free), default=0)):
        yield {**minimum, **{name: values[name][index] for name in sorted(free) if index < len(values[name])}}
    for name in contract.fields.keys() - free:
        for value in values[name]:
            yield request(contract, name, value)


def request(contract: Contract, name: str, value: object) -> Values:
    """Return the least request in which a field has this value."""
    field = contract.fields[name]
    beside = {**field.companions, **(field.when.get(value, {}) if isinstance(value, str) else {})}
    return {**minimal_request(contract), **fill(contract, beside), name: value}


def invalid_requests(contract: Contract) -> Iterator[Rejection]:
    """Yield requests with one field just outside one of its bounds, or with one that is missing."""
    for name, field in contract.fields.items():
        for value in outside(field, _others(contract, name)):
            is_fraction = field.kind == "integer" and isinstance(value, float)
            yield Rejection(request(contract, name, value), (name,), is_fraction)
        if field.required:
            without = {other: value for other, value in minimal_request(contract).items() if other != name}
            yield Rejection(without, (name,))


def rules(contract: Contract) -> Iterator[tuple[str, Values, tuple[str, ...], Values, bool]]:
    """Yield the rules between fields: why, request, refused fields, implied fields, if the vendor's answer is known."""
    for case in contract.cases:
        values = fill(contract, {name: value for name, value in case.request.items() if value is not False})
        base = {name: value for name, value in minimal_request(contract).items() if case.request.get(name) is not False}
        yield case.why, {**base, **values}, case.rejects, case.implies, "emulator" not in case.open


def inside(field: Field) -> Iterator[object]:
    """Yield values that are taken, up to each bound."""
    match field.kind:
        case "text":
            yield "(a lighthouse:1.2), \N{WATER WAVE}"
            if field.most is not None:
                yield "x" * int(field.most)
            if not field.least and "empty" not in field.open:
                yield ""
            if field.least:
                yield "x" * int(field.least)
        case "choice":
            yield from field.choices
        case "integer":
            yield from _bounds(field)
        case "number":
            low, high = _bounds(field)
            yield from (low, high)
            if "fractions" not in field.open:
                yield round(low + (high - low) * 0.37, 4)
        case "audio":
            yield from (sound for seconds in _bounds(field) for sound in (wav(seconds), mp3(_whole_frames(seconds))))
        case "image":
            if "sizes" not in field.open:
                yield from (png(*size) for size in sizes(field.limits)[0])
            yield from _drawn(sample_size(field.limits))


def outside(field: Field, others: frozenset[str] = frozenset()) -> Iterator[object]:
    """Yield values that are refused, one step beyond each bound."""
    match field.kind:
        case "text":
            if field.most is not None:
                yield "x" * (int(field.most) + 1)
            if field.least:
                yield ""
        case "choice":
            yield from sorted(others - {*field.choices, *field.open})
            yield "none-such"
        case "integer":
            low, high = _bounds(field)
            yield from (low - 1, high + 1, low + 0.5)
        case "number":
            low, high = _bounds(field)
            step = 1 if "fractions" in field.open else STEP
            yield from (low - step, high + step)
        case "audio":
            low, high = _bounds(field)
            yield from (wav(low - 0.01), wav(high + 0.01), mp3(low - 0.2), mp3(high + 0.5), WRONG["html"])
        case "image":
            yield from (png(*size) for size in sizes(field.limits)[1])
            if "formats" not in field.open:
                yield from (WRONG["gif"], WRONG["tiff"])


def _bounds(field: Field) -> tuple[Any, Any]:
    assert field.least is not None
    assert field.most is not None
    return field.least, field.most


def _whole_frames(seconds: float) -> float:
    """Seconds of an MP3 that are within either bound, as its frames are not a whole second's."""
    return seconds + 0.2 if seconds < 60 else seconds - 0.2


def _others(contract: Contract, name: str) -> frozenset[str]:
    """The choices that other operations of the vendor have for the field of this name."""
    fields = (each.fields[name] for each in EVERY if name in each.fields and each.makes == contract.makes)
    return frozenset(choice for field in fields for choice in field.choices)


def sample_size(limits: Limits) -> tuple[int, int]:
    """Return a size that is well within the limits."""
    return next(size for size in ((128, 96), (640, 700)) if limits.fit(*size))


def _drawn(size: tuple[int, int]) -> Iterator[bytes]:
    yield drawn("JPEG", "RGB", size)
    yield drawn("WEBP", "RGB", size, lossless=True)


@cache
def sizes(limits: Limits) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Return sizes up to each bound, and one step beyond each, lying and standing.

    A size beyond one bound is within all others, so that nothing else is why it is refused. A bound that the others
    keep out of reach (such as the sides of an image whose pixels are limited) has no size.
    """
    low, ratio = limits.min_side, limits.aspect
    at = {sample_size(limits)} if low > 1 else {sample_size(limits), (1, 1), (3, 1000)}
    beyond: set[tuple[int, int]] = set()

    def bound(name: str, within: tuple[int, int], outside: tuple[int, int]) -> None:
        without = attrs.evolve(limits, **{name: getattr(Limits(), name)})
        at.update({within} if limits.fit(*within) else ())
        beyond.update({outside} if without.fit(*outside) and not limits.fit(*outside) else ())

    if low > 1:
        bound("min_side", (low, low), (low - 1, max(low, math.ceil(limits.min_pixels / (low - 1)))))
    if (high := limits.max_side) is not None:
        within, outside = (max(low, math.ceil(side / (ratio or math.inf))) for side in (high, high + 1))
        bound("max_side", (high, within), (high + 1, outside))
    if (most := limits.max_pixels) is not None:
        nearly = _largest_sides(limits, most)
        above = ((width, height + 1) for width, height in nearly if width * (height + 1) > most)
        bound("max_pixels", max(nearly, key=math.prod), min(above, key=math.prod))
    if ratio is not None:
        bound("aspect", (int(400 * ratio), 400), (int(400 * ratio) + 1, 400))
    else:  # as wide as the other limits let it be
        at.add((min(4000, limits.max_side or 4000, (limits.max_pixels or 4000 * low) // low), low))
    return _both_ways(at), _both_ways(beyond)


def _both_ways(sizes: set[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted({size for width, height in sizes for size in ((width, height), (height, width))}))


def _largest_sides(limits: Limits, most: int) -> list[tuple[int, int]]:
    """Sizes of as many pixels as there may be, nearly square so that no other limit is met."""
    root = math.isqrt(most)
    sides = ((width, most // width) for width in range(max(root - root // 4, 1), root + 1))
    return [size for size in sides if limits.fit(*size)]
