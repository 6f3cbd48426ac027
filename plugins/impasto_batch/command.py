"""``impasto batch``: run a manifest, and look at what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from impasto_cli.options import as_json

_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.group("batch", short_help="Make many pictures from a manifest; resumable, never paid twice.")
def command() -> None:
    """Makes the pictures of a manifest, and goes on where it was stopped."""


@command.command("run", short_help="Run a manifest, or go on with it.")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where pictures go.")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=64, show_default=True, help="At once, at most.")
@click.option("--emulator", is_flag=True, help="Call the built-in emulator: no key, no cost.")
@click.option("--api-base", metavar="URL", help="Another address of the provider.")
@as_json
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Makes the pictures of MANIFEST, a JSONL file."""
    from .conduct import conduct  # the client: only for those who call

    ctx.exit(conduct(**options))


@command.command("status", short_help="Tell where a batch stands, running or not.")
@_folder
@as_json
def status(folder: Path, as_json: bool) -> None:
    """Tells where the batch in DIR stands."""
    from .folder import Layout
    from .status import read_status
    from .telling import in_words

    found = read_status(Layout(folder))
    if as_json:
        import json

        import attrs

        click.echo(json.dumps(attrs.asdict(found), indent=2))
    else:
        click.echo(in_words(found))
