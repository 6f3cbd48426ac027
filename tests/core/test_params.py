"""The converter: scalars are strict, None is not given, unknown names are refused, all problems come at once."""

from __future__ import annotations

import enum
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, strategies as st

from impasto import File, InvalidRequest
from impasto.fields import choice, fields_of, file, integer, number, text
from impasto.params import structure
from impasto.redact import printable
from impasto.rules import Excludes, Needs, OneOf
from impasto_plugins.stability.rules import NeedsOneOf, OneNonZero
from tests.descriptors import open_descriptors
from tests.images import png


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 10, required=True)
    style: str | None = choice("anime", "cinematic", default="anime")
    seed: int | None = integer(0, 100)
    strength: float | None = number(0.25, 1)
    free: float | None = number()
    image: File | None = file()


def refused(params: type, fields: dict[str, Any], rules: tuple[Any, ...] = ()) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        structure(params, fields, rules)
    assert str(caught.value).endswith(" (nothing was sent)")
    problems = {problem.field: problem.message for problem in caught.value.problems}
    assert len(problems) == len(caught.value.problems), "one problem a field"
    return problems


def taken(**fields: Any) -> dict[str, Any]:
    params = structure(Params, {"prompt": "x", **fields})
    return {a.name: value for a in attrs.fields(Params) if (value := getattr(params, a.name)) is not None}


