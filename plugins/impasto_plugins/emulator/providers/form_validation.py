"""Checks a form against an operation's parameter class, as the vendor does: text in, values or problems out.

The limits, choices and rules are those of the operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from impasto import File, Operation, Problem
from impasto.fields import Field
from impasto.rules import Excludes, Needs, OneOf, Rule
from impasto_plugins.emulator.server.multipart import Form, FormPart

DUMMY_FIELD = "none"
"""The empty part that the vendor's own samples send to force a multipart body."""

_WHOLE = re.compile(r"-?[0-9]{1,30}")
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")


@attrs.frozen
class ValidatedForm:
    """A valid request: its operation and its values, files as bytes."""

    operation: Operation
    values: Mapping[str, object]

    @property
    def text(self) -> str:
        """All text fields, joined."""
        return " ".join(value for value in self.values.values() if isinstance(value, str))


class ValidationFailed(Exception):
    """The form breaks the contract; ``entries`` are lines such as ``prompt: required``."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = list(dict.fromkeys(entries))
        super().__init__("; ".join(self.entries))


def validate_form(variants: Sequence[Operation], form: Form, *, strict: bool = False) -> ValidatedForm:
    """Return the operation among those of one path, with the values. Raises ValidationFailed with every problem."""
    operation = _select_operation(variants, form)
    values: dict[str, object] = {}
    entries: list[str] = []
    for name, field in operation.fields.items():
        try:
            if name in form:
                values[name] = _parse_value(field, form[name])
            elif field.required:
                raise ValueError("required")
        except ValueError as error:
            entries.append(f"{name}: {error}")
    fields_with_errors = {entry.partition(":")[0] for entry in entries}
    fields_in_form = {**dict.fromkeys(name for name in operation.fields if name in form), **values}
    for rule in operation.rules:
        entries += [
            f"{p.field}: {_describe_problem(rule, p)}"
            for p in rule.problems(fields_in_form)
            if p.field not in fields_with_errors
        ]
    if strict:
        names = {*operation.fields, *(name for each in variants for name in each.constants), DUMMY_FIELD}
        entries += [f"{name}: unknown field" for name in sorted(form.keys() - names)]
    if entries:
        raise ValidationFailed(entries)
    return ValidatedForm(operation, {n: v.read() if isinstance(v, File) else v for n, v in values.items()})


def _select_operation(variants: Sequence[Operation], form: Form) -> Operation:
    """Return the operation by its constants, such as sd3's ``model``."""
    names = {name for each in variants for name in each.constants}
    constants = {name: form[name].data.decode("utf-8", "replace") for name in names if name in form}
    for each in variants:
        if {name: str(value) for name, value in each.constants.items()} == constants:
            return each
    if not constants:
        return _default_operation(variants)
    raise ValidationFailed(
        f"{name}: {_choices_message(_constant_values(name, variants))}" for name in sorted(constants)
    )


def _default_operation(variants: Sequence[Operation]) -> Operation:
    """Return the operation that the path is named after, or the first."""
    return next((each for each in variants if {*each.constants.values()} <= {*each.target.split("/")}), variants[0])


def _constant_values(name: str, variants: Sequence[Operation]) -> list[str]:
    return sorted({str(each.constants[name]) for each in variants if name in each.constants})


def _parse_value(field: Field, part: FormPart) -> object:
    if field.kind == "file":
        if not part.is_file:
            raise ValueError("must be a file")
        return field.check((part.filename, part.data))
    text = _decode_text(part)
    match field.kind:
        case "choice" if text not in field.choices:
            raise ValueError(_choices_message(field.choices))
        case "text" if not text and field.minimum:
            raise ValueError("required")
        case "integer":
            if not _WHOLE.fullmatch(text):
                raise ValueError("must be a whole number in decimal digits")
            return field.check(int(text))
        case "number":
            if not _DECIMAL.fullmatch(text):
                raise ValueError("must be a number in decimal digits")
            return field.check(float(text))
    return field.check(text)


def _decode_text(part: FormPart) -> str:
    if part.is_file:
        raise ValueError("must be a field, not a file")
    try:
        return part.data.decode()
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8 text") from None


def _choices_message(choices: Sequence[str]) -> str:
    return "invalid enum value. Expected " + " | ".join(f"'{choice}'" for choice in choices)


def _describe_problem(rule: Rule, problem: Problem) -> str:
    """Return the problem of a rule in the vendor's words, if they are known."""
    match rule:
        case Excludes(field=field, value=value):
            return f"not allowed when '{field}' is set to '{value}'"
        case Needs() | OneOf():
            return "required"
        case _:
            return problem.message
