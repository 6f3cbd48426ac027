"""`impasto model3d`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import calling, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls import Calling


@click.command("model3d", short_help="Make 3D models from a picture.")
@model
@click.argument("image", metavar="IMAGE")
@parameter
@count
@calling
@click.pass_context
def command(
    ctx: click.Context, *, model: str, image: str, given: tuple[str, ...], n: int, **options: Unpack[Calling]
) -> None:
    """Makes 3D models, as GLB, of the thing in a picture, and prints the names of the files.

    Without -o the names are made of the model. Files are overwritten only with -f.

    \b
    impasto model3d stability/stable-fast-3d chair.png -p texture_resolution=2048 -o chair.glb
    """
    from .calls import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, images=(image,), given=given, **options)
