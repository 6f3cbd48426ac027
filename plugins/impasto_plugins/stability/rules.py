"""Rules between fields that only operations of Stability have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from impasto import Problem


@attrs.frozen
class NeedsOneOf:
    """If ``field`` is given, at least one of ``others`` must be."""

    field: str
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return (self.field, *self.others)

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem if the field is present alone."""
        if self.field in arguments and not any(name in arguments for name in self.others):
            yield Problem(self.field, f"only with {' or '.join(self.others)}; give one of them or leave it out")

    def __str__(self) -> str:
        return f"{self.field}: only with {' or '.join(self.others)}"


@attrs.frozen
class OneNonZero:
    """At least one of the numbers ``fields`` must be above zero."""

    fields: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the rule names."""
        return self.fields

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield a problem if all numbers are 0 or missing."""
        if not any(arguments.get(name) for name in self.fields):
            yield Problem(self.fields[0], f"at least one of {', '.join(self.fields)} must be above 0")

    def __str__(self) -> str:
        return f"at least one of {', '.join(self.fields)} above 0"
