"""Layers: inside a package imports go down only, and plugins use the core through its public modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, name_of, python_files

PLUGINS = ROOT / "plugins/impasto_plugins"

LAYERS = {
    "gateway": """
        errors
        config
        telemetry
        http storage auth
        calls
        idempotency
        api
        batches
        routes
        app
        sweep
        state
        bucket
        gateway
        serve
        command state_command
    """,
    "batch": """
        tasks filenames option_names
        classification
        ledger
        manifest
        output
        runner
        shared
        addresses
        program
        joined
        batch api engines
        cli
        command
    """,
    "emulator": """
        settings
        rendering
        state
        server.exchange server.multipart
        faults
        providers
        server.admin_api server.app server.server
        stand_ins
        transport
        command
    """,
    "state": """
        periods results clock
        sqlite postgres
        command
    """,
}
"""Rooms and modules of each package, the lowest line first: each may import those above its own line and itself."""

PUBLIC = ("fields", "rules", "hooks", "dialects", "testing", "ext")
"""The modules of the core that plugins import, besides ``impasto`` itself."""


def imported(path: Path) -> Iterator[str]:
    """Absolute names of everything that a module imports, also for types only."""
    package = path.relative_to(ROOT / path.relative_to(ROOT).parts[0]).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parents, *filter(None, (node.module,))))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(name: str, layers: list[list[str]]) -> int | None:
    """Return the number of a dotted name's line; the longest entry that contains the name decides."""
    matches = [
        (len(entry), number)
        for number, line in enumerate(layers)
        for entry in line
        if f"{name}.".startswith(f"{entry}.")
    ]
    return max(matches)[1] if matches else None


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_down_the_layers(package: str) -> None:
    layers = [line.split() for line in LAYERS[package].split("\n") if line.strip()]
    prefix = f"impasto_plugins.{package}."
    wrong = []
    for path in (PLUGINS / package).rglob("*.py"):
        name = ".".join(path.relative_to(PLUGINS / package).with_suffix("").parts)
        if path.name == "__init__.py":  # its exports are those of its modules
            continue
        own = layer_of(name, layers)
        assert own is not None, f"{name_of(path)} has no layer"
        for module in imported(path):
            inner = module.removeprefix(prefix)
            other = layer_of(inner, layers) if inner != module else None
            same_entry = inner.partition(".")[0] == name.partition(".")[0]
            if other is not None and (other > own or (other == own and not same_entry)):
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_state_is_below_the_gateway_and_batches() -> None:
    above = ("impasto_plugins.gateway", "impasto_plugins.batch")
    modules = [(path, module) for path in python_files("plugins/impasto_plugins/state") for module in imported(path)]
    assert [f"{name_of(path)} imports {module}" for path, module in modules if module.startswith(above)] == []


def test_sql_stands_in_the_stores_alone() -> None:
    users = {path.parent.relative_to(PLUGINS) for path in python_files("plugins") if "sqlite3" in imported(path)}
    assert {str(folder) for folder in users} == {"state/sqlite"}


def test_plugins_use_the_core_through_its_public_modules() -> None:
    inner = {path.stem for path in (ROOT / "core/impasto").glob("*.py")} - {*PUBLIC, "__init__"}
    examples = [path for path in (ROOT / "examples").glob("*/src/**/*.py") if path.is_file()]
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in (*python_files("plugins"), *examples)
        for module in imported(path)
        if module.startswith("impasto.") and module.split(".")[1] in inner
    ]
    assert wrong == []


def test_the_core_does_without_its_helpers_for_authors() -> None:
    helpers = ROOT / "core/impasto/dialects"
    core = [path for path in (ROOT / "core/impasto").rglob("*.py") if helpers not in path.parents]
    users = {name_of(path) for path in core for module in imported(path) if module.startswith("impasto.dialects")}
    assert {name for name in users if not name.startswith("core/impasto/testing/")} == set()


def test_two_packages_stand_at_the_top_level() -> None:
    top = {path.parent.name for folder in ("core", "plugins") for path in (ROOT / folder).glob("*/__init__.py")}
    assert top == {"impasto", "impasto_plugins"}
