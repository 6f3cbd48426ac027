"""Records from YAML nodes. Each problem is reported once; values that depend on an unknown value are not judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from impasto import InvalidRequest
from impasto.ext import closest, kind_in_words, printable, structure

from .litellm import ADVICE
from .yaml_nodes import UNKNOWN_VALUE, ConfigNode, Mistake, Scalar

ENVIRONMENT_PREFIX = "os.environ/"
"""The prefix of a value from the environment."""

T = TypeVar("T")


@attrs.define
class SectionRecord(Generic[T]):
    """A record from a mapping.

    ``unknown_fields``: fields that are invalid or unknown; they have their defaults, or empty text if they are
    required. ``lines``: lines of the fields that are set. ``other_nodes``: values that are not plain ones.
    """

    record: T
    unknown_fields: set[str]
    lines: dict[str, int]
    other_nodes: Mapping[str, ConfigNode]


class SectionReader:
    """Creates records from nodes, and collects their problems."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[Mistake] = []
        self.warnings: list[str] = []

    def add_problem(self, line: int, name: str, message: str) -> None:
        """Report a problem with the value of a name."""
        self.problems.append((line, printable(f"{name}: {message}")))

    def check(
        self,
        section_record: SectionRecord[Any],
        section_name: str,
        field: str,
        value: str | None,
        validate: Callable[[str], str | None],
    ) -> None:
        """Report a problem with the value of a section's field, if the value is known."""
        if value and field not in section_record.unknown_fields and (message := validate(value)) is not None:
            self.add_problem(section_record.lines[field], f"{section_name}.{field}", message)
            section_record.unknown_fields.add(field)

    def read_section(self, node: ConfigNode, name: str, names: Iterable[str]) -> dict[str, ConfigNode]:
        """Return a mapping's values; a name that is not among ``names`` is a problem."""
        if not isinstance(node.value, dict):
            if node.value is not None and node.value is not UNKNOWN_VALUE:
                self.add_problem(node.line, name or "the file", "must be a mapping of names to values")
            return {}
        allowed_names = list(names)
        for word, value in node.value.items():
            if word not in allowed_names and word in ADVICE and is_off(value):
                setting = f"{name}.{word}".lstrip(".")
                self.warnings.append(f"line {value.line}: {setting} has no effect; {ADVICE[word]}")
            elif word not in allowed_names:
                closest_names = closest(word, (each for each in allowed_names if each not in node.value), 1)
                hint = f"did you mean {closest_names[0]}?" if closest_names else f"it takes {', '.join(allowed_names)}"
                hint = f"unknown setting; {ADVICE.get(word, hint)}"
                self.add_problem(value.line, f"{name}.{word[:60]}".lstrip("."), hint)
        return {word: value for word, value in node.value.items() if word in allowed_names}

    def read_record(
        self, kind: type[T], node: ConfigNode, name: str, list_fields: Iterable[str] = ()
    ) -> SectionRecord[T]:
        """Create a record from a mapping of plain values; ``list_fields`` are names of values that the caller reads."""
        fields = {word: each for word, each in attrs.fields_dict(kind).items() if word not in list_fields}  # type: ignore[arg-type]  # an attrs class
        nodes = self.read_section(node, name, [*fields, *list_fields])
        values = {word: self.read_scalar(nodes[word], f"{name}.{word}") for word in fields if word in nodes}
        unknown_fields = {word for word, value in values.items() if value is UNKNOWN_VALUE}
        if not is_known(node):
            unknown_fields.update(word for word in (*fields, *list_fields) if word not in nodes)
        plain_values = {
            word: value for word, value in values.items() if value is not None and value is not UNKNOWN_VALUE
        }
        try:
            record = structure(kind, plain_values)
        except InvalidRequest as error:
            for problem in error.problems:
                if problem.field not in unknown_fields:
                    line = nodes[problem.field].line if problem.field in nodes else node.line
                    self.add_problem(line, f"{name}.{problem.field}", problem.message)
            unknown_fields.update(problem.field for problem in error.problems)
            required_fields = (word for word, each in fields.items() if each.default is attrs.NOTHING)
            usable_values = {word: value for word, value in plain_values.items() if word not in unknown_fields}
            record = kind(**{**dict.fromkeys(required_fields, ""), **usable_values})
        lines = {word: each.line for word, each in nodes.items()}
        return SectionRecord(
            record, unknown_fields, lines, {word: nodes[word] for word in list_fields if word in nodes}
        )

    def read_texts(self, node: ConfigNode | None, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, or None."""
        if node is None or node.value is None or node.value is UNKNOWN_VALUE:
            return None
        if not isinstance(node.value, list):
            self.add_problem(node.line, name, "must be a list of texts")
            return None
        values = [self.read_scalar(each, name) for each in node.value]
        if not all((isinstance(value, str) and value) or value is UNKNOWN_VALUE for value in values):
            self.add_problem(node.line, name, "must be a list of texts")
        return tuple(value for value in values if isinstance(value, str) and value)

    def read_value(self, node: ConfigNode, name: str) -> object:
        """Return any value, also a list or a mapping; UNKNOWN_VALUE if a part of it is unknown."""
        if isinstance(node.value, list):
            values = [self.read_value(each, name) for each in node.value]
            return UNKNOWN_VALUE if UNKNOWN_VALUE in values else values
        if isinstance(node.value, dict):
            nested = {key: self.read_value(each, f"{name}.{key}") for key, each in node.value.items()}
            return UNKNOWN_VALUE if UNKNOWN_VALUE in nested.values() or node.has_merge else nested
        return self.read_scalar(node, name)

    def read_scalar(self, node: ConfigNode, name: str) -> Scalar:
        """Return a single value, from the environment if it says so."""
        value = node.value
        if isinstance(value, list | dict):
            self.add_problem(node.line, name, f"must be one value, not {kind_in_words(value)}")
            return UNKNOWN_VALUE
        if not isinstance(value, str) or not value.startswith(ENVIRONMENT_PREFIX):
            return value
        variable = value.removeprefix(ENVIRONMENT_PREFIX)
        if value_in_environment := self.environment.get(variable):
            return value_in_environment
        state = "empty" if value_in_environment == "" else "not set"
        self.add_problem(node.line, name, f"the environment variable {variable} is {state}; set it")
        return UNKNOWN_VALUE


def is_off(node: ConfigNode) -> bool:
    """Return True for a value that switches a setting off. One that is not supported is off anyway."""
    return node.value is None or node.value is False or node.value in ([], {})


def is_known(node: ConfigNode) -> bool:
    """Return True if all the keys of a mapping are known."""
    return node.value is None or (isinstance(node.value, dict) and not node.has_merge)
