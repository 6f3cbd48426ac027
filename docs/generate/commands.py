"""The page about the command line, from click's own records."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from impasto_plugins.cli.declarations import declared
from impasto_plugins.cli.main import main

from .text import code, fenced, page, table

_EXITS = "Exit codes: 0 done, 1 something failed, 2 wrong usage or input, 130 interrupted."
_OURS = "impasto"


def pages() -> dict[str, str]:
    """Return the page."""
    parts = [part for path, command in every() for part in _command(path, command)]
    return {"reference/cli.md": page("# Command line", inspect.cleandoc(main.help or ""), _EXITS, *parts)}


def every() -> Iterator[tuple[str, click.Command]]:
    """Return each command that comes with impasto, with its whole name; a group's commands follow it."""
    names = {each.name for each in declared(main.registry, "impasto.commands") if each.distribution == _OURS}
    for name in sorted(names):
        command = main.get_command(click.Context(main), name)
        assert command is not None  # noqa: S101 - it is declared
        yield f"impasto {name}", command
        if isinstance(command, click.Group):
            yield from ((f"impasto {name} {below}", each) for below, each in sorted(command.commands.items()))


def _command(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"## {path}"
    yield fenced("text", f"{path} {' '.join(command.collect_usage_pieces(context))}")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        is_example = paragraph.startswith("\b\n")
        yield fenced("sh", paragraph.removeprefix("\b\n")) if is_example else paragraph
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield table(["option", "meaning", "default"], [_option(each, context) for each in options])


def _option(option: click.Option, context: click.Context) -> list[str]:
    metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
    names = ", ".join(code(f"{name}{metavar}") for name in (*option.opts, *option.secondary_opts))
    meaning, _, stated = (option.help or "").partition("  [default: ")
    default = code(option.get_default(context)) if option.show_default else stated.removesuffix("]")
    return [names, meaning, "**required**" if option.required else default]
