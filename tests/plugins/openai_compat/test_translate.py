"""OpenAI's parameters are honoured, or refused by name; nothing is dropped unsaid."""

from pathlib import Path

import pytest

from impasto import InvalidRequest, Operation, Registry
from impasto.ext import MAX_PROBLEMS
from impasto_plugins.openai_compat.translate import Translation, translate

PICTURE = b"a picture: nothing looks at it here"
_registry = Registry()


def model(name: str) -> Operation:
    return _registry.operation(f"stability/{'stable-image-core' if name == 'core' else name}")


def warnings_of(translation: Translation) -> list[str]:
    return [problem.field for problem in translation.problems]


def translated(name: str, /, **arguments: object) -> Translation:
    return translate(model(name), arguments)


def test_none_is_not_given() -> None:
    names: tuple[str, ...] = ("prompt", "image", "mask", "n", "size", "style", "user", "seed", "nonsense", "stream")
    nothing = {str(name): None for name in names}
    translation = translate(model("sd3"), nothing, extra_body=None, drop_params=None)
    assert translation == Translation(params={}, words={})


# n, response_format, user


@pytest.mark.parametrize("n", [True, False, "2", 0, -1, 11, 10**9, 1.0, 1.5, [], {}])
def test_n_is_a_whole_number_from_1_to_10(n: object) -> None:
    assert warnings_of(translated("sd3", n=n)) == ["n"]


@pytest.mark.parametrize("value", ["file", "B64_JSON", "", 7, True, ["url"], b"url"])
def test_response_format_is_one_of_two(value: object) -> None:
    assert warnings_of(translated("sd3", response_format=value)) == ["response_format"]


def test_response_format_passes() -> None:
    assert translated("sd3").response_format == "b64_json"
    assert translated("sd3", response_format="url").response_format == "url"


@pytest.mark.parametrize("user", ["", " ", "a\nb", "a\r\nb", "a\x00", "é", " a", "a ", "a" * 257, "a" * 10_000, 7, {}])
def test_user_is_what_a_header_can_carry(user: object) -> None:
    assert warnings_of(translated("sd3", user=user)) == ["user"]


def test_user_passes() -> None:
    assert translated("sd3", user="a" * 256).user == "a" * 256
    assert translated("sd3", user="Ann <ann@example.com>").user == "Ann <ann@example.com>"


# OpenAI's words


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("quality", "auto"),
        ("quality", "standard"),
        ("background", "auto"),
        ("background", "opaque"),
        ("moderation", "auto"),
        ("output_compression", 100),
        ("stream", False),
        ("partial_images", 0),
        ("style", "vivid"),
        ("input_fidelity", "low"),
    ],
)
def test_values_that_ask_for_nothing_special_pass_silently(word: str, value: object) -> None:
    assert translate(model("upscale-fast"), {word: value}) == Translation(params={}, words={})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("quality", "hd"),
        ("quality", "low"),
        ("quality", "ultra"),
        ("quality", 7),
        ("background", "transparent"),
        ("moderation", "low"),
        ("output_compression", 80),
        ("output_compression", "100"),
        ("output_compression", True),
        ("style", "natural"),
        ("style", "VIVID"),
        ("style", 7),
        ("input_fidelity", "high"),
        ("input_fidelity", True),
        ("stream", True),
        ("stream", 1),
        ("stream", "yes"),
        ("stream", 0),
        ("partial_images", 4),
        ("partial_images", -1),
        ("partial_images", "2"),
        ("partial_images", 1.0),
        ("partial_images", False),
        ("num_retries", 3),
        ("extra_headers", {"x": "y"}),
        ("custom_llm_provider", "stability"),
        ("aws_region_name", "us-east-1"),
        ("metadata", {}),
        ("negative_promt", "blurry"),
    ],
)
def test_a_parameter_without_a_field_is_refused_by_name(word: str, value: object) -> None:
    assert warnings_of(translate(model("sd3"), {word: value})) == [word]


