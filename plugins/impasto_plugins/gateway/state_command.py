"""``impasto state``: the store of a gateway's or a client's records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from impasto_plugins.cli.options import registry_of
from impasto_plugins.cli.terminal.output import echo, protect_output

if TYPE_CHECKING:
    from impasto.ext import StateStore

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., object])

_LABELS = {
    "budgets": "amounts of budgets",
    "file": "files",
    "batch": "batches",
    "bucket": "buckets",
    "sweep": "times of sweeps",
    "uploads": "replicas with images to upload",
}


def _store_options(command: Command) -> Command:
    command = click.option("--config", metavar="FILE", help="A gateway's configuration, which has the address.")(
        command
    )
    return click.argument("address", required=False)(command)


@click.group("state", short_help="Check or migrate a store of records.")
def command() -> None:
    """Check or migrate a store of records: calls, budgets, files and batches of a gateway or of clients.

    ADDRESS is the state of a client, or general_settings.state or data_dir of a gateway: "machine", a folder, or the
    URL of a store. --config FILE reads it from a gateway's configuration.
    """


@command.command("check", short_help="Report the schema, the records, and what is wrong.")
@_store_options
@click.pass_context
def check(ctx: click.Context, *, address: str | None, config: str | None) -> None:
    """Report the schema, the records, and what is wrong. Nothing is changed.

    Exits with 1 if something is wrong.
    """
    from datetime import UTC, datetime

    report = _run(ctx, address, config, lambda state: state.check())
    problems = [*report.problems]
    if not problems and report.version < report.newest:
        problems = [f"the schema has version {report.version}; `impasto state migrate` brings it to {report.newest}"]
    if report.version:
        echo(f"schema {report.version}")
    for kind, count in report.counts.items():
        echo(f"{count:>9,} {_LABELS.get(kind, kind)}")
    if report.oldest is not None:
        echo(f"the oldest record is of {datetime.fromtimestamp(report.oldest, UTC):%Y-%m-%d %H:%M} UTC")
    for problem in problems:
        echo(f"wrong: {problem}", err=True)
    ctx.exit(1 if problems else 0)


@command.command("migrate", short_help="Bring the schema up to this version.")
@_store_options
@click.pass_context
def migrate(ctx: click.Context, *, address: str | None, config: str | None) -> None:
    """Bring the schema of a store up to this version of impasto, and create what is missing.

    Running it again changes nothing. Programs of earlier versions refuse the store afterwards.
    """
    for step in _run(ctx, address, config, lambda state: state.migrate()) or ["the schema is up to date"]:
        echo(step)


@command.command("pair", short_help="Let a database and a bucket belong together from now on.")
@click.option("--config", required=True, metavar="FILE", help="The gateway's configuration, which has both.")
def pair(*, config: str) -> None:
    """Let general_settings.state and files.s3 belong together from now on, whatever they belonged to.

    `impasto serve` does it with a new pair. Use this for a new database beside a bucket that is in use, or the other
    way round: repeated requests of the last 24 hours may then be charged again, and their images be missing.
    """
    import asyncio

    from impasto.ext import StateError

    from .bucket import pair_with_state
    from .config.loader import load
    from .storage.contents import StoreError

    protect_output()
    try:
        asyncio.run(pair_with_state(load(config)))
    except (StateError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    echo("the database and the bucket belong together")


def _run(ctx: click.Context, address: str | None, config: str | None, work: Callable[[StateStore], Awaitable[T]]) -> T:
    import asyncio

    from impasto.ext import StateError

    if (address is None) == (config is None):
        raise click.UsageError("give either ADDRESS or --config FILE")
    protect_output()
    state = _store_of_config(config) if config is not None else _store_of_address(ctx, address or "")

    async def run() -> T:
        try:
            return await work(state)
        finally:
            await state.aclose()

    try:
        return asyncio.run(run())
    except StateError as error:
        raise click.ClickException(str(error)) from None


def _store_of_address(ctx: click.Context, address: str) -> StateStore:
    from impasto.ext import machine_folder, state_of

    return state_of(str(machine_folder()) if address == "machine" else address, registry_of(ctx), setting="ADDRESS")


def _store_of_config(path: str) -> StateStore:
    from .config.loader import load
    from .state import state_store

    return state_store(load(path))