HUGE = 10**5000
WRONG: list[tuple[str, object, str]] = [
    ("prompt", 5, "must be text, not a whole number"),
    ("prompt", b"x", "must be text, not bytes"),
    ("prompt", ["x"], "must be text, not a list"),
    ("prompt", "", "must be text of 1 to 10 characters, got 0"),
    ("prompt", "x" * 11, "must be text of 1 to 10 characters, got 11"),
    ("prompt", "x" * 12345, "must be text of 1 to 10 characters, got 12,345"),
    ("prompt", " \n\t", "must not be blank"),
    ("prompt", "a\x00b", "must not contain a NUL character"),
    ("prompt", "a\ud800", "contains half a surrogate pair, which is invalid text"),
    ("style", "Anime", "must be one of anime, cinematic, not 'Anime'"),
    ("style", "", "must be one of anime, cinematic, not ''"),
    ("style", 7, "must be one of anime, cinematic, not 7"),
    ("style", ["anime"], "must be one of anime, cinematic, not a list"),
    ("style", "x" * 500, f"must be one of anime, cinematic, not '{'x' * 56}..."),
    ("seed", True, "must be a whole number from 0 to 100, not true"),
    ("seed", "1", "must be a whole number from 0 to 100, not '1'"),
    ("seed", 1.0, "must be a whole number from 0 to 100, not 1.0"),
    ("seed", -1, "must be a whole number from 0 to 100, not -1"),
    ("seed", 101, "must be a whole number from 0 to 100, not 101"),
    ("seed", HUGE, "must be a whole number from 0 to 100, not a far larger number"),
    ("strength", "0.5", "must be a number from 0.25 to 1, not '0.5'"),
    ("strength", False, "must be a number from 0.25 to 1, not false"),
    ("strength", math.nan, "must be a number from 0.25 to 1, not nan"),
    ("strength", math.inf, "must be a number from 0.25 to 1, not inf"),
    ("strength", 1e-400, "must be a number from 0.25 to 1, not 0.0"),
    ("strength", HUGE, "must be a number from 0.25 to 1, not a far larger number"),
    ("strength", Fraction(1, 2), "must be a number from 0.25 to 1, not Fraction"),
    ("strength", 1j, "must be a number from 0.25 to 1, not complex"),
    ("free", math.nan, "must be a number, not nan"),
    ("free", -math.inf, "must be a number, not -inf"),
    ("image", b"", "is empty"),
    ("image", 5, "must be bytes, a path, an open binary file or a data: URI, not int"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_a_wrong_value_is_refused_in_words(name: str, value: object, message: str) -> None:
    assert refused(Params, {"prompt": "x", name: value}) == {name: message}


def test_all_problems_come_at_once_each_named() -> None:
    params = {"style": "none", "seed": True, "strength": 2, "image": b"", "promt": "x", "zzz": 1}
    assert refused(Params, params) == {
        "prompt": "required",
        "style": "must be one of anime, cinematic, not 'none'",
        "seed": "must be a whole number from 0 to 100, not true",
        "strength": "must be a number from 0.25 to 1, not 2",
        "image": "is empty",
        "promt": "unknown parameter 'promt'; did you mean 'prompt'?",
        "zzz": "unknown parameter 'zzz'; allowed: prompt, style, seed, strength, free, image",
    }


def test_a_name_that_would_forge_a_log_line_is_escaped() -> None:
    assert list(refused(Params, {"prompt": "x", "see\n\x1b[1m\u202e": 1, "y" * 500: 1})) == [
        "see\\n\\x1b[1m\\u202e",
        "y" * 60,
    ]


def test_none_is_not_given() -> None:
    assert taken(style=None, seed=None, image=None) == {"prompt": "x"}
    assert refused(Params, {"prompt": None}) == {"prompt": "required"}


def test_the_providers_defaults_are_not_put_in() -> None:
    assert structure(Params, {"prompt": "x"}).style is None


def test_members_of_enums_and_other_subclasses_become_plain() -> None:
    class Style(str, enum.Enum):  # noqa: UP042 - str() of StrEnum's members is their text already
        ANIME = "anime"

    class Level(enum.IntEnum):
        LOW = 3

    class Percent(float):
        def __repr__(self) -> str:
            return "Percent(0.5)"

    params = taken(prompt=Style.ANIME, style=Style.ANIME, seed=Level.LOW, strength=Percent(0.5))
    assert params == {"prompt": "anime", "style": "anime", "seed": 3, "strength": 0.5}
    assert [type(value) for value in params.values()] == [str, str, int, float]
    assert [str(value) for value in params.values()] == ["anime", "anime", "3", "0.5"]


def test_a_zero_has_no_sign() -> None:
    assert str(taken(free=-0.0)["free"]) == "0.0"


def test_files_of_a_refused_request_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8))
    with path.open("rb") as source:
        refused(Params, {"image": source, "seed": -1, "prompt": "x"})
    assert open_descriptors(path) == 0


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters())
    | st.sampled_from(["anime", "x", 10**4000, "\ud800", "data:", "\x00", b"", 1e-320]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([a.name for a in attrs.fields(Params)]) | st.text(max_size=12)
RULES = (
    Needs("image", ("strength",)),
    Needs("style", ("seed",), "anime"),
    Excludes("style", "cinematic", ("seed",), by_default=True),
    OneOf(("style", "seed")),
    NeedsOneOf("strength", ("image", "free")),
    OneNonZero(("seed", "strength")),
)


@given(st.dictionaries(names, json_like, max_size=8))
def test_whatever_is_given_is_taken_unchanged_or_refused_by_name(values: dict[str, Any]) -> None:
    values = {name: value for name, value in values.items() if name != "image" or not isinstance(value, str)}
    try:
        params = structure(Params, values, RULES)
    except InvalidRequest as error:
        refused_for = {problem.field for problem in error.problems}
        str(error).encode()
    else:
        refused_for = set()
        for name, value in values.items():
            if value is not None and name != "image":
                assert getattr(params, name) == value
                assert type(getattr(params, name)) is type(value)
    assert refused_for <= {a.name for a in attrs.fields(Params)} | {printable(name[:60]) for name in values}


@given(st.floats(0.25, 1), st.integers(0, 100), st.text(min_size=1, max_size=10))
def test_valid_values_round_trip(strength: float, seed: int, prompt: str) -> None:
    if prompt.strip() and "\x00" not in prompt:
        assert taken(prompt=prompt, strength=strength, seed=seed) == {
            "prompt": prompt,
            "strength": strength,
            "seed": seed,
        }


# A class that knows nothing of our field functions: types and attrs's own validators are enough.


@attrs.frozen(kw_only=True)
class Size:
    width: int
    height: int


@attrs.frozen(kw_only=True)
class Plain:
    prompt: str
    steps: int = attrs.field(default=30, validator=[attrs.validators.ge(1), attrs.validators.le(50)])
    scale: float | None = None
    sampler: Literal["euler", "ddim"] = "euler"
    tile: bool = False
    image: File | None = None
    size: Size | None = None


def test_a_plain_class_is_as_strict() -> None:
    params = structure(Plain, {"prompt": "x", "steps": 3, "scale": 2, "tile": True, "size": {"width": 1, "height": 2}})
    assert params == Plain(prompt="x", steps=3, scale=2, tile=True, size=Size(width=1, height=2))
    assert refused(Plain, {"prompt": 5, "steps": "3", "scale": True, "tile": 1, "image": 5, "stpes": 1, "sise": 1}) == {
        "prompt": "must be text, not a whole number",
        "steps": "must be a whole number, not '3'",
        "scale": "must be a number, not true",
        "tile": "must be true or false, not a whole number",
        "image": "must be bytes, a path, an open binary file or a data: URI, not int",
        "stpes": "unknown parameter 'stpes'; did you mean 'steps'?",
        "sise": "unknown parameter 'sise'; did you mean 'size'?",
    }


def test_a_plain_classs_own_validators_name_the_field() -> None:
    assert refused(Plain, {"prompt": "x", "steps": 99}) == {"steps": "'steps' must be <= 50: 99"}


def test_a_problem_deep_down_is_reported() -> None:
    problems = refused(Plain, {"prompt": "x", "size": {"width": "1", "height": True}})
    assert problems == {"size": "must be a whole number, not '1'; must be a whole number, not true"}


def test_a_plain_class_describes_itself() -> None:
    described = {name: (f.kind, f.required, f.default, f.describe_constraint()) for name, f in fields_of(Plain).items()}
    assert described == {
        "prompt": ("text", True, None, "text"),
        "steps": ("integer", False, 30, "a whole number"),
        "scale": ("number", False, None, "a number"),
        "sampler": ("choice", False, "euler", "one of euler, ddim"),
        "tile": ("other", False, False, "bool"),
        "image": ("file", False, None, "a file: PNG, JPEG or WebP"),
        "size": ("other", False, None, "Size"),
    }


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (text(), "text"),
        (text(2), "text of at least 2 characters"),
        (text(0, 0), "text of exactly 0 characters"),
        (integer(1), "a whole number of at least 1"),
        (number(0.1, 4_294_967_294), "a number from 0.1 to 4294967294"),
        (file(limits="png"), "a file: png"),
    ],
)
def test_a_constraint_in_words(field: Any, words: str) -> None:
    [described] = fields_of(attrs.make_class("Made", {"a": field})).values()
    assert described.describe_constraint() == words


def test_a_file_is_let_go_when_its_inspection_fails(tmp_path: Path) -> None:
    def inspect(_: File) -> list[str]:
        raise KeyError("a plugin's own mistake")

    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8))
    params_class = attrs.make_class("Inspected", {"image": file(inspect, required=True)}, frozen=True, kw_only=True)
    with path.open("rb") as source:
        problems = refused(params_class, {"image": source})
    assert problems == {"image": repr("a plugin's own mistake")}, "not that it is missing"
    assert open_descriptors(path) == 0


def test_files_are_let_go_when_only_a_rule_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8))
    with path.open("rb") as source:
        assert refused(Params, {"prompt": "x", "image": source}, (Needs("image", ("strength",)),)) == {
            "strength": "required when image is given"
        }
    assert open_descriptors(path) == 0


def test_other_types_of_attributes_are_taken_as_cattrs_takes_them() -> None:
    [tile] = fields_of(attrs.make_class("Tiled", {"tile": attrs.field(type=bool)})).values()
    assert tile.check(True) is True
