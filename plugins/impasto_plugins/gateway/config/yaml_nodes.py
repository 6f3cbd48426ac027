"""A YAML file as nodes with line numbers: no tags, no aliases, no key twice, a few levels deep.

The builder continues after a refusal: the value becomes ``UNKNOWN_VALUE``, and its problem is in ``problems``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, TypeAlias, cast

import attrs
import yaml

MAX_DEPTH = 12
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_MERGE = "tag:yaml.org,2002:merge"
_INDENTATION_HINT = "; check its indentation"
_ALIASES_REFUSED = "anchors and aliases are not supported; write out the value"

Mistake: TypeAlias = tuple[int, str]
"""A problem after its line number; 0 for something that is not in the file."""


class _UnknownValue(enum.Enum):
    UNKNOWN = enum.auto()


UNKNOWN_VALUE: Final = _UnknownValue.UNKNOWN
"""A value that is unknown, with a reported problem: no further check can judge it."""

Scalar: TypeAlias = str | int | float | bool | _UnknownValue | None


@attrs.frozen(eq=False)
class ConfigNode:
    """A value and its first line. ``has_merge``: a mapping may have more keys than are known."""

    line: int
    value: Value = attrs.field(repr=False)
    has_merge: bool = False


Value: TypeAlias = Scalar | list[ConfigNode] | dict[str, ConfigNode]


class UnreadableYAML(ValueError):
    """YAML that can't be read any further."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def line_number(event: yaml.Event) -> int:
    """Return the number of an event's first line."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class NodeBuilder:
    """Creates nodes from the parser's events: nothing is constructed before it is checked."""

    def __init__(self, text: str) -> None:
        self.problems: list[Mistake] = []
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._resolver = yaml.SafeLoader("")

    def read_document(self) -> ConfigNode:
        """Return the root. Raises UnreadableYAML, and yaml.YAMLError for a character that YAML does not allow."""
        try:
            return self._read_document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = error.problem or error.context or "invalid YAML"
            message += _INDENTATION_HINT if message.startswith("mapping values") else ""
            raise UnreadableYAML(mark.line + 1 if mark is not None else 1, message) from None

    def _read_document(self) -> ConfigNode:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return ConfigNode(1, {})
        node = self._read_node(next(self._events), 0)
        next(self._events)  # the document's end
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            self._add_problem(after, "a second document begins; a configuration must be one document")
        return node

    def _add_problem(self, event: yaml.Event, message: str) -> None:
        self.problems.append((line_number(event), message))

    def _read_node(self, event: yaml.Event, depth: int) -> ConfigNode:
        line = line_number(event)
        if isinstance(event, yaml.AliasEvent):
            self._add_problem(event, _ALIASES_REFUSED)
            return ConfigNode(line, UNKNOWN_VALUE)
        if getattr(event, "anchor", None) is not None:
            self._add_problem(event, _ALIASES_REFUSED)
        has_tag = getattr(event, "tag", None) is not None
        if has_tag:
            self._add_problem(event, "tags are not supported; write the plain value")
        if depth > MAX_DEPTH:
            raise UnreadableYAML(line, "is nested too deeply")
        match event:
            case yaml.ScalarEvent():
                return ConfigNode(line, UNKNOWN_VALUE if has_tag else self._read_scalar(event))
            case yaml.SequenceStartEvent():
                items = []
                while not isinstance(each := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._read_node(each, depth + 1))
                return ConfigNode(line, UNKNOWN_VALUE if has_tag else items)
            case _:
                nodes, has_merge = self._read_mapping(depth)
                return ConfigNode(line, UNKNOWN_VALUE if has_tag else nodes, has_merge)

    def _read_mapping(self, depth: int) -> tuple[dict[str, ConfigNode], bool]:
        """Return the values, and True if there is a merge key among them."""
        nodes: dict[str, ConfigNode] = {}
        has_merge = False
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            is_merge = isinstance(event, yaml.ScalarEvent) and self._resolve_tag(event) == _MERGE
            if is_merge:
                self._add_problem(event, "merge keys are not supported; write out the keys")
                has_merge = True
            key = self._read_node(event, depth + 1)
            value = self._read_node(next(self._events), depth + 1)
            if is_merge or key.value is UNKNOWN_VALUE:
                continue
            if not isinstance(key.value, str):
                self._add_problem(event, "a key must be text")
            elif key.value in nodes:
                self._add_problem(event, f"{key.value!r} was given twice")
                nodes[key.value] = _merge_values(nodes[key.value], value)
            else:
                nodes[key.value] = attrs.evolve(value, line=key.line)
        return nodes, has_merge

    def _resolve_tag(self, event: yaml.ScalarEvent) -> str:
        return cast("str", self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit))  # type: ignore[no-untyped-call]  # the stubs leave it untyped

    def _read_scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag = self._resolve_tag(event)
        if tag not in _SCALARS:
            return event.value  # text, and what YAML would make a date or a merge of
        try:
            return cast("Scalar", self._resolver.construct_object(yaml.ScalarNode(tag, event.value)))
        except ValueError:  # a number beyond all bounds
            self._add_problem(event, "is not a valid number")
            return UNKNOWN_VALUE


def _merge_values(first: ConfigNode, second: ConfigNode) -> ConfigNode:
    """Return the content of two sections of one name, so that the mistakes in both are found."""
    if isinstance(first.value, dict) and isinstance(second.value, dict):
        return attrs.evolve(first, value={**second.value, **first.value}, has_merge=True)
    if isinstance(first.value, list) and isinstance(second.value, list):
        return attrs.evolve(first, value=[*first.value, *second.value])
    return first
