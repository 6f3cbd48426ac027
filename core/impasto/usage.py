"""Prices by usage: the tokens that an answer counts, and their price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from .costs import Cost, Usage


def usage_in(counts: object) -> Usage | None:
    """Return the tokens that an answer counts in OpenAI's form, or None.

    The form is ``{input_tokens, output_tokens, input_tokens_details: {text_tokens, image_tokens}}``.
    """
    tokens_in, tokens_out = _count(counts, "input_tokens"), _count(counts, "output_tokens")
    if tokens_in is None or tokens_out is None:
        return None
    details = counts.get("input_tokens_details") if isinstance(counts, Mapping) else None
    text, image = _count(details, "text_tokens"), _count(details, "image_tokens")
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, input_text_tokens=text, input_image_tokens=image)


def _count(counts: object, name: str) -> int | None:
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if type(value) is int and value >= 0 else None


Params = TypeVar("Params")


@attrs.frozen(kw_only=True)
class TokenPrice(Generic[Params]):
    """A price in USD for a million tokens of text, of images and of output, known on the day ``as_of``.

    ``estimate`` returns the USD of one image before the call, or None if it is not known.
    """

    text_input: float
    image_input: float
    output: float
    as_of: str
    estimate: Callable[[Params], float | None] = lambda _: None
    cost: Cost | None = attrs.field(default=None, init=False)

    def quote(self, params: Params) -> Cost | None:
        """Return the estimate of one image."""
        usd = self.estimate(params)
        return None if usd is None else Cost(usd=usd, as_of=self.as_of)

    def of(self, usage: Usage | None) -> Cost | None:
        """Return the cost of the tokens of an answer, None if it does not count them."""
        if usage is None or usage.input_text_tokens is None or usage.input_image_tokens is None:
            return None
        usd = usage.input_text_tokens * self.text_input + usage.input_image_tokens * self.image_input
        return Cost(usd=round((usd + usage.output_tokens * self.output) / 1e6, 10), as_of=self.as_of)

    def __str__(self) -> str:
        prices = f"{self.text_input:g} USD for text, {self.image_input:g} for images, {self.output:g} for output"
        return f"{prices}, for a million tokens each, as of {self.as_of}"
