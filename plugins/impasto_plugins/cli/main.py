"""The `impasto` command. Its commands are plugins: entry points of `impasto.commands`, each a click.Command."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import click

from impasto import ConfigError, ImpastoError, Registry, __version__
from impasto.ext import COMMANDS, VARIABLE, AllowList

from .declarations import declared
from .entry import INTERRUPTED
from .terminal.boundary import run


class Commands(click.Group):
    """A group that lists commands from metadata and imports the one that runs. A broken command breaks only itself."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._forget_registry()

    def _forget_registry(self) -> None:
        self._installed = Registry()
        self._registry: Registry | None = None
        self._wrong_setting: ConfigError | None = None

    @property
    def registry(self) -> Registry:
        """The installed commands; only impasto's own if the allow-list is invalid."""
        if self._registry is None:
            self._registry = self._installed
            try:
                _ = self._registry.allowed
            except ConfigError as error:
                self._registry, self._wrong_setting = Registry(allow="none"), error
        return self._registry

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; unless ``standalone_mode`` is off, end the process."""
        self._forget_registry()  # another run in this process may find others
        command = partial(super().main, *args, **extra)
        return run(command) if extra.get("standalone_mode", True) else command()

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the words of a command line, which for ``--help`` and ``--version`` is all. Click would exit with 1."""
        try:
            return super().make_context(info_name, args, parent, obj=self._installed, **extra)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            raise SystemExit(INTERRUPTED) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the installed commands."""
        return self.registry.names(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. Raises RegistryError."""
        if cmd_name not in self.registry.names(COMMANDS):
            return None
        return self.registry.load(COMMANDS, cmd_name, click.Command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; suggest similar names for an unknown one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from impasto.ext import closest, printable  # only on the way to an error

            near = closest(name, self.registry.names(COMMANDS))
            hint = f"Did you mean {' or '.join(near)}?" if near else "`impasto --help` lists the commands."
            ctx.fail(f"No such command {printable(name)!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, and the distributions that are skipped."""
        # Another distribution's command may take seconds to import, so here only its owner is named.
        allowed = [each for each in declared(self.registry, COMMANDS) if each.allowed]
        rows = {each.name: f"(from {each.distribution} {each.version})" for each in allowed}
        for each in allowed:
            if each.is_own:
                rows[each.name] = self._short_help(ctx, each.name)
        with formatter.section("Commands"):
            formatter.write_dl(list(rows.items()))
        skipped = [(each.path, f"is skipped: {each.reason}") for each in self.registry.scan.damaged if each.has_plugins]
        if self._wrong_setting is not None:
            skipped.append((VARIABLE, f"is invalid: {self._wrong_setting.message}"))
        if skipped:
            with formatter.section("Broken (see impasto doctor)"):
                for subject, reason in skipped:
                    formatter.write_text(f"{subject} {reason}")

    def _short_help(self, ctx: click.Context, name: str) -> str:
        try:
            command = self.get_command(ctx, name)
        except ImpastoError:
            return "(does not load: see impasto doctor)"
        return command.get_short_help_str(_NEVER_CUT) if command is not None else ""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; report the errors of impasto and signals with their exit codes."""
        try:
            return super().invoke(ctx)
        except ImpastoError as error:
            from .terminal.failure import fail  # only on the way to an error

            fail(ctx, error)
        except KeyboardInterrupt as error:
            from .terminal.failure import end_interrupted

            end_interrupted(ctx, error)


_NEVER_CUT = 10_000


def _allow(ctx: click.Context, option: click.Parameter, names: str | None) -> None:
    if names is not None:
        try:
            AllowList.parse(names)
        except ConfigError as error:
            raise click.BadParameter(error.message) from None
        os.environ[VARIABLE] = names  # for every registry, and for the processes that a command starts


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="impasto %(version)s")
@click.option(
    "--plugins",
    metavar="NAMES",
    expose_value=False,
    is_eager=True,
    callback=_allow,
    help=f"The distributions whose plugins may be used: names separated by commas, none or all. Overrides {VARIABLE}.",
)
def main() -> None:
    """Generate and edit images, sounds and 3D models with the models of any installed provider.

    Start with `impasto try`: it needs no key.
    """