@pytest.mark.parametrize(
    ("name", "word", "instead"),
    [
        ("sd3", "style", "use style_preset instead"),
        ("upscale-fast", "style", "not supported by this model; leave it out"),
        ("sd3", "input_fidelity", "use strength instead"),
        ("style-guide", "input_fidelity", "use fidelity instead"),
        ("style-transfer", "input_fidelity", "use composition_fidelity instead"),
        ("control-sketch", "input_fidelity", "use control_strength instead"),
        ("sd3", "sed", "did you mean seed?"),
        ("sd3", "negative_promt", "did you mean negative_prompt?"),
        ("sd3", "respose_format", "did you mean response_format?"),
        ("sd3", "uzer", "did you mean user?"),
        ("sd3", "nonsense", "allowed: prompt, mode, image"),
        ("sd3", "max_retries", "a setting of the client or the gateway"),
        ("sd3", "num_retries", "a setting of the client or the gateway"),
        ("sd3", "quality", "must be auto or standard"),
        ("sd3", "background", "removes backgrounds"),
        ("sd3", "moderation", "must be auto:"),
        ("sd3", "output_compression", "output_format"),
        ("sd3", "stream", "leave it out"),
        ("sd3", "partial_images", "whole number from 0 to 3"),
        ("sd3", "custom_llm_provider", "in model"),
        ("sd3", "extra_headers", "use user, which is sent as a header"),
        ("sd3", "extra_query", "has no query parameters"),
        ("sd3", "api_key", "as an argument"),
        ("sd3", "api_base", "as an argument"),
        ("sd3", "aws_region_name", "bedrock/ models only"),
    ],
)
def test_a_refusal_says_what_to_use_instead(name: str, word: str, instead: str) -> None:
    [problem] = translated(name, **{word: "x"}).problems
    assert instead in problem.message


@pytest.mark.parametrize("stream", [None, False])
@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_partial_images_have_no_effect_and_that_is_said(number: int, drop: bool, stream: bool | None) -> None:
    params = {"prompt": "a", "partial_images": number, "stream": stream}
    translation = translate(model("core"), params, drop_params=drop)
    assert (translation.params, translation.problems) == ({"prompt": "a"}, ())
    assert [warning.split()[0] for warning in translation.warnings] == ["partial_images"]


def test_a_transparent_background_is_what_background_removal_makes() -> None:
    assert translated("remove-background", background="transparent") == Translation(params={}, words={})


def test_output_format_goes_to_the_models_own_field() -> None:
    assert translated("sd3", output_format="webp").params == {"output_format": "webp"}


# size


def test_size_becomes_aspect_ratio() -> None:
    translation = translated("sd3", size="1792x1024")
    assert (translation.params, translation.warnings) == ({"aspect_ratio": "16:9"}, ())
    translation = translated("style-guide", size="1000x1001")
    assert translation.params == {"aspect_ratio": "1:1"}
    assert "1000x1001" in translation.warnings[0]
    assert translated("sd3", size="auto").params == {}


@pytest.mark.parametrize("name", ["inpaint", "upscale-fast", "outpaint", "control-sketch", "style-transfer"])
def test_size_has_no_effect_without_aspect_ratio_and_that_is_said(name: str) -> None:
    translation = translated(name, size="1024x1024")
    assert (translation.params, translation.problems) == ({}, ())
    assert "no effect" in translation.warnings[0]


def test_size_has_no_effect_with_an_sd3_picture_but_has_with_an_ultra_one() -> None:
    translation = translated("sd3.5-large", image=PICTURE, strength=0.5, size="1024x1536")
    assert translation.params == {"image": PICTURE, "strength": 0.5}
    assert "no effect" in translation.warnings[0]
    translation = translated("stable-image-ultra", image=PICTURE, strength=0.5, size="1024x1536")
    assert translation.params["aspect_ratio"] == "2:3"


@pytest.mark.parametrize("name", ["sd3", "inpaint"])
def test_a_malformed_size_is_refused_everywhere(name: str) -> None:
    assert warnings_of(translated(name, size="1024X1024")) == ["size"]


def test_size_and_aspect_ratio_together_are_refused() -> None:
    assert warnings_of(translated("sd3", size="1024x1024", aspect_ratio="1:1")) == ["aspect_ratio"]
    translation = translated("sd3", size="auto", aspect_ratio="16:9")
    assert (warnings_of(translation), translation.params) == ([], {"aspect_ratio": "16:9"})


# prompt


@pytest.mark.parametrize("name", ["sd3", "outpaint", "style-transfer", "replace-background-and-relight"])
@pytest.mark.parametrize("prompt", ["", " ", "\n\t ", "\u3000"])
def test_a_blank_prompt_is_refused(name: str, prompt: str) -> None:
    assert warnings_of(translated(name, prompt=prompt)) == ["prompt"]


