"""`impasto edit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import calling, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls import Calling


@click.command("edit", short_help="Edit, upscale or restyle pictures.")
@model
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--mask", metavar="FILE", help="White is edited, black kept.")
@click.option("--prompt", metavar="TEXT", help="What to paint.")
@parameter
@count
@calling
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: str,
    images: tuple[str, ...],
    mask: str | None,
    prompt: str | None,
    given: tuple[str, ...],
    n: int,
    **options: Unpack[Calling],
) -> None:
    """Edits pictures and prints the names of the new files. IMAGEs fill the model's picture fields in their order.

    The ending of FILE asks for the format. Without -o the names are made of model and seed. Files are
    overwritten only with -f.

    \b
    impasto edit stability/inpaint beach.png --mask sky.png --prompt "a red balloon"
    impasto edit stability/outpaint beach.png -p left=200 -p right=200
    """
    from .calls import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, prompt=prompt, images=images, mask=mask, given=given, **options)
