"""Default values: used if a call gives none, left out if they do not go with it, checked by themselves."""

import pytest

from impasto import Registry
from impasto_plugins.openai_compat.defaults import problems_of_defaults
from impasto_plugins.openai_compat.translate import translate

from .test_translate import PICTURE, model


def test_a_default_is_used_if_the_call_gives_none() -> None:
    defaults = {"strength": 0.7, "style_preset": "anime", "response_format": "url", "n": 2, "seed": 5}
    params = {"prompt": "a", "image": PICTURE, "style_preset": None, "seed": 7}
    translation = translate(model("sd3"), params, defaults=defaults, edit=True)
    own = {"prompt": "a", "image": PICTURE, "strength": 0.7, "style_preset": "anime", "seed": 7}
    assert (translation.params, translation.problems, translation.warnings) == (own, (), ())
    assert (translation.n, translation.response_format) == (2, "url")
    translation = translate(model("sd3"), params, defaults=defaults, extra_body={"strength": 0.2, "n": 1}, edit=True)
    assert (translation.params["strength"], translation.n) == (0.2, 1)


def test_a_default_that_does_not_go_with_the_call_is_left_out() -> None:
    defaults = {"strength": 0.7, "aspect_ratio": "16:9"}
    translation = translate(model("sd3"), {"prompt": "a"}, defaults=defaults)
    assert (translation.params, translation.problems) == ({"prompt": "a", "aspect_ratio": "16:9"}, ())
    edited = translate(model("sd3"), {"prompt": "a", "image": PICTURE}, defaults=defaults)
    assert (edited.params, edited.problems) == ({"prompt": "a", "image": PICTURE, "strength": 0.7}, ())
    sized = translate(model("sd3"), {"prompt": "a", "size": "1024x1024"}, defaults=defaults)
    assert (sized.params["aspect_ratio"], sized.problems) == ("1:1", ())
    shaped = translate(model("sd3"), {"prompt": "a", "aspect_ratio": "2:3"}, defaults={"size": "1024x1024"})
    assert (shaped.params["aspect_ratio"], shaped.problems, shaped.warnings) == ("2:3", (), ())


def test_a_default_that_belongs_to_another_field_waits_for_it() -> None:
    """The vendor would ignore an image's strength without an image, and takes a guardrail whole."""
    ultra, defaults = model("stable-image-ultra"), {"strength": 0.7}
    assert translate(ultra, {"prompt": "a"}, defaults=defaults).params == {"prompt": "a"}
    edited = translate(ultra, {"prompt": "a", "image": PICTURE}, defaults=defaults)
    assert edited.params["strength"] == 0.7
    core = Registry().operation("bedrock/stability.stable-image-core-v1:1")
    for guardrail in ({"guardrailVersion": "1", "guardrailIdentifier": "abc"}, {"guardrailVersion": "1"}):
        filled = translate(core, {"prompt": "a"}, defaults=guardrail).params
        assert filled == {"prompt": "a", **(guardrail if len(guardrail) == 2 else {})}


def test_a_mode_that_does_not_go_with_the_call_is_left_out_with_what_belongs_to_it() -> None:
    defaults = {"strength": 0.7, "mode": "image-to-image"}
    assert translate(model("sd3"), {"prompt": "a"}, defaults=defaults).params == {"prompt": "a"}
    edited = translate(model("sd3"), {"prompt": "a", "image": PICTURE}, defaults=defaults)
    assert edited.params == {"prompt": "a", "image": PICTURE, **defaults}


def test_a_default_goes_by_its_fields_other_name() -> None:
    translation = translate(model("style-transfer"), {"image": PICTURE}, defaults={"fidelity": 0.3}, edit=True)
    assert (translation.params["composition_fidelity"], translation.problems) == (0.3, ())
    translation = translate(model("style-transfer"), {"fidelity": 0.5, "image": PICTURE}, defaults={"fidelity": 0.3})
    assert (translation.params["composition_fidelity"], translation.problems) == (0.5, ())


@pytest.mark.parametrize(
    ("name", "defaults", "wrong"),
    [
        ("sd3", {"strength": 0.7, "style_preset": "anime", "n": 2, "size": "1024x1536", "user": "a"}, []),
        ("sd3", {"strength": 1.7}, ["strength"]),
        ("sd3", {"strength": "0.7"}, ["strength"]),
        ("sd3", {"style_preset": "vivid"}, ["style_preset"]),
        ("sd3", {"output_format": "gif", "seed": -1}, ["output_format", "seed"]),
        ("sd3", {"steps": 20}, ["steps"]),
        ("sd3", {"n": 0}, ["n"]),
        ("sd3", {"quality": "hd"}, ["quality"]),
        ("sd3", {"size": "1024"}, ["size"]),
        ("sd3", {"size": "1024x1024", "aspect_ratio": "1:1"}, ["aspect_ratio"]),
        ("sd3", {"response_format": "file"}, ["response_format"]),
        ("sd3", {"image": "a.png"}, ["image"]),
        ("stable-audio-2/text-to-audio", {"duration": 30}, []),
        ("stable-audio-2/text-to-audio", {"duration": 1000}, ["duration"]),
    ],
)
def test_defaults_are_checked_by_themselves(name: str, defaults: dict[str, object], wrong: list[str]) -> None:
    assert {problem.field for problem in problems_of_defaults(model(name), defaults)} == set(wrong)
