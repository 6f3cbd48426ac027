"""The Imagen 4 models, each with a key (``gemini/``) and on Vertex AI (``vertex_ai/``)."""

from __future__ import annotations

import attrs

from impasto import AspectRatios, Cost, FlatPrice, Operation
from impasto.fields import boolean, choice, group, integer, text
from impasto.rules import Needs

from .dialect import dialect
from .providers import gemini as gemini_provider, vertex_ai

GEMINI = "/v1beta/models/{}:predict"
VERTEX = "/v1/projects/{{project}}/locations/{{location}}/publishers/google/models/{}:predict"


@attrs.frozen(kw_only=True)
class OutputOptions:
    """The form of the images."""

    mimeType: str | None = choice("image/png", "image/jpeg", default="image/png", description="Media type.")  # noqa: N815
    compressionQuality: int | None = integer(0, 100, default=75, description="Quality of a JPEG.")  # noqa: N815


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of both ways."""

    prompt: str = text(1, required=True, role="prompt", description="Content of the image.")
    sampleCount: int | None = integer(1, 4, default=4, description="Images of one request; set by n.")  # noqa: N815
    aspectRatio: str | None = choice(  # noqa: N815
        "1:1", "3:4", "4:3", "9:16", "16:9", default="1:1", description="Ratio of width to height."
    )
    sampleImageSize: str | None = choice("1K", "2K", default="1K", description="Size of the image.")  # noqa: N815
    personGeneration: str | None = choice(  # noqa: N815
        "dont_allow", "allow_adult", "allow_all", default="allow_adult", description="People that may appear."
    )
    outputOptions: OutputOptions | None = group(OutputOptions, description="Form of the images.")  # noqa: N815


@attrs.frozen(kw_only=True)
class VertexParams(Params):
    """Parameters of Vertex AI, which has more."""

    seed: int | None = integer(1, 2_147_483_647, description="Seed of the random noise; needs addWatermark=false.")
    addWatermark: bool | None = boolean(default=True, description="An invisible watermark.")  # noqa: N815
    enhancePrompt: bool | None = boolean(default=True, description="Let the provider rewrite the prompt.")  # noqa: N815
    safetySetting: str | None = choice(  # noqa: N815
        *("block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"),
        default="block_medium_and_above",
        description="Strictness of the content filter.",
    )


def _model(name: str, title: str, usd: float, *, on_vertex: bool) -> Operation:
    return Operation(
        id=f"{'vertex_ai' if on_vertex else 'gemini'}/{name}",
        title=title,
        params=VertexParams if on_vertex else Params,
        target=(VERTEX if on_vertex else GEMINI).format(name),
        provider=vertex_ai if on_vertex else gemini_provider,
        dialect=dialect,
        price=FlatPrice(cost=Cost(usd=usd, as_of="2026-03-03")),
        rules=(Needs("seed", ("addWatermark",)),) if on_vertex else (),
        size=AspectRatios("aspectRatio"),
        native_n=("sampleCount", 4),
        docs_url="https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api",
    )


gemini, vertex = (_model("imagen-4.0-generate-001", "Imagen 4", 0.04, on_vertex=each) for each in (False, True))
gemini_fast, vertex_fast = (
    _model("imagen-4.0-fast-generate-001", "Imagen 4 Fast", 0.02, on_vertex=each) for each in (False, True)
)
gemini_ultra, vertex_ultra = (
    _model("imagen-4.0-ultra-generate-001", "Imagen 4 Ultra", 0.06, on_vertex=each) for each in (False, True)
)
