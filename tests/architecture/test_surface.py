"""What users and plugin authors rely on: names, entry points, hooks, errors."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator
from typing import get_args

import pytest

import impasto
import impasto.ext
from impasto import Operation, Provider
from impasto.errors import ImpastoError
from impasto.fields import Role
from impasto.hooks import Specs
from impasto.registry import COMMANDS, EXPORTS, GROUPS, MIDDLEWARE, OPERATIONS, PROVIDERS, TRANSPORTS
from tests.architecture.exercised import uses
from tests.architecture.sources import POINTS, PROJECT, ROOT

SD3 = ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sd3.5-flash", "sd3-large", "sd3-large-turbo", "sd3-medium")
NAMES = {
    "generate/sd3": ("sd3", *SD3),
    "generate/ultra": ("stable-image-ultra",),
    "generate/core": ("stable-image-core",),
    "edit/inpaint": ("stable-image-inpaint-v1:0", "inpaint"),
    "edit/outpaint": ("stable-outpaint-v1:0", "outpaint"),
    "edit/erase": ("stable-image-erase-object-v1:0", "erase"),
    "edit/search-and-replace": ("stable-image-search-replace-v1:0", "search-and-replace"),
    "edit/search-and-recolor": ("stable-image-search-recolor-v1:0", "search-and-recolor"),
    "edit/remove-background": ("stable-image-remove-background-v1:0", "remove-background"),
    "edit/replace-background-and-relight": ("replace-background-and-relight",),
    "upscale/conservative": ("stable-conservative-upscale-v1:0", "upscale-conservative"),
    "upscale/creative": ("stable-creative-upscale-v1:0", "upscale-creative"),
    "upscale/fast": ("stable-fast-upscale-v1:0", "upscale-fast"),
    "control/sketch": ("stable-image-control-sketch-v1:0", "control-sketch"),
    "control/structure": ("stable-image-control-structure-v1:0", "control-structure"),
    "control/style": ("stable-image-style-guide-v1:0", "style-guide"),
    "control/style-transfer": ("stable-style-transfer-v1:0", "style-transfer"),
}


def declared() -> Iterator[tuple[str, str, str]]:
    for group in GROUPS:
        for name, value in POINTS.get(group, {}).items():
            yield group, name, value


def loaded(value: str) -> object:
    module, _, attribute = value.partition(":")
    return getattr(importlib.import_module(module), attribute)


def test_the_promised_model_names_lead_to_their_operations() -> None:
    names = POINTS[OPERATIONS]
    for target, aliases in NAMES.items():
        for alias in aliases:
            operation = loaded(names[f"stability/{alias}"])
            assert isinstance(operation, Operation)
            assert operation.target == f"/v2beta/stable-image/{target}"
            assert operation.constants == ({"model": alias} if alias in SD3 else {})


@pytest.mark.parametrize(
    ("group", "name", "value"), list(declared()), ids=lambda v: v if "/" in v or ":" not in v else ""
)
def test_every_entry_point_is_what_its_group_says(group: str, name: str, value: str) -> None:
    plugin = loaded(value)
    match group:
        case "impasto.operations":
            assert isinstance(plugin, Operation)
            assert name.partition("/")[0] == plugin.provider.name
            assert plugin.id in POINTS[OPERATIONS], "its own id is one of the names"
        case "impasto.providers":
            assert isinstance(plugin, Provider)
            assert plugin.name == name
        case "impasto.transports":
            assert isinstance(plugin, type)
            assert all(callable(getattr(plugin, method)) for method in ("open", "aclose", "send"))
        case "impasto.middleware":
            assert callable(getattr(plugin, "middleware", None))
        case "impasto.emulators":
            assert name in POINTS[PROVIDERS]
            assert callable(plugin)
        case "impasto.inspectors":
            assert name in get_args(Role)
            assert callable(plugin)
        case "impasto.states":
            assert isinstance(plugin, type)
            assert all(hasattr(plugin, method) for method in ("open", "aclose", "now", "is_usable", "check", "migrate"))
        case "impasto.exports":
            assert getattr(impasto, name) is plugin
        case _:
            import click

            assert group == COMMANDS
            assert isinstance(plugin, click.Command)


def test_every_provider_and_transport_that_an_operation_needs_is_declared() -> None:
    operations = [loaded(value) for value in POINTS[OPERATIONS].values()]
    providers = {o.provider.name: o.provider.transport for o in operations if isinstance(o, Operation)}
    assert set(providers) <= set(POINTS[PROVIDERS])
    assert set(providers.values()) <= set(POINTS[TRANSPORTS])
    assert {"retry", "limit"} <= set(POINTS[MIDDLEWARE])


def test_the_installed_entry_points_are_the_declared_ones() -> None:
    for group in GROUPS:
        points = importlib.metadata.entry_points(group=group)
        ours = {point.name: point.value for point in points if point.dist and point.dist.name == "impasto"}
        assert ours == POINTS.get(group, {}), "run pip install -e . again"


def test_the_version_stands_once() -> None:
    assert impasto.__version__ == PROJECT["version"]


def in_stub(module: str) -> set[tuple[str, str]]:
    """The names that a stub imports, with the modules that they are imported from."""
    return {
        (("impasto." if node.level else "") + (node.module or ""), alias.name)
        for node in ast.parse((ROOT / f"core/impasto/{module}.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_the_names_that_there_are() -> None:
    exports = {(value.partition(":")[0], name) for name, value in POINTS[EXPORTS].items()}
    assert in_stub("__init__") == {(home, name) for name, home in vars(impasto)["_HOME_OF"].items()} | exports
    assert in_stub("ext") == {(f"impasto.{home}", name) for name, home in vars(impasto.ext)["_HOME_OF"].items()}
    names = {*vars(impasto)["__all__"], *POINTS[EXPORTS]}
    for name in names:
        assert getattr(impasto, name) is not None
    assert names <= set(dir(impasto))
    with pytest.raises(AttributeError, match="module 'impasto' has no attribute 'Clinet'"):
        _ = impasto.Clinet  # type: ignore[attr-defined]  # what the test is about


HOOKS = [name for name in vars(Specs) if not name.startswith("_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_whole_example_that_fits(hook: str) -> None:
    spec = getattr(Specs, hook)
    text = inspect.getdoc(spec) or ""
    example = text[text.index("@hookimpl") :]
    [statement] = ast.parse(inspect.cleandoc(example)).body
    assert isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
    assert statement.name == hook
    taken = [argument.arg for argument in statement.args.args]
    assert set(taken) <= set(inspect.signature(spec).parameters)
    assert statement.returns is not None


def leaves(kind: type[ImpastoError]) -> list[str]:
    below = [child for child in kind.__subclasses__() if child.__module__ == "impasto.errors"]
    return [name for child in below for name in leaves(child)] or [kind.__name__]


RAISED = sorted(leaves(ImpastoError))


@pytest.mark.parametrize("name", RAISED)
def test_every_error_that_can_be_raised_is_met_in_a_test(name: str) -> None:
    assert [use.path for use in uses() if use.path.name != "test_errors.py" and name in use.names]
