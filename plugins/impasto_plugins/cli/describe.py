"""`impasto describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import as_json, model

if TYPE_CHECKING:
    from impasto import Description


@click.command("describe", short_help="Show a model's fields, rules and price.")
@model
@as_json
def command(model: str, as_json: bool) -> None:
    """Show the fields of a model with their limits and defaults, the rules between them, and its price."""
    from impasto import Registry
    from impasto.ext import describe

    description = describe(model, Registry().operation(model))
    if as_json:
        import json

        import attrs

        click.echo(json.dumps(attrs.asdict(description), indent=2))
    else:
        _print(description)


def _print(description: Description) -> None:
    click.secho(f"{description.model}", bold=True, nl=False)
    click.echo(f"  {description.title}")
    click.echo(f"{description.operation}, of {description.provider}")
    click.echo(f"{description.price or 'price not known'}\n")
    formatter = click.HelpFormatter()
    rows = []
    for field in description.fields:
        default = f"; default {field.default}" if field.default is not None else ""
        rows.append((field.name + (" *" if field.required else ""), f"{field.takes}{default}"))
    with formatter.section("Fields (* required)"):
        formatter.write_dl(rows)
    if description.rules or description.max_bytes:
        with formatter.section("Rules"):
            for rule in description.rules:
                formatter.write_text(rule)
            if description.max_bytes:
                formatter.write_text(f"the whole request: at most {description.max_bytes:,} bytes")
    click.echo(formatter.getvalue(), nl=False)
