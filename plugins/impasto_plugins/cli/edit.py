"""`impasto edit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import call_options, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls.call import CallCommandOptions


@click.command("edit", short_help="Edit, upscale or restyle images.")
@model
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--mask", metavar="FILE", help="A mask image: white areas are edited, black areas are kept.")
@click.option("--prompt", metavar="TEXT", help="A description of the result.")
@parameter
@count
@call_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: str,
    images: tuple[str, ...],
    mask: str | None,
    prompt: str | None,
    fields: tuple[str, ...],
    n: int,
    **options: Unpack[CallCommandOptions],
) -> None:
    """Edit images and print the names of the new files.

    IMAGEs are files and fill the model's image fields in their order; - reads one of them, or
    the text of --prompt, from standard input.

    The extension of FILE selects the format. Without -o a file is named after its model and seed. Files are
    overwritten only with -f.

    \b
    impasto edit stability/inpaint beach.png --mask sky.png --prompt "a red balloon"
    impasto edit stability/outpaint beach.png -p left=200 -p right=200
    """
    from .calls.call import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, prompt=prompt, images=images, mask=mask, fields=fields, **options)
