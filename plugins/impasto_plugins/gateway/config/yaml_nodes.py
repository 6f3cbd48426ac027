"""A YAML file as nodes with their lines: no tags, no aliases, no key twice, a few levels deep.

The builder goes on after what it refuses: a value that it can't know is ``UNREAD``, and its problem is in ``problems``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, TypeAlias, cast

import attrs
import yaml

DEEPEST = 12
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_MERGE = "tag:yaml.org,2002:merge"
_INDENTED = "; is it indented as its neighbours are?"
_NO_ALIASES = "anchors and aliases are not taken; write the value out"

Mistake: TypeAlias = tuple[int, str]
"""What is wrong, after the number of its line; 0 for what is not in the file."""


class _Unread(enum.Enum):
    UNREAD = enum.auto()


UNREAD: Final = _Unread.UNREAD
"""A value that is not known, and whose problem is reported: no further check can judge it."""

Scalar: TypeAlias = str | int | float | bool | _Unread | None


@attrs.frozen(eq=False)
class Node:
    """A value and the line on which it begins. ``has_merge``: a mapping may have more keys than are known."""

    line: int
    value: Value = attrs.field(repr=False)
    has_merge: bool = False


Value: TypeAlias = Scalar | list[Node] | dict[str, Node]


class UnfitNode(ValueError):
    """YAML after which nothing more can be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def line_of(event: yaml.Event) -> int:
    """Return the number of the line on which an event begins."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class Builder:
    """Makes nodes of the parser's events: nothing is constructed that was not looked at."""

    def __init__(self, text: str) -> None:
        self.problems: list[Mistake] = []
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._resolver = yaml.SafeLoader("")

    def document(self) -> Node:
        """Return the root. Raises UnfitNode, and yaml.YAMLError for a character that YAML does not allow."""
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = error.problem or error.context or "invalid YAML"
            message += _INDENTED if message.startswith("mapping values") else ""
            raise UnfitNode(mark.line + 1 if mark is not None else 1, message) from None

    def _document(self) -> Node:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(1, {})
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            self._problem(after, "a second document begins; a configuration is one")
        return node

    def _problem(self, event: yaml.Event, message: str) -> None:
        self.problems.append((line_of(event), message))

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = line_of(event)
        if isinstance(event, yaml.AliasEvent):
            self._problem(event, _NO_ALIASES)
            return Node(line, UNREAD)
        if getattr(event, "anchor", None) is not None:
            self._problem(event, _NO_ALIASES)
        has_tag = getattr(event, "tag", None) is not None
        if has_tag:
            self._problem(event, "tags are not taken; write the plain value")
        if depth > DEEPEST:
            raise UnfitNode(line, "is nested too deeply")
        match event:
            case yaml.ScalarEvent():
                return Node(line, UNREAD if has_tag else self._scalar(event))
            case yaml.SequenceStartEvent():
                items = []
                while not isinstance(each := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._node(each, depth + 1))
                return Node(line, UNREAD if has_tag else items)
            case _:
                found, has_merge = self._mapping(depth)
                return Node(line, UNREAD if has_tag else found, has_merge)

    def _mapping(self, depth: int) -> tuple[dict[str, Node], bool]:
        """Return the values, and True if a merge key stands among them."""
        found: dict[str, Node] = {}
        has_merge = False
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            is_merge = isinstance(event, yaml.ScalarEvent) and self._tag(event) == _MERGE
            if is_merge:
                self._problem(event, "merge keys are not taken; write the keys out")
                has_merge = True
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if is_merge or key.value is UNREAD:
                continue
            if not isinstance(key.value, str):
                self._problem(event, "a key must be text")
            elif key.value in found:
                self._problem(event, f"{key.value!r} is given twice")
                found[key.value] = _both(found[key.value], value)
            else:
                found[key.value] = attrs.evolve(value, line=key.line)
        return found, has_merge

    def _tag(self, event: yaml.ScalarEvent) -> str:
        return cast("str", self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit))  # type: ignore[no-untyped-call]  # the stubs leave it untyped

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag = self._tag(event)
        if tag not in _SCALARS:
            return event.value  # text, and what YAML would make a date or a merge of
        try:
            return cast("Scalar", self._resolver.construct_object(yaml.ScalarNode(tag, event.value)))
        except ValueError:  # a number beyond all bounds
            self._problem(event, "is no number that can be read")
            return UNREAD


def _both(first: Node, second: Node) -> Node:
    """Return the content of two sections of one name, so that the mistakes in both are found."""
    if isinstance(first.value, dict) and isinstance(second.value, dict):
        return attrs.evolve(first, value={**second.value, **first.value}, has_merge=True)
    if isinstance(first.value, list) and isinstance(second.value, list):
        return attrs.evolve(first, value=[*first.value, *second.value])
    return first
