"""Suggestions: what somebody may have meant, among names that would be accepted."""

from __future__ import annotations

import pytest

from impasto import InvalidRequest, Registry, UnknownOperation
from impasto.ext import closest
from impasto.registry import OPERATIONS
from impasto_plugins.cli.declarations import declared

FIELDS = ("prompt", "aspect_ratio", "negative_prompt", "seed", "style_preset", "output_format")


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("core", "stability/stable-image-core"),
        ("ultra", "stability/stable-image-ultra"),
        ("sd3.5", "stability/sd3.5-flash"),
        ("SD3.5-Large", "stability/sd3.5-large"),
        ("sd3.5-lrge", "stability/sd3.5-large"),
        ("stable_image_core", "stability/stable-image-core"),
        ("stability/core", "stability/stable-image-core"),
        ("bedrock/stability.sd3-5-large", "bedrock/stability.sd3-5-large-v1:0"),
        ("inpant", "stability/inpaint"),
        ("3d", "stability/stable-fast-3d"),
        ("stability/sd4", "stability/sd3"),
    ],
)
def test_a_models_short_name_leads_to_its_full_name(word: str, first: str) -> None:
    with pytest.raises(UnknownOperation) as caught:
        Registry().operation(word)
    names = str(caught.value).partition("closest: ")[2].split(", ")
    assert names[0] == first
    assert set(names) <= set(Registry().names(OPERATIONS))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("promt", ["prompt"]),
        ("prompts", ["prompt"]),
        ("negativePrompt", ["negative_prompt"]),
        ("aspectRatio", ["aspect_ratio"]),
        ("ratio", ["aspect_ratio"]),
        ("steps", []),
        ("n", []),
        ("", []),
        ("-", []),
        ("\udcff", []),
        ("p" * 1_000_000, []),
    ],
)
def test_a_fields_name_is_found_by_spelling_or_part(word: str, expected: list[str]) -> None:
    assert closest(word, FIELDS, 1) == expected


def test_a_field_is_suggested_though_it_is_given() -> None:
    """The name that is wrong is a misspelling all the same, and its writer sees the right one."""
    operation = Registry().operation("stability/stable-image-core")
    with pytest.raises(InvalidRequest) as caught:
        operation.request("stability/stable-image-core", {"prompt": "x", "promt": "y", "sede": 5})
    messages = {problem.field: problem.message for problem in caught.value.problems}
    assert messages["promt"].endswith("did you mean 'prompt'?")
    assert messages["sede"].endswith("did you mean 'seed'?")


def test_a_model_that_would_be_refused_is_not_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(allow="none")
    assert all(each.refusal is None for each in declared(registry, OPERATIONS))
    with pytest.raises(UnknownOperation, match="models is similar"):
        registry.operation("acme/zzzz")


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("p/core", ["p/stable-core", "q/c-o-r-e"], ["q/c-o-r-e", "p/stable-core"]),  # the same letters, then a part
        ("p/core", ["p/score", "q/a-core"], ["q/a-core", "p/score"]),  # a part, then letters within
        ("p/core", ["p/cure-", "q/scores"], ["q/scores", "p/cure-"]),  # letters within, then a like spelling
        ("p/core", ["q/core", "p/core2", "p/core"], ["p/core", "q/core", "p/core2"]),  # the provider between equals
        ("p/", ["q/a", "p/b"], ["p/b"]),
        ("x", ["long-x", "x-rays"], []),  # one letter is in too many names
        ("ab", ["a-ab", "tabular"], ["a-ab"]),  # two may be a part, and are looked for in no word
        ("abc", ["xabcx-and-more-letters"], ["xabcx-and-more-letters"]),
        ("a-word-that-holds-abc", ["abc", "ab"], ["abc"]),
        ("abcdef", ["a1", "abcde1", "abcde2", "abcde3", "abcde4"], ["abcde1", "abcde2", "abcde3"]),
    ],
)
def test_the_likeliest_come_first_and_no_more_than_three(word: str, names: list[str], expected: list[str]) -> None:
    assert closest(word, names) == expected


def test_the_share_of_letters_in_common_that_is_alike() -> None:
    assert closest("sd4", ["sd3"]) == ["sd3"]  # 4 of 6
    assert closest("abcde", ["abcxy"]) == []  # 6 of 10


def test_a_word_is_compared_as_far_as_a_name_can_be() -> None:
    name = "n" * 120
    assert closest(name, [name]) == [name]
    assert closest("p" * 119 + "/name", ["x/name"]) == []
