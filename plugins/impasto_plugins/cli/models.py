"""`impasto models`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .options import as_json

if TYPE_CHECKING:
    from impasto import Operation, Registry

_GROUPS = ("generate", "edit", "audio", "model3d", "broken")


@click.command("models", short_help="List the installed models.")
@as_json
def command(as_json: bool) -> None:
    """Lists the installed models and what a call costs, by the command that calls them.

    Several names on a line are one model.
    """
    from impasto import Registry
    from impasto.ext import OPERATIONS

    registry = Registry()
    names: dict[str, list[str]] = {}
    for each in (each for each in registry.declared(OPERATIONS) if each.allowed):
        names.setdefault(each.value, []).append(each.name)
    with _uncollected():
        rows = sorted((_row(registry, alike) for alike in names.values()), key=_place)
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
    else:
        _print(rows)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which looks at every imported class again and again, and finds nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _row(registry: Registry, names: list[str]) -> dict[str, object]:
    """One model. A broken one is listed with its reason."""
    from impasto.ext import PLUGIN_FAULTS

    names = sorted(dict.fromkeys(names), key=len)
    row: dict[str, object] = {"name": names[0], "aliases": names[1:], "provider": names[0].partition("/")[0]}
    try:
        return row | _told(registry.operation(names[0]))
    except PLUGIN_FAULTS as error:  # a plugin's price or fields may raise anything
        return row | {"group": "broken", "error": str(error) or type(error).__name__}


def _told(operation: Operation) -> dict[str, object]:
    """What a model says of itself."""
    cost = operation.price.cost if operation.price is not None else None
    return {
        "group": group_of(operation),
        "title": operation.title,
        "usd": cost.usd if cost is not None else None,
        "credits": cost.credits if cost is not None else None,
        "price": str(operation.price) if operation.price is not None else None,
    }


def _place(row: dict[str, object]) -> tuple[str, int, str]:
    return str(row["provider"]), _GROUPS.index(str(row["group"])), str(row["name"])


def group_of(operation: Operation) -> str:
    """The command that calls it: of those for pictures edit, where one is required."""
    if operation.makes != "image":
        return "audio" if operation.makes == "audio" else "model3d"
    needs_picture = any(operation.fields[name].required for name in operation.roles.get("image", ()))
    return "edit" if needs_picture else "generate"


def _print(rows: list[dict[str, object]]) -> None:
    for provider, group in dict.fromkeys((row["provider"], row["group"]) for row in rows):
        click.secho(f"{provider}, impasto {group}" if group != "broken" else f"{provider}, broken", bold=True)
        alike = [row for row in rows if (row["provider"], row["group"]) == (provider, group)]
        width = max(len(str(row["name"])) for row in alike)
        for row in alike:
            usd = row.get("usd")
            varies = "     varies" if row.get("price") is not None else "      ? USD"
            price = f"{usd:7.3f} USD" if isinstance(usd, float) else varies
            click.echo(f"  {row['name']:<{width}}  " + str(row.get("error") or f"{price}  {row['title']}"))
            for alias in row["aliases"] if isinstance(row["aliases"], list) else ():
                click.secho(f"    also {alias}", dim=True)
