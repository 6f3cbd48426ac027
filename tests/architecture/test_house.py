"""The house's rules for names, docstrings and folders. The lists of exceptions only shrink."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Set as AbstractSet
from pathlib import Path

from tests.architecture.sources import name_of, python_files

PARTICIPLES = frozenset(
    {
        *("told", "said", "kept", "seen", "shown", "given", "made", "known", "gone", "ended", "served", "asked"),
        *("accepted", "begun", "lost", "held", "placed", "named", "laid", "opened", "unread", "piped", "spared"),
    }
)
ALLOWED_PARTICIPLES = {
    "plugins/impasto_plugins/gateway/calls/execution.py": {"lost"},
}
"""Columns of tables and keys of stored JSON, whose names stay."""

PRIVATE_PHRASES = re.compile(
    r"(?<!there )\b(is|are|was) no (?!longer\b|more\b|limit\b)|\b(is|are) none\b|\banew\b|\bnobody's\b|\bpictures?\b",
    re.IGNORECASE,
)
"""Phrases of which plain English has no need, in texts that users read."""

PICTURES = {"emulator/rendering", "impasto/testing"}
"""Rooms that paint pictures, or test with one."""
ALLOWED_PHRASES = {
    "a variation of this picture",
    "PICTURE",
    "pictures",
    "picture",
    ', "pictures": ',
    "impasto.pictures",
}
"""A prompt that models get, an account's type, and keys of JSON, of tables and of traces."""

QUESTION_WORDS = frozenset({"what", "whether", "how", "where", "who", "whose", "which", "when"})

MOST_FILES = 12
LARGE_FOLDERS = {"core/impasto", "plugins/impasto_plugins/cli", "plugins/impasto_plugins/stability"}
"""The core, and the folders with one module for each command or model."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def shipped() -> Iterator[tuple[Path, ast.Module]]:
    """The files that users install, parsed."""
    for path in python_files("core", "plugins"):
        yield path, ast.parse(path.read_text())


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Names that a file defines: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def test_no_participle_is_used_as_a_noun() -> None:
    found: dict[str, AbstractSet[str]] = {}
    for path, tree in shipped():
        if words := PARTICIPLES & {name.strip("_") for name in defined_names(tree)}:
            found[name_of(path)] = words
    assert found == ALLOWED_PARTICIPLES


def test_no_participle_is_used_as_a_noun_in_tests() -> None:
    found = [
        f"{name_of(path)}: {name}"
        for path in python_files("tests")
        for name in defined_names(ast.parse(path.read_text()))
        if name.strip("_") in PARTICIPLES
    ]
    assert found == [], "name a variable by its content"


def test_a_test_is_named_by_a_statement() -> None:
    questions = [
        f"{name_of(path)}: {name}"
        for path in python_files("tests")
        for name in defined_names(ast.parse(path.read_text()))
        if name.startswith("test_") and name.split("_")[1] in QUESTION_WORDS
    ]
    assert questions == []


def test_no_file_is_named_by_a_participle_or_picture() -> None:
    names = [name_of(path) for path, _ in shipped() if not _may_say_picture(path)]
    words = PARTICIPLES | {"picture", "pictures"}
    assert [name for name in names if words & set(re.split(r"[/_.]", name))] == []


def test_no_name_says_picture() -> None:
    found = {
        f"{name_of(path)}: {name}"
        for path, tree in shipped()
        if not _may_say_picture(path)
        for name in defined_names(tree)
        if "picture" in name.lower()
    }
    assert found == {"plugins/impasto_plugins/stability/account.py: profile_picture"}  # the vendor's own key


def test_messages_are_plain_english() -> None:
    found = [
        f"{name_of(path)}:{line}: {text}"
        for path, tree in shipped()
        if not _may_say_picture(path)
        for line, text in texts(tree)
        if PRIVATE_PHRASES.search(text) and text not in ALLOWED_PHRASES
    ]
    assert found == []


def _may_say_picture(path: Path) -> bool:
    return any(room in name_of(path) for room in PICTURES)


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the lines and strings of a file, except docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, Definition | ast.Module) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_a_class_name_is_unique() -> None:
    names = Counter(
        node.name
        for _, tree in shipped()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name != "Params"  # the parameters of one operation, in its module
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_a_docstring_begins_with_a_verb_or_a_noun() -> None:
    documented = (
        (path, ast.get_docstring(node) or ".")
        for path, tree in shipped()
        for node in ast.walk(tree)
        if isinstance(node, Definition | ast.Module)
    )
    questions = [
        f"{name_of(path)}: {text.splitlines()[0]}"
        for path, text in documented
        if text.split()[0].strip("`'\".,:").lower() in QUESTION_WORDS
    ]
    assert questions == []


def test_a_folder_has_few_files() -> None:
    files: dict[str, int] = defaultdict(int)
    for path in python_files("core", "plugins"):
        files[name_of(path.parent)] += path.name != "__init__.py"
    assert {folder for folder, count in files.items() if count > MOST_FILES} == LARGE_FOLDERS
