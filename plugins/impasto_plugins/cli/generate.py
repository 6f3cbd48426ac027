"""`impasto generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import calling, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls import Calling


@click.command("generate", short_help="Make pictures from a prompt.")
@model
@click.argument("prompt", nargs=-1, required=True)
@parameter
@count
@calling
@click.pass_context
def command(
    ctx: click.Context, model: str, prompt: tuple[str, ...], given: tuple[str, ...], n: int, **options: Unpack[Calling]
) -> None:
    """Makes pictures from a prompt, whose words are joined, and prints the names of the files.

    The ending of FILE asks for the format. Without -o the names are made of model and seed. Files are
    overwritten only with -f.

    \b
    impasto generate stability/sd3.5-large a lighthouse at dusk -p aspect_ratio=16:9
    """
    from .calls import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, prompt=" ".join(prompt), given=given, **options)
