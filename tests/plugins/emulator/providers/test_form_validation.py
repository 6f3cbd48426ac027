"""The check of a raw form, on both sides of each bound; the bounds themselves are the parameter classes'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from impasto import Operation
from impasto.fields import Field
from impasto.registry import Registry
from impasto_plugins.emulator.providers.form_validation import ValidationFailed, validate_form
from impasto_plugins.emulator.providers.stability import load_stability_operations
from impasto_plugins.emulator.server.multipart import Form, FormPart
from impasto_plugins.transports.form import decimal_text
from tests.distributions import install
from tests.images import png

from .test_operations import GIVEN

ENDPOINTS = load_stability_operations()


def part(value: object) -> FormPart:
    if isinstance(value, bytes):
        return FormPart(value, "picture.png", "image/png")
    return FormPart((value if isinstance(value, str) else decimal_text(value)).encode(), None, "")  # type: ignore[arg-type]  # a number


def complaints(variants: Sequence[Operation], form: Form) -> list[str]:
    """The entries with which a form is refused; none where it passes."""
    try:
        validate_form(variants, form)
    except ValidationFailed as wrong:
        return wrong.entries
    return []


def form_of(operation: Operation, **more: object) -> Form:
    return {name: part(value) for name, value in {**operation.constants, **GIVEN[operation.target], **more}.items()}


VARIANTS = {(each.target, each.params): each for variants in ENDPOINTS.values() for each in reversed(variants)}
"""One operation for each set of fields on a path."""

FIELDS = [pytest.param(each, name, id=f"{each.id}-{name}") for each in VARIANTS.values() for name in each.fields]


def _values(field: Field) -> Iterator[tuple[object, bool]]:
    step = 1 if field.kind == "integer" else 0.001
    match field.kind:
        case "integer" | "number":
            for bound, off in ((field.minimum, -step), (field.maximum, step)):
                assert bound is not None
                yield (int(bound) if field.kind == "integer" else float(bound)), True
                yield (int(bound + off) if field.kind == "integer" else bound + off), False
            yield "", False
            yield "x", False
        case "text":
            yield "x" * 10_000, True
            yield "x" * 10_001, False
            yield "\U0001f3a8" * 10_000, True
        case "choice":
            for choice in field.choices:
                yield choice, True
            yield field.choices[0].upper() + "x", False


RULES = ("not allowed", "only with", "above 0")
"""Words of rules between fields, which are not at issue here."""


@pytest.mark.parametrize(("operation", "name"), FIELDS)
def test_both_sides_of_each_limit_are_checked(operation: Operation, name: str) -> None:
    for value, passes in _values(operation.fields[name]):
        entries = complaints(ENDPOINTS[operation.target], form_of(operation, **{name: value}))
        bound = [e for e in entries if e.startswith(f"{name}: ") and not any(words in e for words in RULES)]
        assert bool(bound) is not passes, (value, entries)


@pytest.mark.parametrize("target", ENDPOINTS)
def test_each_required_field_is_required(target: str) -> None:
    variants = ENDPOINTS[target]
    required = [name for name, field in variants[0].fields.items() if field.required]
    assert required
    entries = complaints(variants, {})
    assert entries[: len(required)] == [f"{name}: required" for name in required]


@given(st.integers() | st.floats() | st.text(max_size=40))
def test_numbers_are_strict_decimal_text(value: object) -> None:
    """What passes as a number is what Python's own reading of plain decimal text says it is."""
    variants = ENDPOINTS["/v2beta/stable-image/generate/sd3"]
    text = str(value)
    form = form_of(variants[0], seed="5") | {"cfg_scale": FormPart(text.encode("utf-8", "replace"), None, "")}
    entries = complaints(variants, form)
    if entries:
        assert [entry.partition(":")[0] for entry in entries] == ["cfg_scale"]
    else:
        assert text.strip("-0123456789.") == ""
        assert validate_form(variants, form).values["cfg_scale"] == float(text)
        assert 1 <= float(text) <= 10


@pytest.mark.parametrize("size", [63, 64, 3072, 3073])
def test_the_limits_of_images_are_checked(size: int) -> None:
    variants = ENDPOINTS["/v2beta/stable-image/edit/inpaint"]
    entries = complaints(variants, form_of(variants[0], image=png(size, size)))
    assert [entry.partition(" pixels: ")[0] for entry in entries] == (
        [] if 64 <= size <= 3072 else [f"image: is {size}x{size}"]
    )


def test_a_third_partys_operation_that_breaks_is_not_served(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    registry.add("impasto.operations", "stability/broken", object())
    assert load_stability_operations(registry).keys() == ENDPOINTS.keys()
    assert "stability/broken" in caplog.text


def test_a_third_partys_operation_is_imported_only_if_it_is_in_use_or_allowed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "imported"
    source = f"open({str(mark)!r}, 'w').close()\nfrom impasto_plugins.stability.erase import operation\n"
    points = {"impasto.operations": {"stability/other": "other_erase:operation"}}
    install(tmp_path, "other", points, {"other_erase": source})
    monkeypatch.syspath_prepend(tmp_path)
    assert load_stability_operations().keys() == ENDPOINTS.keys()
    assert not mark.exists()
    load_stability_operations(Registry(allow="other"))
    assert mark.exists()
