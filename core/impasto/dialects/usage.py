"""The tokens that an answer counts."""

from __future__ import annotations

from collections.abc import Mapping

from impasto.costs import Usage


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
