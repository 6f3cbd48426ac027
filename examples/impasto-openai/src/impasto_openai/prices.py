"""Prices by usage. OpenAI counts tokens of text and of images; an estimate is the price of an image of a quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from impasto import Cost, Usage


class _Params(Protocol):
    @property
    def quality(self) -> str | None: ...

    @property
    def size(self) -> str | None: ...


@attrs.frozen(kw_only=True)
class TokenPrice:
    """USD for a million tokens, and for one image: ``{quality: (square, other)}``."""

    text_input: float
    image_input: float
    output: float
    images: Mapping[str, tuple[float, float]]
    as_of: str
    cost: Cost | None = None

    def quote(self, params: _Params) -> Cost:
        """Return an estimate of one image without its input; what OpenAI chooses is reserved as the dearest."""
        square, other = self.images.get(params.quality or "auto", self.images["high"])
        return Cost(usd=square if params.size == "1024x1024" else other, as_of=self.as_of)

    def of(self, usage: Usage | None) -> Cost | None:
        """Return the cost of the tokens of an answer, None if it lacks them."""
        if usage is None or usage.input_text_tokens is None or usage.input_image_tokens is None:
            return None
        usd = usage.input_text_tokens * self.text_input + usage.input_image_tokens * self.image_input
        return Cost(usd=round((usd + usage.output_tokens * self.output) / 1e6, 10), as_of=self.as_of)

    def __str__(self) -> str:
        return (
            f"{self.text_input:g} USD for a million tokens of text, {self.image_input:g} of images, {self.output:g} of "
            f"output, as of {self.as_of}"
        )
