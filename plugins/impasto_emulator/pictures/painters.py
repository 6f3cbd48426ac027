"""Which painter draws which operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from PIL import Image

from impasto import Operation

from . import edits
from .task import Task

Painter = Callable[[Task], Image.Image]

PAINTERS: Mapping[str, Painter] = {
    "/v2beta/stable-image/generate/ultra": edits.generate,
    "/v2beta/stable-image/generate/core": partial(edits.generate, side=1536),
    "/v2beta/stable-image/generate/sd3": edits.generate,
    "/v2beta/stable-image/upscale/fast": edits.upscale_fast,
    "/v2beta/stable-image/upscale/conservative": partial(edits.upscale, side=3112),
    "/v2beta/stable-image/upscale/creative": partial(edits.upscale, side=3152),
    "/v2beta/stable-image/edit/erase": edits.erase,
    "/v2beta/stable-image/edit/inpaint": edits.inpaint,
    "/v2beta/stable-image/edit/outpaint": edits.outpaint,
    "/v2beta/stable-image/edit/search-and-replace": edits.search_and_replace,
    "/v2beta/stable-image/edit/search-and-recolor": edits.search_and_recolor,
    "/v2beta/stable-image/edit/remove-background": edits.remove_background,
    "/v2beta/stable-image/edit/replace-background-and-relight": edits.relight,
    "/v2beta/stable-image/control/sketch": edits.sketch,
    "/v2beta/stable-image/control/structure": edits.structure,
    "/v2beta/stable-image/control/style": edits.style_guide,
    "/v2beta/stable-image/control/style-transfer": edits.style_transfer,
}
"""By the operation's path. One that is missing here is drawn all the same, by ``edits.restyle``."""


def painter_of(operation: Operation) -> Painter:
    """The operation's own painter, or the one for all others."""
    return PAINTERS.get(operation.target, edits.restyle)
