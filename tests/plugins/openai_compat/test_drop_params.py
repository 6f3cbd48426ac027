"""``drop_params`` drops what the called model has no field for, says so, and drops nothing else."""

from typing import Any

import pytest

import impasto
from impasto_plugins.emulator import Emulator
from impasto_plugins.openai_compat.translate import translate

from .test_translate import PICTURE, model, warnings_of


def test_drop_params_drops_what_the_model_has_no_field_for_and_says_so() -> None:
    params = {
        "prompt": "a",
        "style": "natural",
        "quality": "hd",
        "mask": PICTURE,
        "nonsense": 1,
        "background": "transparent",
    }
    translation = translate(model("sd3"), params, drop_params=True)
    assert not translation.problems
    assert translation.params == {"prompt": "a"}
    assert [warning.split()[0] for warning in translation.warnings] == [
        "mask", "style", "quality", "nonsense", "background",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("n", 11), ("size", "0x0"), ("response_format", "file"), ("user", "\n"), ("prompt", " "), ("stream", True),
        ("image", [PICTURE, PICTURE]),
    ],
)  # fmt: skip
def test_drop_params_drops_nothing_else(word: str, value: object) -> None:
    assert warnings_of(translate(model("sd3"), {word: value}, drop_params=True)) == [word]


@pytest.mark.parametrize(
    "word",
    [
        *("api_base", "base_url", "api_key", "headers", "extra_headers", "proxy", "timeout", "base_model"),
        *("aws_access_key_id", "aws_region_name", "endpoint_url", "proxies", "ssl_verify"),
    ],
)
def test_drop_params_never_drops_what_says_where_a_call_goes(word: str) -> None:
    translation = translate(model("core"), {"prompt": "a", word: "x"}, drop_params=True)
    assert (warnings_of(translation), translation.warnings) == ([word], ())


SPELLINGS = (
    *("API_BASE", "Api_Base", "api-base", "apiBase", "API-BASE", "api.base", "ApiKey", "API_KEY"),
    *("Timeout", "Extra-Headers", "extraHeaders", "BASE_URL", "baseURL", "Proxy", "AWS_REGION_NAME", "aws-profile"),
    *("awsAccessKeyId", "Stream", "\uff41pi_base", "api\u200b_base", "Base-Model", "default_headers"),
)


@pytest.mark.parametrize("word", SPELLINGS)
def test_drop_params_never_drops_them_however_they_are_spelt(word: str) -> None:
    translation = translate(model("core"), {"prompt": "a", word: "x"}, drop_params=True)
    assert (warnings_of(translation), translation.warnings) == ([word], ())


@pytest.mark.parametrize("word", ["API_BASE", "api-key", "baseURL", "Extra-Headers", "AWS_REGION_NAME"])
async def test_the_functions_refuse_them_however_they_are_spelt(impasto_emulator: Emulator, word: str) -> None:
    params: dict[str, Any] = {word: "x", "drop_params": True, "api_base": impasto_emulator.url, "api_key": "sk-x"}
    with pytest.raises(impasto.InvalidRequest, match=word):
        await impasto.aimage_generation("a", "stability/stable-image-core", **params)
    with pytest.raises(impasto.InvalidRequest, match=word):
        params = {"drop_params": True, "api_base": impasto_emulator.url, "api_key": "sk-x", "extra_body": {word: "x"}}
        await impasto.aimage_generation("a", "stability/stable-image-core", **params)
    assert not impasto_emulator.requests


@pytest.mark.parametrize("word", ["awesome", "awstats", "streams", "times", "keys", "basement"])
def test_drop_params_drops_names_that_only_look_alike(word: str) -> None:
    translation = translate(model("core"), {"prompt": "a", word: "x"}, drop_params=True)
    assert (translation.problems, len(translation.warnings)) == ((), 1)


@pytest.mark.parametrize(
    "word", ["steps", "cfg_scale", "strength", "metadata", "num_inference_steps", "guidance_scale"]
)
def test_drop_params_drops_a_field_of_other_models_alike(word: str) -> None:
    translation = translate(model("core"), {"prompt": "a", word: 20}, drop_params=True)
    assert (translation.params, translation.problems) == ({"prompt": "a"}, ())
    assert translation.warnings[0].startswith(f"{word} was dropped: ")


@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_drop_params_is_true_or_false(value: object) -> None:
    assert warnings_of(translate(model("sd3"), {}, drop_params=value)) == ["drop_params"]


def test_drop_params_drops_an_image_that_the_model_has_no_field_for() -> None:
    dropped = translate(model("core"), {"prompt": "a", "image": PICTURE}, drop_params=True)
    assert (dropped.params, dropped.problems) == ({"prompt": "a"}, ())
    assert dropped.warnings[0].startswith("image was dropped")
    assert warnings_of(translate(model("core"), {"image": PICTURE}, drop_params=True, edit=True)) == ["image"]