@pytest.mark.parametrize("name", ["erase", "upscale-fast", "remove-background"])
@pytest.mark.parametrize("prompt", ["a dog", ""])
def test_a_prompt_given_to_a_model_that_takes_none_is_dropped_with_a_warning(name: str, prompt: str) -> None:
    translation = translate(model(name), {"prompt": prompt, "image": PICTURE}, edit=True)
    assert (translation.params, translation.problems) == ({"image": PICTURE}, ())
    assert translation.warnings == ("prompt was dropped: this model takes no prompt",)


def test_prompt_goes_where_the_model_has_its_prompt() -> None:
    assert translated("replace-background-and-relight", prompt="a beach").params == {"background_prompt": "a beach"}
    both = translated("replace-background-and-relight", prompt="a beach", background_prompt="a bar")
    assert warnings_of(both) == ["background_prompt"]


# pictures


@pytest.mark.parametrize("image", [PICTURE, [PICTURE], (PICTURE,)])
def test_one_picture_may_stand_in_a_list(image: object) -> None:
    assert translated("inpaint", image=image).params == {"image": PICTURE}


def test_none_in_a_list_is_no_picture() -> None:
    assert translated("inpaint", image=[None, PICTURE, None]).params == {"image": PICTURE}
    assert warnings_of(translated("inpaint", image=[None])) == ["image"]


def test_two_paths_in_a_tuple_are_two_pictures() -> None:
    for pair in (("a.png", "b.png"), ("a.png", Path("b.png"))):
        assert warnings_of(translated("inpaint", image=pair)) == ["image"]
        assert translated("style-transfer", image=pair).params == {"init_image": pair[0], "style_image": pair[1]}


def test_thousands_of_unknown_names_are_all_told_but_few_are_guessed_at() -> None:
    params = {f"see{i}": i for i in range(15_000)}
    problems = translate(model("sd3"), params).problems
    assert [problem.field for problem in problems] == list(params)
    assert (
        sum(problem.message == f"unknown parameter {problem.field!r}" for problem in problems) == 15_000 - MAX_PROBLEMS
    )


def test_a_name_and_bytes_are_one_picture() -> None:
    for image in (("cat.png", PICTURE), (None, PICTURE), ("cat.png", PICTURE, "image/png")):
        assert translated("inpaint", image=image).params == {"image": image}


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("style-transfer", "init_image", "style_image"),
        ("replace-background-and-relight", "subject_image", "background_reference"),
    ],
)
def test_two_pictures_go_to_the_first_two_fields(name: str, first: str, second: str) -> None:
    assert translated(name, image=PICTURE).params == {first: PICTURE}
    assert translated(name, image=[PICTURE, b"2"]).params == {first: PICTURE, second: b"2"}
    assert translated(name, image=PICTURE, **{second: b"2"}).params == {first: PICTURE, second: b"2"}
    assert warnings_of(translated(name, image=[PICTURE, b"2"], **{second: b"3"})) == [second]
    assert warnings_of(translated(name, image=PICTURE, **{first: b"3"})) == [first]
    assert warnings_of(translated(name, image=[PICTURE, b"2", b"3"])) == ["image"]


@pytest.mark.parametrize(
    ("name", "image"),
    [("sd3", [PICTURE, PICTURE]), ("inpaint", []), ("stable-image-core", PICTURE), ("inpaint", [[]] * 2)],
)
def test_more_pictures_than_a_model_takes_are_refused(name: str, image: object) -> None:
    assert warnings_of(translated(name, image=image)) == ["image"]


@pytest.mark.parametrize("name", ["sd3", "stable-image-core", "inpaint", "style-transfer"])
def test_an_edit_needs_a_picture(name: str) -> None:
    assert warnings_of(translate(model(name), {"prompt": "a"}, edit=True)) == ["image"]


def test_an_edit_may_name_its_picture_as_the_model_does() -> None:
    params = {"init_image": PICTURE, "style_image": PICTURE}
    assert not translate(model("style-transfer"), params, edit=True).problems


def test_fidelity_is_composition_fidelity_where_the_model_has_no_field_of_that_name() -> None:
    assert translated("style-transfer", fidelity=0.5).params == {"composition_fidelity": 0.5}
    assert translated("style-guide", fidelity=0.5).params == {"fidelity": 0.5}
    assert warnings_of(translated("style-transfer", composition_fidelity=0.5, fidelity=0.5)) == ["fidelity"]


def test_a_mask_needs_a_picture_and_a_model_that_takes_it() -> None:
    assert warnings_of(translated("inpaint", mask=PICTURE)) == ["mask"]
    assert warnings_of(translated("search-and-replace", mask=PICTURE, image=PICTURE)) == ["mask"]
    assert translated("inpaint", mask=b"m", image=PICTURE).params == {"image": PICTURE, "mask": b"m"}


