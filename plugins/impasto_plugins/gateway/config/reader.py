"""Records of YAML nodes. Each problem is written down once; what depends on a value that is not known is not judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from impasto import InvalidRequest
from impasto.ext import closest, kind_in_words, printable, structure

from .litellm import ADVICE
from .yaml_nodes import UNREAD, Mistake, Node, Scalar

ENVIRONMENT = "os.environ/"
"""What a value begins with that is to be taken from the environment."""

T = TypeVar("T")


@attrs.define
class Read(Generic[T]):
    """A record made of a mapping.

    ``unread``: the fields that are wrong or not known; the record has their defaults, or empty text if they are
    required. ``lines``: of the fields that are given. ``others``: the values that are no plain ones.
    """

    record: T
    unread: set[str]
    lines: dict[str, int]
    others: Mapping[str, Node]


class Reader:
    """Makes records of nodes, and writes down what is wrong with each."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[Mistake] = []

    def problem(self, line: int, name: str, message: str) -> None:
        """Write down what is wrong with the value of a name."""
        self.problems.append((line, printable(f"{name}: {message}")))

    def check(
        self, read: Read[Any], section: str, field: str, value: str | None, wrong_with: Callable[[str], str | None]
    ) -> None:
        """Write down what is wrong with the value of a section's field, if it has one that could be read."""
        if value and field not in read.unread and (message := wrong_with(value)) is not None:
            self.problem(read.lines[field], f"{section}.{field}", message)
            read.unread.add(field)

    def section(self, node: Node, name: str, known: Iterable[str]) -> dict[str, Node]:
        """Return a mapping's values; a name that is not among ``known`` is a problem."""
        if not isinstance(node.value, dict):
            if node.value is not None and node.value is not UNREAD:
                self.problem(node.line, name or "the file", "must be a mapping of names to values")
            return {}
        names = list(known)
        for word, value in node.value.items():
            if word not in names:
                near = closest(word, (each for each in names if each not in node.value), 1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names)}"
                hint = f"is not taken here; {ADVICE.get(word, hint)}"
                self.problem(value.line, f"{name}.{word[:60]}".lstrip("."), hint)
        return {word: value for word, value in node.value.items() if word in names}

    def record(self, kind: type[T], node: Node, name: str, others: Iterable[str] = ()) -> Read[T]:
        """Make a record of a mapping of plain values; ``others`` are names of values that the caller reads."""
        fields = {word: each for word, each in attrs.fields_dict(kind).items() if word not in others}  # type: ignore[arg-type]  # an attrs class
        nodes = self.section(node, name, [*fields, *others])
        values = {word: self.plain(nodes[word], f"{name}.{word}") for word in fields if word in nodes}
        unread = {word for word, value in values.items() if value is UNREAD}
        if not is_known(node):
            unread.update(word for word in (*fields, *others) if word not in nodes)
        right = {word: value for word, value in values.items() if value is not None and value is not UNREAD}
        try:
            made = structure(kind, right)
        except InvalidRequest as error:
            for problem in error.problems:
                if problem.field not in unread:
                    line = nodes[problem.field].line if problem.field in nodes else node.line
                    self.problem(line, f"{name}.{problem.field}", problem.message)
            unread.update(problem.field for problem in error.problems)
            required = (word for word, each in fields.items() if each.default is attrs.NOTHING)
            rest = {word: value for word, value in right.items() if word not in unread}
            made = kind(**{**dict.fromkeys(required, ""), **rest})
        lines = {word: each.line for word, each in nodes.items()}
        return Read(made, unread, lines, {word: nodes[word] for word in others if word in nodes})

    def texts(self, node: Node | None, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, None if none is given."""
        if node is None or node.value is None or node.value is UNREAD:
            return None
        if not isinstance(node.value, list):
            self.problem(node.line, name, "must be a list of texts")
            return None
        values = [self.plain(each, name) for each in node.value]
        if not all((isinstance(value, str) and value) or value is UNREAD for value in values):
            self.problem(node.line, name, "must be a list of texts")
        return tuple(value for value in values if isinstance(value, str) and value)

    def plain(self, node: Node, name: str) -> Scalar:
        """Return a single value, taken from the environment if it asks for that."""
        value = node.value
        if isinstance(value, list | dict):
            self.problem(node.line, name, f"must be one value, not {kind_in_words(value)}")
            return UNREAD
        if not isinstance(value, str) or not value.startswith(ENVIRONMENT):
            return value
        variable = value.removeprefix(ENVIRONMENT)
        if found := self.environment.get(variable):
            return found
        state = "empty" if found == "" else "not set"
        self.problem(node.line, name, f"the environment variable {variable} is {state}; set it")
        return UNREAD


def is_known(node: Node) -> bool:
    """Return True if all the keys of what should be a mapping are known."""
    return node.value is None or (isinstance(node.value, dict) and not node.has_merge)
