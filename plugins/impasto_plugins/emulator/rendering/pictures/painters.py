"""The painter of each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from PIL import Image

from impasto import Operation

from . import edits
from .task import RenderTask

Painter = Callable[[RenderTask], Image.Image]

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


_ON_BEDROCK: Mapping[str, str] = {
    "stability.sd3-5-large-v1:0": "generate/sd3",
    "stability.sd3-large-v1:0": "generate/sd3",
    "stability.stable-image-core-v1:0": "generate/core",
    "stability.stable-image-core-v1:1": "generate/core",
    "stability.stable-image-ultra-v1:0": "generate/ultra",
    "stability.stable-image-ultra-v1:1": "generate/ultra",
    "us.stability.stable-conservative-upscale-v1:0": "upscale/conservative",
    "us.stability.stable-creative-upscale-v1:0": "upscale/creative",
    "us.stability.stable-fast-upscale-v1:0": "upscale/fast",
    "us.stability.stable-image-control-sketch-v1:0": "control/sketch",
    "us.stability.stable-image-control-structure-v1:0": "control/structure",
    "us.stability.stable-image-erase-object-v1:0": "edit/erase",
    "us.stability.stable-image-inpaint-v1:0": "edit/inpaint",
    "us.stability.stable-image-remove-background-v1:0": "edit/remove-background",
    "us.stability.stable-image-search-recolor-v1:0": "edit/search-and-recolor",
    "us.stability.stable-image-search-replace-v1:0": "edit/search-and-replace",
    "us.stability.stable-image-style-guide-v1:0": "control/style",
    "us.stability.stable-outpaint-v1:0": "edit/outpaint",
    "us.stability.stable-style-transfer-v1:0": "control/style-transfer",
}
"""The direct operation of each Bedrock model."""


def find_painter(operation: Operation) -> Painter:
    """Return the operation's own painter, or the default."""
    direct_operation = _ON_BEDROCK.get(operation.target)
    return PAINTERS.get(
        f"/v2beta/stable-image/{direct_operation}" if direct_operation else operation.target, edits.restyle
    )