# extra_body


def test_extra_body_adds_parameters_of_both_kinds() -> None:
    translation = translate(model("sd3"), {"prompt": "a"}, extra_body={"seed": 3, "size": "2x3", "n": 2, "style": None})
    assert translation.params == {"prompt": "a", "seed": 3, "aspect_ratio": "2:3"}
    assert translation.n == 2


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"prompt": "b"}, ["prompt"]),
        ({"model": "stability/sd3"}, ["model"]),
        ({"api_key": "sk-1234"}, ["api_key"]),
        ({"extra_body": {}}, ["extra_body"]),
        ({"seed": 1, "prompt": None, "model": None}, []),
        ({1: 2}, ["extra_body"]),
        ([("seed", 1)], ["extra_body"]),
        ("seed=1", ["extra_body"]),
        (7, ["extra_body"]),
    ],
)
def test_extra_body_never_overrides_an_argument(extra: object, names: list[str]) -> None:
    assert warnings_of(translate(model("sd3"), {"prompt": "a"}, extra_body=extra)) == names


def test_a_model_that_makes_no_pictures_is_refused() -> None:
    for name, result in (("stable-audio-2/text-to-audio", "sounds"), ("stable-fast-3d", "3D models")):
        with pytest.raises(InvalidRequest, match=f"model: makes {result}, and this call images"):
            translate(model(name), {"prompt": "rain"})
    assert translate(model("stable-audio-2/text-to-audio"), {"prompt": "rain", "n": 2}, makes="audio").n == 2


def test_a_long_name_is_shortened_wherever_it_is_told() -> None:
    long = "x" * 70
    for params in ({long: 1}, {"extra_body": {long: 1}}):
        extra = params.get("extra_body")
        problems = translate(model("sd3"), {"prompt": "a", long: 1}, extra_body=extra).problems
        assert {problem.field for problem in problems} == {long[:60]}
    many = {f"{long}{number}": 1 for number in range(MAX_PROBLEMS + 1)}
    assert {problem.field for problem in translate(model("sd3"), many).problems} == {long[:60]}
    dropped = translate(model("core"), {"prompt": "a", long: 1}, drop_params=True).warnings
    assert dropped[0].startswith(f"{long[:60]} was dropped")


def test_names_that_are_dropped_beyond_the_first_are_counted() -> None:
    params = {f"see{number}": number for number in range(MAX_PROBLEMS + 5)}
    translation = translate(model("core"), {"prompt": "a", **params}, drop_params=True)
    assert not translation.problems
    assert len(translation.warnings) == MAX_PROBLEMS + 1
    assert translation.warnings[-1] == "5 more unknown parameters were dropped"
    params = {f"see{number}": number for number in range(MAX_PROBLEMS)}
    translation = translate(model("core"), {"prompt": "a", **params}, drop_params=True)
    assert len(translation.warnings) == MAX_PROBLEMS
    translation = translate(model("core"), {"prompt": "a", **params, "api_key": "x", "see": 1}, drop_params=True)
    assert warnings_of(translation) == ["api_key"]
    assert translation.warnings[-1] == "1 more unknown parameters were dropped"


def test_a_user_for_whom_a_provider_has_no_place_is_told() -> None:
    import attrs

    operation = model("sd3")
    nowhere = attrs.evolve(operation, provider=attrs.evolve(operation.provider, user_header=None))
    translation = translate(nowhere, {"prompt": "a", "user": "ann"})
    assert translation.user is None
    assert translation.warnings == ("user was not sent: stability has no place for it",)


def test_nothing_is_said_of_what_was_not_asked_for() -> None:
    translation = translate(model("sd3"), {"prompt": "a"}, edit=False)
    assert translation == Translation(params={"prompt": "a"}, words={"prompt": "prompt"})
    assert translate(model("sd3"), {"prompt": "a", "n": 10}).n == 10
    assert translate(model("sd3"), {"prompt": "a"}, drop_params=False) == translation


def test_a_mask_is_told_if_it_is_alone_or_has_no_place() -> None:
    assert translated("inpaint", image=PICTURE, mask=PICTURE).problems == ()
    assert translate(model("inpaint"), {"mask": PICTURE, "image": [None]}).problems != ()
    dropped = translate(model("sd3"), {"prompt": "a", "mask": PICTURE}, drop_params=True)
    assert (dropped.problems, dropped.params) == ((), {"prompt": "a"})
    assert dropped.warnings[0].startswith("mask was dropped")
