"""A YAML file as nodes with their lines: no tags, no aliases, no key twice, a few levels deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, cast

import attrs
import yaml

DEEPEST = 12
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}

Scalar = str | int | float | bool | None


@attrs.frozen(eq=False)
class Node:
    """A value and the line on which it begins."""

    line: int
    value: Value = attrs.field(repr=False)


Value: TypeAlias = Scalar | list[Node] | dict[str, Node]


class UnfitNode(ValueError):
    """YAML that a configuration has no use for."""

    def __init__(self, event: yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = line_of(event)


def line_of(event: yaml.Event) -> int:
    """Return the number of the line on which an event begins."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class Builder:
    """Makes nodes of the parser's events: nothing is constructed that was not looked at."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._resolver = yaml.SafeLoader("")

    def document(self) -> Node:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(1, {})
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            raise UnfitNode(after, "a second document begins; a configuration is one")
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = line_of(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise UnfitNode(event, "anchors and aliases are not taken; write the value out")
        if getattr(event, "tag", None) is not None:
            raise UnfitNode(event, "tags are not taken; write the plain value")
        if depth > DEEPEST:
            raise UnfitNode(event, "is nested too deeply")
        match event:
            case yaml.ScalarEvent():
                return Node(line, self._scalar(event))
            case yaml.SequenceStartEvent():
                items = []
                while not isinstance(each := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._node(each, depth + 1))
                return Node(line, items)
            case _:
                return Node(line, self._mapping(depth))

    def _mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                raise UnfitNode(event, "a key must be text")
            if key.value in found:
                raise UnfitNode(event, f"{key.value!r} is given twice")
            value = self._node(next(self._events), depth + 1)
            found[key.value] = Node(key.line, value.value)
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag: str = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        if tag not in _SCALARS:
            return event.value  # text, and what YAML would make a date or a merge of
        try:
            return cast("Scalar", self._resolver.construct_object(yaml.ScalarNode(tag, event.value)))
        except ValueError:  # a number beyond all bounds
            raise UnfitNode(event, "is no number that can be read") from None
