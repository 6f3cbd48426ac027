"""`impasto generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import call_options, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls.call import CallCommandOptions


@click.command("generate", short_help="Generate images from a prompt.")
@model
@click.argument("prompt", nargs=-1, required=True)
@parameter
@count
@call_options
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    prompt: tuple[str, ...],
    fields: tuple[str, ...],
    n: int,
    **options: Unpack[CallCommandOptions],
) -> None:
    """Generate images from a prompt, whose words are joined, and print the names of the files.

    A PROMPT of - reads it from standard input.

    The extension of FILE selects the format. Without -o a file is named after its model and seed. Files are
    overwritten only with -f.

    \b
    impasto generate stability/sd3.5-large a lighthouse at dusk -p aspect_ratio=16:9
    impasto generate stability/sd3.5-large - < prompt.txt
    """
    from .calls.call import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, prompt=" ".join(prompt), fields=fields, **options)
