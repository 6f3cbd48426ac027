"""The page about the modules for authors of plugins; Sphinx's autodoc describes their functions and classes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import impasto
from impasto.testing import MiddlewareSuite, OperationSuite, StateSuite, TransportSuite

from .text import code, doc, fenced, page, table

MODULES = ("dialects", "fields", "rules", "testing", "ext")
_SUITES = (OperationSuite, TransportSuite, MiddlewareSuite, StateSuite)
_INTRODUCTION = """
The modules of which plugins are made. [Write a provider](../plugins.md) explains how to use them. Without Sphinx
`python -m pydoc impasto.dialects` shows the same, but of a suite's attributes the names only.
"""


def pages() -> dict[str, str]:
    """Return the page."""
    parts = [part for name in MODULES for part in _module(import_module(f"impasto.{name}"))]
    return {"reference/plugin-modules.md": page("# Modules for plugins", _INTRODUCTION, *parts)}


def names_of(module: ModuleType) -> list[str]:
    """Return the public names of a module."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [name for name in getattr(module, "__all__", own) if not name.startswith("_")]


def checks_of(suite: type) -> Iterator[tuple[str, str]]:
    """Yield the name of each check of a suite and the first line of its docstring."""
    for name in sorted(name for name in dir(suite) if name.startswith("test_")):
        yield name, doc(getattr(suite, name)).partition("\n")[0]


def _module(module: ModuleType) -> Iterator[str]:
    yield f"## {module.__name__}"
    yield doc(module).partition("\n\n")[0]
    for name in names_of(module):
        yield from _entry(module, name)


def _entry(module: ModuleType, name: str) -> Iterator[str]:
    thing, whole = getattr(module, name), f"{module.__name__}.{name}"
    if thing in _SUITES:
        checks = list(checks_of(thing))
        hidden = ", ".join(name for name, _ in checks)
        options = f"   :members:\n   :inherited-members:\n   :exclude-members: {hidden}, prepare"
        yield fenced("{eval-rst}", f".. autoclass:: {whole}\n{options}")
        yield table([f"check of {name}", "meaning"], ([code(check), meaning] for check, meaning in checks))
    elif inspect.isclass(thing):
        again = "\n   :no-index:" if name in dir(impasto) else ""
        yield fenced("{eval-rst}", f".. autoclass:: {whole}\n   :members:{again}")
    elif inspect.isroutine(thing):
        yield fenced("{eval-rst}", f".. autofunction:: {whole}")
    else:
        text = "\n   ".join(_documentation(module, name).splitlines())
        yield fenced("{eval-rst}", f".. py:data:: {whole}\n\n   {text}")


def _documentation(module: ModuleType, name: str) -> str:
    """Return the docstring below a constant, in the module where it is defined."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.ImportFrom) and name in [each.name for each in statement.names]:
            home = "." * statement.level + (statement.module or "")
            return _documentation(import_module(home, _package(module)), name)
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if name in [each.id for each in targets if isinstance(each, ast.Name)]:
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    return inspect.cleandoc(text)
            return f"``{ast.unparse(statement)}``"
    homes = vars(module).get("_HOME_OF") or vars(module)["_HOMES"]
    return _documentation(import_module(f"{_package(module)}.{homes[name]}"), name)


def _package(module: ModuleType) -> str:
    return module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
