"""The `impasto` command. Its commands are plugins: entry points of `impasto.commands`, each a click.Command."""

from __future__ import annotations

import errno
import os

import click

from impasto import ImpastoError, Registry, __version__
from impasto.ext import COMMANDS, OWN, VARIABLE


class Commands(click.Group):
    """Lists commands from metadata, and loads the one that is run. A broken one breaks only itself."""

    registry = Registry()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self.registry.names(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.registry.names(COMMANDS):
            return None
        return self.registry.load(COMMANDS, cmd_name, click.Command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Another distribution's command may take seconds to import, so here only its owner is named.
        declared = [each for each in self.registry.declared(COMMANDS) if each.allowed]
        width = formatter.width - 6 - max((len(each.name) for each in declared), default=0)
        rows = {each.name: f"(of {each.distribution} {each.version})" for each in declared}
        for each in declared:
            if each.distribution == OWN:
                rows[each.name] = self._short_help(ctx, each.name, width)
        with formatter.section("Commands"):
            formatter.write_dl(list(rows.items()))

    def _short_help(self, ctx: click.Context, name: str, width: int) -> str:
        try:
            command = self.get_command(ctx, name)
        except ImpastoError:
            return "(does not load: see impasto doctor)"
        return command.get_short_help_str(width) if command is not None else ""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ImpastoError as error:
            from .failure import fail  # only on the way to an error

            fail(ctx, error)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends it in silence: whoever read has left
            place = f"{error.filename}: " if error.filename is not None else ""
            raise click.ClickException(f"{place}{error.strerror or error}") from None
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)


def _allow(ctx: click.Context, option: click.Parameter, names: str | None) -> None:
    if names is not None:
        os.environ[VARIABLE] = names  # for every registry, and for the processes that a command starts


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="impasto %(version)s")
@click.option(
    "--plugins",
    metavar="NAMES",
    expose_value=False,
    is_eager=True,
    callback=_allow,
    help=f"The distributions whose plugins may be used, as {VARIABLE}: names with commas, none or all.",
)
def main() -> None:
    """Makes and edits pictures, sounds and 3D models with any installed provider's models.

    Start with `impasto try`: it needs no key.
    """
