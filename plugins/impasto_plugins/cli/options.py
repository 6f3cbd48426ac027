"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from impasto import Registry

F = TypeVar("F", bound=Callable[..., object])

JSON = "impasto.json"
"""Key of the command's context that is true with --json; errors are printed as JSON then."""


def number_type(
    kind: type[int | float] = float, minimum: float | None = None, maximum: float = inf
) -> Callable[[str], float]:
    """Return the type of an option for a number; click's own messages show types and comparisons of Python."""

    def number(text: str) -> float:
        try:
            value = kind(text)
            if minimum is None or minimum <= value <= maximum:
                return value
        except ValueError:
            pass
        words = "a whole number" if kind is int else "a number"
        if minimum is not None:
            words += f" from {minimum} to {maximum:,}" if maximum < inf else f" of {minimum} or more"
        raise click.BadParameter(f"must be {words}, not {text!r}")

    return number


def registry_of(ctx: click.Context) -> Registry:
    """Return the registry that found the command: metadata is read once in a process."""
    from impasto import Registry

    return ctx.find_object(Registry) or Registry()


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON] = value
    return value


as_json = click.option("--json", "as_json", is_flag=True, callback=_remember, is_eager=True, help="Print only JSON.")
parameter = click.option(
    "-p",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a field; repeat it for a list, GROUP.NAME for a nested one. @PATH is a file, @- standard input.",
)
count = click.option("-n", "n", type=number_type(int), default=1, show_default=True, help="Number of outputs, 1 to 10.")
model = click.argument("model")


def plugin_options(command: F) -> F:
    """Add the options for plugins between a call and its provider."""
    return _all(
        command,
        click.option("--transport", metavar="NAME", help="Name of the transport.  [default: the provider's]"),
        click.option("--middleware", multiple=True, metavar="NAME", help="Add a middleware by name; repeatable."),
    )


def connection_options(command: F) -> F:
    """Add the options of every command that connects to a provider."""
    return _all(
        command,
        click.option("--timeout", type=number_type(), help="Seconds for the whole call.  [default: 300]"),
        click.option("--api-base", metavar="URL", help="Another base URL of the provider."),
        click.option("--emulator", is_flag=True, help="Use the built-in emulator: no key, no cost."),
        plugin_options,
    )


def call_options(command: F) -> F:
    """Add the options of every command that calls a model."""
    return _all(
        command,
        click.option(
            "-o",
            "out",
            callback=_file,
            metavar="FILE",
            help="File to save to, numbered if -n is above 1; - is stdout.",
        ),
        click.option("-f", "--force", is_flag=True, help="Overwrite FILE if it exists."),
        connection_options,
        as_json,
    )


def _file(ctx: click.Context, option: click.Parameter, text: str | None) -> Path | None:
    """Return the path of a file as text: a Path would drop the slash that marks a folder."""
    if text is None:
        return None
    if not text or text.endswith("/"):
        raise click.BadParameter(f"{text!r} is not a file name; give one such as {text}image.png")
    return Path(text)


def _all(command: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
