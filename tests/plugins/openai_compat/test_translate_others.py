"""OpenAI's parameters for someone else's model: nothing here is Stability's."""

import attrs

from impasto import File, Operation, Provider
from impasto.fields import choice, file, number, text
from impasto_plugins.openai_compat.translate import translate
from impasto_plugins.stability.direct import direct


@attrs.frozen(kw_only=True)
class Params:
    """Fields that carry OpenAI's names, a prompt and a mask without a declared role, and an odd aspect_ratio."""

    prompt: str = text(1, 100, required=True)
    picture: File | None = file()
    mask: File | None = file(role=None)
    quality: str | None = choice("draft", "hd")
    size: str | None = choice("1K", "2K")
    user: str | None = text()
    aspect_ratio: float | None = number(0.1, 10)


ACME = Operation(
    id="acme/paint",
    title="Paint",
    params=Params,
    target="/paint",
    provider=Provider(name="acme", base_url="https://acme.example"),
    dialect=direct,
)


def test_a_models_own_field_comes_before_openais_word_of_that_name() -> None:
    params = {"prompt": "a", "quality": "hd", "size": "2K", "user": "é", "image": b"1", "mask": b"2"}
    translation = translate(ACME, params)
    assert not translation.problems
    assert translation.params == {
        "prompt": "a", "quality": "hd", "size": "2K", "user": "é", "picture": b"1", "mask": b"2",
    }  # fmt: skip
    assert translation.user is None


@attrs.frozen(kw_only=True)
class Bare:
    prompt: str = text(1, 100, required=True)


def test_a_provider_without_a_place_for_the_user_says_so() -> None:
    translation = translate(attrs.evolve(ACME, params=Bare), {"prompt": "a", "user": "ann"})
    assert (translation.user, translation.problems) == (None, ())
    assert translation.warnings == ("user was not sent: acme has no place for it",)


def test_a_user_of_the_body_reaches_the_dialect() -> None:
    model = attrs.evolve(ACME, params=Bare, provider=attrs.evolve(ACME.provider, user_field="end_user"))
    translation = translate(model, {"prompt": "a", "user": "ann"})
    assert (translation.user, translation.warnings) == ("ann", ())
