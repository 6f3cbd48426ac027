"""Checks a raw form against an operation's parameter class, as the vendor does: text in, values or complaints out.

The bounds, choices, picture limits and rules are those of the operation; nothing of them is repeated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from impasto import File, Operation, Problem
from impasto.fields import Field
from impasto.rules import Excludes, Needs, OneOf, Rule
from impasto_plugins.emulator.server.multipart import Form, Part

DUMMY = "none"
"""The empty part that the vendor's own samples send to force a multipart body."""

_WHOLE = re.compile(r"-?[0-9]{1,30}")
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")


@attrs.frozen
class Checked:
    """A request that is in order: the operation it means and its values; files are their bytes."""

    operation: Operation
    values: Mapping[str, object]

    @property
    def said(self) -> str:
        """All text in it."""
        return " ".join(value for value in self.values.values() if isinstance(value, str))


class Wrong(Exception):
    """The form breaks the contract; ``entries`` are lines such as ``prompt: required``."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = list(dict.fromkeys(entries))
        super().__init__("; ".join(self.entries))


def check(variants: Sequence[Operation], form: Form, *, strict: bool = False) -> Checked:
    """Finds the operation among those of one path, and its values. Raises Wrong with every complaint."""
    operation = _chosen(variants, form)
    given: dict[str, object] = {}
    entries: list[str] = []
    for name, field in operation.fields.items():
        try:
            if name in form:
                given[name] = _value(field, form[name])
            elif field.required:
                raise ValueError("required")
        except ValueError as error:
            entries.append(f"{name}: {error}")
    told = {entry.partition(":")[0] for entry in entries}
    sent = {**dict.fromkeys(name for name in operation.fields if name in form), **given}
    for rule in operation.rules:
        entries += [f"{p.field}: {_worded(rule, p)}" for p in rule.problems(sent) if p.field not in told]
    if strict:
        known = {*operation.fields, *(name for each in variants for name in each.constants), DUMMY}
        entries += [f"{name}: unknown field" for name in sorted(form.keys() - known)]
    if entries:
        raise Wrong(entries)
    return Checked(operation, {n: v.read() if isinstance(v, File) else v for n, v in given.items()})


def _chosen(variants: Sequence[Operation], form: Form) -> Operation:
    """Operations of one path differ in their constants, such as sd3's ``model``."""
    names = {name for each in variants for name in each.constants}
    told = {name: form[name].data.decode("utf-8", "replace") for name in names if name in form}
    for each in variants:
        if {name: str(value) for name, value in each.constants.items()} == told:
            return each
    if not told:
        return _by_default(variants)
    raise Wrong(f"{name}: {_expected(_accepted(name, variants))}" for name in sorted(told))


def _by_default(variants: Sequence[Operation]) -> Operation:
    """The one that is meant where nothing says which: that after which the path is named, or the first."""
    return next((each for each in variants if {*each.constants.values()} <= {*each.target.split("/")}), variants[0])


def _accepted(name: str, variants: Sequence[Operation]) -> list[str]:
    return sorted({str(each.constants[name]) for each in variants if name in each.constants})


def _value(field: Field, part: Part) -> object:
    if field.kind == "file":
        if not part.is_file:
            raise ValueError("must be a file")
        return field.check((part.filename, part.data))
    text = _text(part)
    match field.kind:
        case "choice" if text not in field.choices:
            raise ValueError(_expected(field.choices))
        case "text" if not text and field.least:
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


def _text(part: Part) -> str:
    if part.is_file:
        raise ValueError("must be a field, not a file")
    try:
        return part.data.decode()
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8 text") from None


def _expected(choices: Sequence[str]) -> str:
    return "invalid enum value. Expected " + " | ".join(f"'{choice}'" for choice in choices)


def _worded(rule: Rule, problem: Problem) -> str:
    """A rule's complaint in the vendor's words, where they are known."""
    match rule:
        case Excludes(field=field, value=value):
            return f"not allowed when '{field}' is set to '{value}'"
        case Needs() | OneOf():
            return "required"
        case _:
            return problem.message
