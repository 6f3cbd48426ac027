"""Habits that a reader relies on, held by tests: small files, few imports in the core, reasons beside exceptions."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import ROOT, name_of, python_files

MOST_LINES = {"core": 300, "plugins": 400, "benchmarks": 400, "tests": 400, "docs": 300}
KIT = ROOT / "core/impasto/testing"
"""For plugin authors' tests: it may import pytest, and starts the emulator."""

REASONED = {
    "type: ignore": r"type: ignore\[[a-z-, ]+\]  # .{8,}",
    "pyright: ignore": r"pyright: ignore\[\w+\]  # .{8,}",
    "noqa": r"noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* - .{8,}",
    "pragma: no cover": r"pragma: no cover - .{8,}",
}
NAMED_ENOUGH = {f"plugins/impasto_plugins/emulator/rendering/pictures/{name}.py" for name in ("edits", "motifs")}
"""One function for each operation, or thing that is drawn, all of one kind: the module says what they do."""
SHIPPED = ("core", "plugins", "benchmarks", "docs")


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Each comment of a file with its line's number."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of what a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def test_files_stay_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in python_files()}
    assert {name_of(p): n for p, n in lines.items() if n > MOST_LINES[p.relative_to(ROOT).parts[0]]} == {}


def test_the_core_imports_attrs_cattrs_pluggy_and_the_standard_library() -> None:
    allowed = {"attrs", "cattrs", "pluggy", "impasto", *sys.stdlib_module_names}
    found = {(name_of(path), name) for path in python_files("core") for name in imported(ast.parse(path.read_text()))}
    others = {(path, name) for path, name in found if name not in allowed}
    assert not {(path, name) for path, name in others if not path.startswith(name_of(KIT))}
    assert {name for path, name in others if path.startswith(name_of(KIT))} <= {"pytest", "impasto_plugins"}


def test_the_core_knows_no_plugin_by_name() -> None:
    knowing = {
        name_of(path)
        for path in python_files("core")
        if KIT not in path.parents and "impasto_plugins" in path.read_text()
    }
    assert not knowing, "what plugins add to the package is in the group impasto.exports"


def test_public_names_have_docstrings() -> None:
    silent = []
    for path in python_files("core", "plugins", "docs"):
        tree = ast.parse(path.read_text())
        silent += [] if ast.get_docstring(tree) else [name_of(path)]
        silent += [
            f"{name_of(path)}: {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if not node.name.startswith("_") and not ast.get_docstring(node)
            if "overload" not in map(ast.unparse, node.decorator_list)
            if name_of(path) not in NAMED_ENOUGH or isinstance(node, ast.ClassDef)
        ]
    assert silent == []


def test_an_ignored_rule_has_its_reason_beside_it() -> None:
    bare = [
        f"{name_of(path)}:{number}: {comment}"
        for path in python_files(*SHIPPED)
        for number, comment in comments(path)
        for word, reasoned in REASONED.items()
        if re.match(rf"#+ *{word}", comment) and not re.search(reasoned, comment)
    ]
    assert bare == []


def test_whoever_catches_everything_says_why() -> None:
    silent = []
    for path in python_files(*SHIPPED):
        lines = {number for number, comment in comments(path) if len(comment) > 12}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not _raises_again(node):
                silent += [] if node.lineno in lines else [f"{name_of(path)}:{node.lineno}"]
    assert silent == []


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether the same error goes on its way: then nothing was swallowed."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_nothing_names_the_machine_it_was_written_on() -> None:
    places = re.compile("|".join(("/" + "work/", "/" + "root/", "/" + r"home/\w", "/" + r"Users/\w")))
    texts = [*python_files(), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
    texts += [ROOT / "pyproject.toml", ROOT / ".ci" / "run", *ROOT.glob("tests/**/golden/*")]
    found = [f"{name_of(path)}: {place.group()}" for path in texts for place in places.finditer(path.read_text())]
    assert found == []


def test_no_source_holds_a_note_to_self() -> None:
    notes = re.compile(r"#.*\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
    found = [f"{name_of(path)}: {note.group()}" for path in python_files() for note in notes.finditer(path.read_text())]
    assert found == []
