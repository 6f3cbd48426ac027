"""`impasto model3d`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import call_options, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls.call import CallCommandOptions


@click.command("model3d", short_help="Generate 3D models from an image.")
@model
@click.argument("image", metavar="IMAGE")
@parameter
@count
@call_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: str,
    image: str,
    fields: tuple[str, ...],
    n: int,
    **options: Unpack[CallCommandOptions],
) -> None:
    """Generate 3D models (GLB) of the object in an image and print the names of the files.

    IMAGE is a file; - reads it from standard input.

    Without -o the names consist of model and seed. Files are overwritten only with -f.

    \b
    impasto model3d stability/stable-fast-3d chair.png -p texture_resolution=2048 -o chair.glb
    """
    from .calls.call import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, images=(image,), fields=fields, **options)
