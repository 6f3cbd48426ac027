"""Nothing is offered without a test that uses it and without words that tell of it.

Each check takes what is offered as an argument, and is shown to find what was added to it without a test, or a word.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs
import click
import pytest
from docs.generate.commands import every as commands
from docs.generate.errors import every as errors
from docs.generate.settings import SECTIONS, keys

import impasto
from impasto import Registry
from impasto.hooks import Specs, hookspec
from impasto.options import Settings
from impasto.registry import EXPORTS, OPERATIONS
from impasto_plugins.gateway.routes import ROUTES, HTTPRoute
from tests.architecture.exercised import Use, uses
from tests.architecture.sources import POINTS, ROOT
from tests.conformance import test_bedrock, test_stability
from tests.docs.pages import PAGES

GATEWAY = (ROOT / "docs/gateway.md").read_text("utf-8")
TIMES = {"timeout", "connect_timeout", "poll_interval", "keeps", "retry_after", "max_wait", "base", "cap"}
"""Names of times that do not say their unit."""

Surface = Mapping[str, object]
Commands = Iterable[tuple[str, click.Command]]
Sections = Mapping[str, type[attrs.AttrsInstance]]


def names(found: Iterable[Use]) -> frozenset[str]:
    return frozenset[str]().union(*(each.names for each in found))


def words(found: Iterable[Use]) -> frozenset[str]:
    return frozenset[str]().union(*(each.words for each in found))


def public(thing: object) -> Iterator[tuple[str, object]]:
    """The methods and properties of a class that are its own."""
    if inspect.isclass(thing):
        kinds = (property, classmethod, staticmethod)
        for name, value in vars(thing).items():
            if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds)):
                yield name, value


def every(surface: Surface) -> Iterator[tuple[str, str, object]]:
    """Each public thing: its whole name, its own, and what it is."""
    for name, thing in surface.items():
        yield name, name, thing
        yield from ((f"{name}.{member}", member, value) for member, value in public(thing))


# What is used by no test.


def unused_hooks(specs: type) -> list[str]:
    marked = frozenset[str]().union(*(each.hooks for each in uses()))
    return [name for name in dir(specs) if not name.startswith("_") and name not in marked]


def unused_names(surface: Surface) -> list[str]:
    used = names(uses()) | {name for name in dir(Specs) if not name.startswith("_")}
    return [whole for whole, name, _ in every(surface) if name not in used]


def unused_settings(settings: type) -> list[str]:
    return [name for name in settings.__annotations__ if name not in names(uses())]


def unused_models(offered: Iterable[str]) -> list[str]:
    """Those of an address that no suite of other people's plugins is run against."""
    suites = [suite for module in (test_bedrock, test_stability) for suite in vars(module).values()]
    registry = Registry()
    models = [model for suite in suites if isinstance(model := getattr(suite, "model", None), str) and model]
    targets = {registry.operation(model).target for model in models}
    return [name for name in offered if name not in MODELS or registry.operation(name).target not in targets]


def unused_options(offered: Commands) -> list[str]:
    """An option that several commands share needs one of them."""
    used: dict[tuple[object, ...], bool] = {}
    for path, command in offered:
        calling = [each for each in uses() if path.split()[-1] in each.words | each.names]
        text = words(calling)
        used.setdefault((path,), False)
        used[path,] |= bool(calling)
        for option in (each for each in command.params if isinstance(each, click.Option)):
            spelled = (*option.opts, *option.secondary_opts)
            shared = (*spelled, option.help)
            used[shared] = used.get(shared, False) or any(name in text for name in spelled)
    return [" ".join(map(str, offered)) for offered, is_used in used.items() if not is_used]


def unused_keys(sections: Sections) -> list[str]:
    ours = [each for each in uses() if "gateway" in each.path.parts]
    used = names(ours) | words(ours)
    return [
        f"{s}.{name}"
        for s, record in sections.items()
        for name in (key.name for key in keys(record))
        if name not in used
    ]


def unused_routes(routes: Iterable[HTTPRoute]) -> list[str]:
    texts = [text for each in uses() if "gateway" in each.path.parts for text in each.texts]
    return [each.path for each in routes if not any(each.path.removeprefix("/v1") in text for text in texts)]


# What no words tell of.


def untold_names(surface: Surface) -> list[str]:
    found = []
    for whole, _, thing in every(surface):
        docstring = thing.__dict__.get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
        if (inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, property)) and not docstring:
            found.append(whole)
    return found


