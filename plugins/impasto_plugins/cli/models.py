"""`impasto models`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import click

from .declarations import PluginInfo, declared
from .options import as_json, registry_of
from .terminal.output import echo

if TYPE_CHECKING:
    from impasto import Operation, Registry

_OTHER = "not imported"
_RESOLVER = "resolver"
_GROUPS = ("generate", "edit", "audio", "model3d", "broken", _OTHER, _RESOLVER)


@click.command("models", short_help="List the installed models.")
@as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the installed models and the price of a call, by the command that calls them.

    Models of other distributions are listed by name, without importing them. `impasto describe MODEL` shows one of
    them. A name such as acme/* stands for every model that the distribution finds by its name.
    """
    from impasto.ext import OPERATIONS

    registry = registry_of(ctx)
    alike: dict[tuple[str, str, str], list[PluginInfo]] = {}
    for each in (each for each in declared(registry, OPERATIONS) if each.allowed):
        alike.setdefault((each.value, each.distribution, each.version), []).append(each)
    with _uncollected():
        rows = sorted((_row(registry, models) for models in alike.values()), key=_place)
    if as_json:
        import json

        echo(json.dumps(rows, indent=2))
    else:
        _print(rows)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector, which would scan every imported class repeatedly and free nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _row(registry: Registry, models: list[PluginInfo]) -> dict[str, object]:
    """Return one model's row. A broken one has its reason."""
    from impasto import ImpastoError
    from impasto.ext import is_pattern

    names = sorted({each.name for each in models}, key=lambda name: (len(name), name))
    first = models[0]
    row: dict[str, object] = {
        "name": names[0],
        "aliases": names[1:],
        "provider": names[0].partition("/")[0],
        "distribution": f"{first.distribution} {first.version}",
    }
    if first.refusal is not None:
        return row | {"group": "broken", "error": first.refusal}
    if is_pattern(names[0]):
        return row | {"group": _RESOLVER}
    if not first.is_own:  # somebody else's module may do anything when it is imported
        return row | {"group": _OTHER}
    try:
        return row | _operation_facts(registry.operation(names[0]))
    except ImpastoError as error:
        return row | {"group": "broken", "error": error.message}


def _operation_facts(operation: Operation) -> dict[str, object]:
    """Return the facts that a model declares."""
    cost = operation.flat_cost
    return {
        "group": group_of(operation),
        "title": operation.title,
        "usd": cost.usd if cost is not None else None,
        "credits": cost.credits if cost is not None else None,
        "price": operation.price_text,
    }


def _place(row: dict[str, object]) -> tuple[str, int, str]:
    return str(row["provider"]), _GROUPS.index(str(row["group"])), str(row["name"])


def group_of(operation: Operation) -> str:
    """Return the command that calls a model: edit, if the model requires an image."""
    if operation.output != "image":
        return "audio" if operation.output == "audio" else "model3d"
    needs_image = any(operation.fields[name].required for name in operation.roles.get("image", ()))
    return "edit" if needs_image else "generate"


def _print(rows: list[dict[str, object]]) -> None:
    lines = []
    for (provider, group), alike in groupby(rows, key=lambda row: (row["provider"], row["group"])):
        command = group if group in ("broken", _OTHER, _RESOLVER) else f"impasto {group}"
        lines.append(click.style(f"{provider}, {command}", bold=True))
        models = list(alike)
        width = max(len(str(row["name"])) for row in models)
        for row in models:
            lines.append(f"  {row['name']:<{width}}  {_about(row)}")
            aliases = row["aliases"] if isinstance(row["aliases"], list) else []
            lines += (click.style(f"    also {alias}", dim=True) for alias in aliases)
    echo("\n".join(lines))


def _about(row: dict[str, object]) -> str:
    if "error" in row:
        return str(row["error"])
    if row["group"] == _RESOLVER:
        return f"any model of {row['name']}, from {row['distribution']}"
    if row["group"] == _OTHER:
        return f"from {row['distribution']}"
    usd = row.get("usd")
    varies = "     varies" if row.get("price") is not None else "      ? USD"
    price = f"{usd:7.3f} USD" if isinstance(usd, float) else varies
    return f"{price}  {row['title']}"
