"""Rules between fields. Each checks the arguments (None means not given), and ``str()`` gives it in words.

A rule names a field of a nested object with dots: ``palette.name``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import attrs

from .errors import BrokenPlugin, Problem
from .field_checks import Field
from .suggestions import closest


def value_at(arguments: Mapping[str, object], name: str) -> object:
    """Return the value of a field, of a nested object's if the name has dots, or None if it is not given."""
    if name in arguments or "." not in name:
        return arguments.get(name)
    value: object = arguments
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif attrs.has(type(value)):  # a caller may give the object of the nested class
            value = getattr(value, part, None)
        else:
            return None
    return value


class Rule(Protocol):
    """A condition on several fields at once.

    A rule may also have ``names``, the fields that it names: an operation without one of them is a BrokenPlugin.
    """

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield the problems of arguments that break the rule."""
        ...


@attrs.frozen
class Needs:
    """If ``field`` is given (and equals ``value``, if that is set), each of ``others`` must be given."""

    field: str
    others: tuple[str, ...]
    value: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return (self.field, *self.others)

    def applies(self, arguments: Mapping[str, object]) -> bool:
        """Return True if the others are needed."""
        value = value_at(arguments, self.field)
        return value is not None and self.value in (None, value)

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem for each missing field."""
        if self.applies(arguments):
            for other in self.others:
                if value_at(arguments, other) is None:
                    yield Problem(other, f"required when {self._condition}")

    @property
    def _condition(self) -> str:
        return f"{self.field} is {self.value}" if self.value else f"{self.field} is given"

    def __str__(self) -> str:
        return f"{' and '.join(self.others)}: required when {self._condition}"


@attrs.frozen
class Excludes:
    """If ``field`` is ``value`` (with ``by_default`` also if it is not given), none of ``others`` may be given.

    ``value`` is None for any that is given, such as a file.
    """

    field: str
    value: str | None
    others: tuple[str, ...]
    by_default: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return (self.field, *self.others)

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem for each field that is not allowed."""
        value = value_at(arguments, self.field)
        if value is None and self.by_default:
            value = self.value
        if value == self.value if self.value is not None else value is not None:
            for other in self.others:
                if value_at(arguments, other) is not None:
                    yield Problem(other, f"not allowed when {self.field} is {self.value or 'given'}; leave it out")

    def __str__(self) -> str:
        return f"{' and '.join(self.others)}: not allowed when {self.field} is {self.value or 'given'}"


@attrs.frozen
class OneOf:
    """At least one of ``fields`` must be given."""

    fields: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return self.fields

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem if none of the fields is present."""
        if not any(value_at(arguments, name) is not None for name in self.fields):
            yield Problem(self.fields[0], f"give at least one of {' and '.join(self.fields)}")

    def __str__(self) -> str:
        return f"at least one of {', '.join(self.fields)}"


@attrs.frozen
class NoEffect:
    """A warning: without ``field``, each of ``others`` is sent but has no effect."""

    field: str
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return (self.field, *self.others)

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield nothing: the rule only warns."""
        yield from ()

    def warnings(self, arguments: Mapping[str, object]) -> Iterator[str]:
        """Yield the warnings for a request that is sent all the same."""
        if value_at(arguments, self.field) is None:
            without = f"has no effect without {self.field}"
            yield from (f"{other} {without}" for other in self.others if value_at(arguments, other) is not None)

    def __str__(self) -> str:
        return f"{', '.join(self.others)}: no effect without {self.field}"


def check_names(rules: Iterable[Rule], fields: Mapping[str, Field], model: str) -> None:
    """Raise BrokenPlugin if a rule names a field that does not exist."""
    for rule in rules:
        names: object = getattr(rule, "names", ())
        for name in names if isinstance(names, tuple) else ():
            within, at = fields, name.split(".")
            for depth, part in enumerate(at, 1):
                if part not in within:
                    raise BrokenPlugin(_unknown_name(model, rule, name, ".".join(at[: depth - 1]), within))
                within = within[part].fields if within[part].kind == "group" else {}


def _unknown_name(model: str, rule: Rule, name: str, group: str, fields: Mapping[str, Field]) -> str:
    paths = [f"{group}.{each}" if group else each for each in fields]
    near = closest(name, paths, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    owner = f"the fields of {group} are {', '.join(paths)}" if paths else f"{group} has no fields"
    listed = owner if group else f"the fields are {', '.join(paths)}"
    return f"{model}: its rule {type(rule).__name__} names {name!r}, which is not a field{hint} ({listed})"
