"""Prices by usage: the tokens that an answer counts, and their price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from .costs import Cost, Usage


def usage_in(counts: object) -> Usage | None:
    """Return the tokens that an answer counts in OpenAI's form, or None.

    The form is ``{input_tokens, output_tokens, input_tokens_details: {text_tokens, image_tokens}}``, and perhaps
    ``output_tokens_details`` of the same form.
    """
    tokens_in, tokens_out = _count(counts, "input_tokens"), _count(counts, "output_tokens")
    if tokens_in is None or tokens_out is None:
        return None
    details_in, details_out = _member(counts, "input_tokens_details"), _member(counts, "output_tokens_details")
    return Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        input_text_tokens=_count(details_in, "text_tokens"),
        input_image_tokens=_count(details_in, "image_tokens"),
        output_text_tokens=_count(details_out, "text_tokens"),
        output_image_tokens=_count(details_out, "image_tokens"),
    )


def usage_by_modality(counts: object) -> Usage | None:
    """Return the tokens that an answer counts in the form of Google's ``usageMetadata``, or None.

    The form is ``{promptTokenCount, candidatesTokenCount, thoughtsTokenCount, totalTokenCount, promptTokensDetails:
    [{modality, tokenCount}], candidatesTokensDetails}``. Output other than images is text, thoughts too.
    """
    prompt, tools = _count(counts, "promptTokenCount"), _count(counts, "toolUsePromptTokenCount") or 0
    if prompt is None:
        return None
    parts = (_count(counts, "candidatesTokenCount") or 0) + (_count(counts, "thoughtsTokenCount") or 0)
    total = _count(counts, "totalTokenCount")
    tokens_out = parts if total is None else max(total - prompt - tools, 0)
    of_prompt = _member(counts, "promptTokensDetails")
    text, images_in = (_of_modality(of_prompt, each) if not tools else None for each in ("TEXT", "IMAGE"))
    images_out = _of_modality(_member(counts, "candidatesTokensDetails"), "IMAGE")
    if images_out is not None and images_out > tokens_out:
        images_out = None
    return Usage(
        input_tokens=prompt + tools,
        output_tokens=tokens_out,
        input_text_tokens=text,
        input_image_tokens=images_in,
        output_text_tokens=None if images_out is None else tokens_out - images_out,
        output_image_tokens=images_out,
    )


def _member(counts: object, name: str) -> object:
    return counts.get(name) if isinstance(counts, Mapping) else None


def _count(counts: object, name: str) -> int | None:
    value = _member(counts, name)
    return value if type(value) is int and value >= 0 else None


def _of_modality(details: object, modality: str) -> int | None:
    """Return the tokens of one modality, None if the details are missing or malformed."""
    if not isinstance(details, list):
        return None
    total = 0
    for each in details:
        count = _count(each, "tokenCount")
        if count is None:
            return None
        total += count if _member(each, "modality") == modality else 0
    return total


Params = TypeVar("Params")


@attrs.frozen(kw_only=True)
class TokenPrice(Generic[Params]):
    """A price in USD for a million tokens of text, of images and of output, known on the day ``as_of``.

    ``text_output`` is the price of text in the output, if it is another than that of images, ``output``. ``estimate``
    returns the USD of one image before the call, or None if it is not known.
    """

    text_input: float
    image_input: float
    output: float
    as_of: str
    text_output: float | None = None
    estimate: Callable[[Params], float | None] = lambda _: None

    def quote(self, params: Params) -> Cost | None:
        """Return the estimate of one image."""
        usd = self.estimate(params)
        return None if usd is None else Cost(usd=usd, as_of=self.as_of)

    def of(self, usage: Usage | None) -> Cost | None:
        """Return the cost of the tokens of an answer, None if it does not count those that have their own prices."""
        if usage is None:
            return None
        text_output = self.output if self.text_output is None else self.text_output
        text, images = usage.input_text_tokens, usage.input_image_tokens
        usd_in = _usd(usage.input_tokens, (text, self.text_input), (images, self.image_input))
        text, images = usage.output_text_tokens, usage.output_image_tokens
        usd_out = _usd(usage.output_tokens, (text, text_output), (images, self.output))
        if usd_in is None or usd_out is None:
            return None
        return Cost(usd=round((usd_in + usd_out) / 1e6, 10), as_of=self.as_of)

    def __str__(self) -> str:
        text = "" if self.text_output is None else f" and {self.text_output:g} for text in it"
        prices = f"{self.text_input:g} USD for text, {self.image_input:g} for images, {self.output:g} for output{text}"
        return f"{prices}, for a million tokens each, as of {self.as_of}"


def _usd(tokens: int, *kinds: tuple[int | None, float]) -> float | None:
    """Return the price of tokens of several kinds, each with its count and price; None if a count is needed."""
    if len({price for _, price in kinds}) == 1:
        return tokens * kinds[0][1]
    usd = 0.0
    for count, price in kinds:
        if count is None:
            return None
        usd += count * price
    return usd
