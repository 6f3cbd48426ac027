"""`impasto describe`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from .options import as_json, model, registry_of
from .terminal.output import columns, echo, protect_output

if TYPE_CHECKING:
    from impasto import Description


@click.command("describe", short_help="Show a model's fields, rules and price.")
@model
@as_json
@click.pass_context
def command(ctx: click.Context, model: str, as_json: bool) -> None:
    """Show the fields of a model with their meanings, limits and defaults, the rules between them, and its price."""
    from impasto.ext import describe

    protect_output()
    description = describe(model, registry_of(ctx).operation(model))
    if as_json:
        import json

        import attrs

        echo(json.dumps(attrs.asdict(description), indent=2))
    else:
        _print(description)


def _print(description: Description) -> None:
    echo(click.style(description.model, bold=True), nl=False)
    echo(f"  {description.title}")
    echo(f"served by {description.provider} as {description.operation}")
    echo(f"{description.price or 'price not known'}\n")
    names = [field.name + (" *" if field.required else "") for field in description.fields]
    column = min(30, max(map(len, names), default=0) + 2)
    echo("Fields (* required):")
    for name, field in zip(names, description.fields, strict=True):
        if len(name) > column - 2:
            echo(f"  {name}")
            name = ""
        documented = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = f"; default {documented}" if documented is not None else ""
        _print_wrapped(f"{field.description} [{field.takes}{default}]".lstrip(), f"  {name:{column}}")
    if description.rules or description.max_bytes:
        echo("\nRules:")
        for rule in description.rules:
            _print_wrapped(rule)
        if description.max_bytes:
            _print_wrapped(f"the whole request: at most {description.max_bytes:,} bytes")


def _print_wrapped(text: str, start: str = "  ") -> None:
    """Print a paragraph that begins with ``start`` and is indented as far. Names with hyphens stay whole."""
    width = max(min(columns(), 80) - 2, 50)
    indent = " " * len(start)
    echo(textwrap.fill(text, width, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False))
