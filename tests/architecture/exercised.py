"""What the tests name, read from their syntax: a comment or a docstring that mentions a thing does not exercise it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

from tests.architecture.sources import ROOT, python_files

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_NOT_COUNTED = ("tests/architecture", "tests/docs")
"""They look at what there is, and so would name whatever is added."""


@attrs.frozen
class Use:
    """A function of a test module, or what stands beside its functions. ``texts``: its strings, no docstring."""

    path: Path
    names: frozenset[str]
    texts: tuple[str, ...]
    hooks: frozenset[str]
    """The methods in it that are marked as a hook's."""

    @property
    def words(self) -> frozenset[str]:
        """The words of its strings, such as an option or a key of a configuration."""
        return frozenset(word for text in self.texts for word in _WORD.findall(text))


@cache
def uses() -> tuple[Use, ...]:
    """Every function of the tests that call something."""
    paths = [path for path in python_files("tests") if not str(path.relative_to(ROOT)).startswith(_NOT_COUNTED)]
    return tuple(use for path in paths for use in _of(path))


def _of(path: Path) -> Iterator[Use]:
    tree = ast.parse(path.read_text("utf-8"))
    inside = [node for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
    yield from (_use(path, [node]) for node in inside)
    yield _use(path, [node for node in tree.body if node not in inside])


def _use(path: Path, nodes: list[ast.stmt]) -> Use:
    every = [node for top in nodes for node in ast.walk(top)]
    docstrings = {id(doc) for node in every for doc in _docstring(node)}
    return Use(
        path=path,
        names=frozenset(name for node in every for name in _names_in(node)),
        texts=tuple(
            node.value
            for node in every
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ),
        hooks=frozenset(node.name for node in every if isinstance(node, FUNCTIONS) and _is_hook(node)),
    )


def _docstring(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and ast.get_docstring(node) is not None:
        first = node.body[0]
        assert isinstance(first, ast.Expr)
        yield first.value


def _names_in(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)) | ast.alias(name=name):
            yield name
        case ast.ClassDef():  # a method of a test's own stands in the place of one of ours
            yield from (each.name for each in node.body if isinstance(each, FUNCTIONS))
        case _:
            return


def _is_hook(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    marks = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any("hookimpl" in _names_in(mark) for mark in marks)