def untold_errors(surface: Surface) -> list[str]:
    """Those that raise an error of impasto's themselves and do not say so."""
    kinds = {kind.__name__ for kind in errors()}
    return [
        whole
        for whole, _, thing in every(surface)
        if inspect.isfunction(thing)
        and _raised(thing) & kinds
        and not re.search(r"\bRaises?\b", inspect.getdoc(thing) or "")
    ]


def _raised(function: Callable[..., object]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call))
    return {
        call.id if isinstance(call, ast.Name) else call.attr
        for call in calls
        if isinstance(call, ast.Name | ast.Attribute)
    }


def untold_units(surface: Surface) -> list[str]:
    """Classes with a time, in what they hold or take, whose words have no seconds."""
    found = []
    for name, thing in surface.items():
        taken = {each for _, value in ((name, thing), *public(thing)) for each in _taken(value)}
        text = " ".join(inspect.getdoc(value) or "" for value in (thing, *(value for _, value in public(thing))))
        if taken & TIMES and "second" not in text:
            found.append(name)
    return found


def _taken(thing: object) -> Iterable[str]:
    try:
        return inspect.signature(thing).parameters if callable(thing) else ()
    except ValueError:
        return ()


def untold_models(models: Iterable[str]) -> list[str]:
    pages = "".join(text for page, text in PAGES.items() if page.startswith("docs/models/"))
    return [name for name in models if f"`{name}`" not in pages]


def untold_options(offered: Commands) -> list[str]:
    found = [path for path, command in offered if not command.help]
    return found + [
        f"{path} {each.opts[0]}"
        for path, command in offered
        for each in command.params
        if isinstance(each, click.Option) and not each.help
    ]


def untold_keys(sections: Sections) -> list[str]:
    documented = set(re.findall(r"`(?:[a-z_0-9]+\.)?([a-z_0-9]+)`", GATEWAY))
    return [
        f"{s}.{name}"
        for s, record in sections.items()
        for name in (key.name for key in keys(record))
        if name not in documented
    ]


def untold_routes(routes: Iterable[HTTPRoute]) -> list[str]:
    table = GATEWAY.partition("## Paths")[2].partition("\n## ")[0]
    return [
        f"{method} {each.path}"
        for each in routes
        for method in each.methods
        if not re.search(rf"`{method} .*{re.escape(each.path.removeprefix('/v1/'))}", table)
    ]


class Dreamt(Specs):
    """The hooks with one more."""

    @hookspec
    def dream(self) -> None: ...


class Dreams(Settings):
    """The settings with one more."""

    dream_depth: int


class Dreamer:
    def dream(self, timeout: float) -> None:
        raise impasto.NotSent("no")


@click.command("dream")
@click.option("--dream-depth")
def dream(dream_depth: str) -> None: ...


@attrs.frozen
class Dream:
    dream_depth: int


MODELS = POINTS[OPERATIONS]
SURFACE = {name: getattr(impasto, name) for name in (*vars(impasto)["__all__"], *POINTS[EXPORTS])}
CHECKS: list[tuple[Callable[..., list[str]], object, object, str]] = [
    (unused_hooks, Specs, Dreamt, "dream"),
    (unused_names, SURFACE, {"Dreamer": Dreamer}, "Dreamer.dream"),
    (unused_models, MODELS, ["acme/dream"], "acme/dream"),
    (unused_settings, Settings, Dreams, "dream_depth"),
    (unused_options, [*commands()], [("impasto dream", dream)], "--dream-depth None"),
    (unused_keys, SECTIONS, {"dreams": Dream}, "dreams.dream_depth"),
    (unused_routes, ROUTES.values(), [HTTPRoute("/v1/dreams", {})], "/v1/dreams"),
    (untold_models, MODELS, ["acme/dream"], "acme/dream"),
    (untold_names, SURFACE, {"Dreamer": Dreamer}, "Dreamer.dream"),
    (untold_errors, SURFACE, {"Dreamer": Dreamer}, "Dreamer.dream"),
    (untold_units, SURFACE, {"Dreamer": Dreamer}, "Dreamer"),
    (untold_options, [*commands()], [("impasto dream", dream)], "impasto dream --dream-depth"),
    (untold_keys, SECTIONS, {"dreams": Dream}, "dreams.dream_depth"),
    (untold_routes, ROUTES.values(), [HTTPRoute("/v1/dreams", {"GET": None})], "GET /v1/dreams"),  # type: ignore[dict-item]  # nobody calls it
]


@pytest.mark.parametrize(
    ("check", "offered", "more", "found"), CHECKS, ids=lambda value: getattr(value, "__name__", "")
)
def test_nothing_is_missing_and_what_is_added_would_be_found(
    check: Callable[..., list[str]], offered: object, more: object, found: str
) -> None:
    assert check(offered) == []
    assert found in check(more)
