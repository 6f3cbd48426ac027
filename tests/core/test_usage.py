"""Tokens that answers count, in the two forms that are common, and their price."""

from __future__ import annotations

import attrs
import pytest

from impasto import Cost, Usage
from impasto.dialects import TokenPrice, usage_by_modality, usage_in
from impasto.fields import integer


@attrs.frozen(kw_only=True)
class Params:
    seed: int | None = integer(0, 9)


def price(text_input: float = 0.3, image_input: float = 0.3, text_output: float | None = 2.5) -> TokenPrice[Params]:
    return TokenPrice(
        text_input=text_input, image_input=image_input, output=30, text_output=text_output, as_of="2026-01-01"
    )


def usd(cost: Cost | None) -> float | None:
    return None if cost is None else cost.usd


COUNTS: dict[str, object] = {
    "promptTokenCount": 268,
    "candidatesTokenCount": 1300,
    "totalTokenCount": 1600,
    "thoughtsTokenCount": 32,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}, {"modality": "IMAGE", "tokenCount": 258}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
}
"""Google's usageMetadata: ten tokens of text beside the image, and 32 of thoughts, which are text too."""


def test_counts_by_modality_are_a_usage_with_its_details() -> None:
    usage = usage_by_modality(COUNTS)
    assert usage == Usage(
        input_tokens=268,
        output_tokens=1332,
        input_text_tokens=10,
        input_image_tokens=258,
        output_text_tokens=42,
        output_image_tokens=1290,
    )
    # 268 of input at 0.3, 42 of text at 2.5 and 1,290 of the image at 30 USD for a million
    assert price().of(usage) == Cost(usd=0.0388854, as_of="2026-01-01")
    assert usage is not None
    assert usage.total_tokens == 1600


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"candidatesTokenCount": None, "thoughtsTokenCount": None}, (268, 1332, 42, 1290)),  # the total has them
        ({"totalTokenCount": None}, (268, 1332, 42, 1290)),
        ({"totalTokenCount": None, "thoughtsTokenCount": None}, (268, 1300, 10, 1290)),
        ({"totalTokenCount": None, "candidatesTokenCount": None}, (268, 32, None, None)),
        ({"totalTokenCount": 268 + 1290}, (268, 1290, 0, 1290)),
        ({"toolUsePromptTokenCount": 5, "totalTokenCount": 1605}, (273, 1332, 42, 1290)),
        ({"candidatesTokensDetails": None}, (268, 1332, None, None)),
        ({"candidatesTokensDetails": []}, (268, 1332, 1332, 0)),
        ({"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 9999}]}, (268, 1332, None, None)),
        ({"candidatesTokensDetails": [{"modality": "IMAGE"}, 5]}, (268, 1332, None, None)),
        ({"totalTokenCount": 268, "candidatesTokenCount": None, "thoughtsTokenCount": None}, (268, 0, None, None)),
    ],
)
def test_counts_may_lack_some(changes: dict[str, object], expected: tuple[int | None, ...]) -> None:
    counts = {name: value for name, value in {**COUNTS, **changes}.items() if value is not None}
    usage = usage_by_modality(counts)
    assert usage is not None
    found = usage.input_tokens, usage.output_tokens, usage.output_text_tokens, usage.output_image_tokens
    assert found == expected


@pytest.mark.parametrize(
    "counts", [None, [], {}, {"totalTokenCount": 5}, {**COUNTS, "promptTokenCount": -1}, {"promptTokenCount": True}]
)
def test_an_invalid_count_is_none(counts: object) -> None:
    assert usage_by_modality(counts) is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"input_tokens": 0, "output_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        ({"input_tokens": 5}, None),
        ({"output_tokens": 5}, None),
        ({"input_tokens": -1, "output_tokens": 5}, None),
        ({"input_tokens": 5, "output_tokens": True}, None),
    ],
)
def test_both_counts_of_openais_form_are_needed(counts: object, expected: Usage | None) -> None:
    assert usage_in(counts) == expected


def test_openais_details_of_the_output() -> None:
    counts = {
        "input_tokens": 50,
        "output_tokens": 300,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens_details": {"text_tokens": 28, "image_tokens": 272},
    }
    usage = usage_in(counts)
    assert usage is not None
    assert (usage.output_text_tokens, usage.output_image_tokens) == (28, 272)
    assert usd(price(5, 10).of(usage)) == pytest.approx((10 * 5 + 40 * 10 + 272 * 30 + 28 * 2.5) / 1e6)
    assert usd(price(5, 10, None).of(usage)) == pytest.approx((10 * 5 + 40 * 10 + 300 * 30) / 1e6)


def test_without_details_a_cost_is_unknown_only_if_their_prices_differ() -> None:
    usage = Usage(input_tokens=100, output_tokens=1000)
    assert price().of(usage) is None
    assert price(5, 10, None).of(usage) is None
    assert usd(price(text_output=None).of(usage)) == pytest.approx((100 * 0.3 + 1000 * 30) / 1e6)
    assert usd(price(text_output=30).of(usage)) == pytest.approx((100 * 0.3 + 1000 * 30) / 1e6)


def test_usages_add_up_with_their_details() -> None:
    one = Usage(input_tokens=1, output_tokens=5, output_text_tokens=2, output_image_tokens=3)
    assert one + one == Usage(input_tokens=2, output_tokens=10, output_text_tokens=4, output_image_tokens=6)
    assert one + Usage(input_tokens=1, output_tokens=1) == Usage(input_tokens=2, output_tokens=6)


def test_the_price_in_words_has_both_outputs() -> None:
    assert str(price()) == (
        "0.3 USD for text, 0.3 for images, 30 for output and 2.5 for text in it, for a million tokens each, as of"
        " 2026-01-01"
    )
    assert str(price(text_output=None)) == (
        "0.3 USD for text, 0.3 for images, 30 for output, for a million tokens each, as of 2026-01-01"
    )
