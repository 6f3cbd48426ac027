"""Rules between fields. Each checks the arguments (None means not given), and ``str()`` gives it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import attrs

from .errors import Problem


class Rule(Protocol):
    """A condition on several fields at once."""

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield the problems of arguments that break the rule."""
        ...


@attrs.frozen
class Needs:
    """If ``field`` is given (and equals ``value``, if that is set), each of ``others`` must be given."""

    field: str
    others: tuple[str, ...]
    value: str | None = None

    def applies(self, arguments: Mapping[str, object]) -> bool:
        """Return True if the others are needed."""
        return self.field in arguments and self.value in (None, arguments[self.field])

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem for each missing field."""
        if self.applies(arguments):
            for other in self.others:
                if other not in arguments:
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

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem for each field that is not allowed."""
        value = arguments.get(self.field, self.value if self.by_default else None)
        if value == self.value if self.value is not None else value is not None:
            for other in self.others:
                if other in arguments:
                    yield Problem(other, f"not allowed when {self.field} is {self.value or 'given'}; leave it out")

    def __str__(self) -> str:
        return f"{' and '.join(self.others)}: not allowed when {self.field} is {self.value or 'given'}"


@attrs.frozen
class OneOf:
    """At least one of ``fields`` must be given."""

    fields: tuple[str, ...]

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem if none of the fields is present."""
        if not any(name in arguments for name in self.fields):
            yield Problem(self.fields[0], f"give at least one of {' and '.join(self.fields)}")

    def __str__(self) -> str:
        return f"at least one of {', '.join(self.fields)}"


@attrs.frozen
class NoEffect:
    """A warning: without ``field``, each of ``others`` is sent but has no effect."""

    field: str
    others: tuple[str, ...]

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield nothing: the rule only warns."""
        yield from ()

    def warnings(self, arguments: Mapping[str, object]) -> Iterator[str]:
        """Yield the warnings for a request that is sent all the same."""
        if self.field not in arguments:
            yield from (f"{other} has no effect without {self.field}" for other in self.others if other in arguments)

    def __str__(self) -> str:
        return f"{', '.join(self.others)}: no effect without {self.field}"
