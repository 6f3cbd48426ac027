"""The four functions over a real socket: what they take, what reaches the wire, what they answer."""

import base64
import enum
import inspect
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import impasto
from impasto import ConfigError, InvalidRequest, UnknownOperation
from tests.conftest import KEY
from tests.images import WRONG, damaged, drawn, png
from tests.recorder import ReceivedRequest, Recorder

PICTURE = png(100, 100)


def clear_mask(width: int = 100, height: int = 100) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (width, height)).save(out, "PNG")
    return out.getvalue()


def refusal(error: InvalidRequest) -> list[str]:
    return [problem.field for problem in error.problems]


# the surface


def test_positional_orders() -> None:
    def first(function: Callable[..., object]) -> list[str]:
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert first(impasto.image_generation) == ["prompt", "model"]
    assert first(impasto.aimage_generation) == ["prompt", "model"]
    assert first(impasto.image_edit) == ["image", "prompt", "model", "mask"]
    assert first(impasto.aimage_edit) == ["image", "model", "prompt", "mask"]


def test_names_are_their_own() -> None:
    for name in ("image_generation", "aimage_generation", "image_edit", "aimage_edit"):
        function = getattr(impasto, name)
        assert (function.__name__, inspect.iscoroutinefunction(function)) == (name, name.startswith("a"))
        assert function.__doc__


def test_positional_calls_without_a_loop(wire: Recorder) -> None:
    impasto.image_generation("a lighthouse", "stability/stable-image-core")
    impasto.image_edit(PICTURE, "a sunset", "stability/inpaint", png(100, 100))
    generation, edit = wire.posts
    assert (generation.path, generation.fields) == ("/v2beta/stable-image/generate/core", {"prompt": "a lighthouse"})
    assert (edit.path, edit.fields) == ("/v2beta/stable-image/edit/inpaint", {"prompt": "a sunset"})
    assert {name: part.data for name, part in edit.files.items()} == {"image": PICTURE, "mask": png(100, 100)}


async def test_positional_calls_in_a_loop(wire: Recorder) -> None:
    await impasto.aimage_generation("a lighthouse", "stability/stable-image-core")
    await impasto.aimage_edit(PICTURE, "stability/inpaint", "a sunset")
    generation, edit = wire.posts
    assert generation.fields == {"prompt": "a lighthouse"}
    assert (edit.fields, list(edit.files)) == ({"prompt": "a sunset"}, ["image"])


async def test_none_everywhere_is_as_if_nothing_was_given(wire: Recorder) -> None:
    names = [p.name for p in inspect.signature(impasto.aimage_edit).parameters.values() if p.kind is not p.VAR_KEYWORD]
    params: dict[str, object] = {
        **dict.fromkeys(names),
        "image": PICTURE,
        "model": "stability/upscale-fast",
        "seed": None,
        "nonsense": None,
    }
    response = await impasto.aimage_edit(**params)  # type: ignore[call-overload]  # each None is one of its types
    assert (wire.posts[0].fields, list(wire.posts[0].files)) == ({}, ["image"])
    assert response.warnings == []


async def test_everything_by_keyword(wire: Recorder) -> None:
    response = await impasto.aimage_generation(
        model="stability/sd3.5-large",
        prompt="a lighthouse",
        n=2,
        size="1536x1024",
        quality="auto",
        response_format="b64_json",
        background="opaque",
        moderation="auto",
        output_format="webp",
        output_compression=100,
        user="ann",
        style_preset="anime",
        extra_body={"seed": 5, "cfg_scale": 4.5},
        api_key="sk-another",
        api_base=wire.url,
        timeout=20,
        drop_params=False,
    )
    assert response.warnings == []
    shared = {
        "prompt": "a lighthouse", "aspect_ratio": "3:2", "output_format": "webp", "style_preset": "anime",
        "cfg_scale": "4.5", "model": "sd3.5-large",
    }  # fmt: skip
    assert sorted(post.fields["seed"] for post in wire.posts) == ["5", "6"]
    for post in wire.posts:
        assert {**post.fields, "seed": ""} == {**shared, "seed": ""}
        assert post.header("stability-client-user-id") == "ann"
        assert post.header("authorization") == "Bearer sk-another"


# pictures in every form


@pytest.mark.parametrize(
    "form", ["bytes", "bytearray", "list", "path", "text", "file", "BytesIO", "uri", "pair", "triple"]
)
async def test_a_picture_in_any_form_arrives_byte_for_byte(form: str, wire: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(PICTURE)
    with path.open("rb") as file:
        image: object = {
            "bytes": PICTURE,
            "bytearray": bytearray(PICTURE),
            "list": [PICTURE],
            "path": path,
            "text": str(path),
            "file": file,
            "BytesIO": io.BytesIO(PICTURE),
            "uri": "data:image/png;base64," + base64.b64encode(PICTURE).decode(),
            "pair": ("x.jpg", PICTURE),
            "triple": ("x.jpg", PICTURE, "image/jpeg"),
        }[form]
        await impasto.aimage_edit(image, "stability/upscale-fast")  # type: ignore[call-overload]  # one of many forms
        assert not file.closed
    [part] = wire.posts[0].files.values()
    assert (part.name, part.data, part.content_type) == ("image", PICTURE, "image/png")


@pytest.mark.parametrize(
    "image",
    ["https://example.com/a.png", "http://[::1]/a.png", "file:///etc/passwd", "no such file.png", "", 7, True, object(),
     io.StringIO("text"), ["a", 7], [None], b"", *WRONG.values(),
     *damaged().values()],
)  # fmt: skip
async def test_an_invalid_image_is_refused_by_name_and_nothing_is_sent(image: object, wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_edit(image, "stability/upscale-fast")  # type: ignore[call-overload]
    assert refusal(caught.value) == ["image"]
    assert not wire.requests


async def test_closed_and_text_mode_files_are_refused(wire: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    with path.open("rb") as closed:
        pass
    with path.open(encoding="latin-1") as text:
        for image, message in ((closed, "closed"), (text, "'rb'")):
            with pytest.raises(InvalidRequest, match=message) as caught:
                await impasto.aimage_edit(image, "stability/upscale-fast")  # type: ignore[arg-type]
            assert refusal(caught.value) == ["image"]
    assert not wire.requests


# masks


async def test_openais_mask_is_converted_and_the_providers_passes(wire: Recorder) -> None:
    await impasto.aimage_edit(PICTURE, "stability/erase", mask=clear_mask())
    with Image.open(io.BytesIO(wire.posts[0].files["mask"].data)) as sent:
        assert (sent.mode, sent.size, sent.getextrema()) == ("L", (100, 100), (255, 255))
    for own in (png(100, 100), drawn("JPEG", size=(100, 100))):
        await impasto.aimage_edit(PICTURE, "stability/erase", mask=own)
        assert wire.posts[-1].files["mask"].data == own


async def test_a_mask_of_another_size_passes_with_a_warning(wire: Recorder) -> None:
    for mask in (clear_mask(20, 30), png(20, 30)):
        response = await impasto.aimage_edit(PICTURE, "stability/erase", mask=mask)
        assert len(response.warnings) == 1
        assert "20x30" in response.warnings[0]
    assert len(wire.posts) == 2


class Failing:
    """Reads as a gzip file that was cut short does."""

    def read(self) -> bytes:
        raise EOFError("ended before the end-of-stream marker was reached")


@pytest.mark.parametrize("mask", [b"no picture", clear_mask()[:60], "https://example.com/mask.png", 7, Failing()])
async def test_a_mask_that_is_no_picture_is_refused_by_name(mask: object, wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_edit(PICTURE, "stability/erase", mask=mask)  # type: ignore[call-overload]
    assert refusal(caught.value) == ["mask"]
    assert not wire.requests


async def test_a_mask_without_a_picture_is_refused_by_name(wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", "stability/inpaint", mask=png(100, 100))
    assert refusal(caught.value) == ["mask", "image"]


# refusals


async def test_all_problems_come_at_once_under_the_callers_names(wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_edit(
            [png(5, 5), png(9, 9)],
            "stability/style-transfer",
            " ",
            b"a mask that the model does not take",
            n=11,
            size="0x0",
            response_format="file",
            user="\n",
            style="natural",
            fidelity=2,
            sed=1,
            extra_body={"seed": -1},
        )
    fields = [
        "n",
        "response_format",
        "user",
        "mask",
        "prompt",
        "size",
        "style",
        "sed",
        "image",
        "image",
        "fidelity",
        "seed",
    ]
    assert refusal(caught.value) == fields
    assert "style_image" in str(caught.value)
    assert caught.value.operation == "stability/style-transfer"
    assert not wire.requests


async def test_a_seed_that_n_pictures_would_count_past_its_bound_comes_with_all_else(wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", "stability/sd3", n=3, seed=4_294_967_294, style="natural")
    assert refusal(caught.value) == ["style", "seed"]
    assert not wire.requests


@pytest.mark.parametrize("model", [None, "", 7, True, ["stability/sd3"]])
async def test_the_model_is_required(model: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", model)  # type: ignore[call-overload]
    assert refusal(caught.value) == ["model"]


async def test_an_unknown_model_is_refused_with_the_closest_names() -> None:
    with pytest.raises(UnknownOperation, match=r"stability/sd3\.5-large"):
        await impasto.aimage_generation("a", "stability/sd3.5-lrge")
    with pytest.raises(UnknownOperation):
        await impasto.aimage_generation("a", "sd3.5-large")


async def test_prompts_at_the_longest(wire: Recorder) -> None:
    await impasto.aimage_generation("\U0001f5bc" * 10_000, "stability/sd3")
    assert wire.posts[0].fields["prompt"] == "\U0001f5bc" * 10_000
    bad: tuple[object, ...] = ("a" * 10_001, 7, [], {}, "a\x00")
    for prompt in bad:
        with pytest.raises(InvalidRequest) as caught:
            await impasto.aimage_generation(prompt, "stability/sd3")  # type: ignore[call-overload]
        assert refusal(caught.value) == ["prompt"]
    assert len(wire.posts) == 1


@pytest.mark.parametrize(
    "prompt", ["(word:999)", "{{7*7}}", "%n%s", "'; DROP", "a\r\nb", "\x1b[31m", "\u202eabc", "\u200d"]
)
async def test_prompts_reach_the_wire_as_they_are(prompt: str, wire: Recorder) -> None:
    await impasto.aimage_generation(prompt, "stability/sd3")
    assert wire.posts[0].fields["prompt"] == prompt


async def test_scalars_are_never_coerced(wire: Recorder) -> None:
    for name, value in (("seed", "1"), ("seed", True), ("seed", 1.0), ("cfg_scale", "4"), ("cfg_scale", float("nan"))):
        with pytest.raises(InvalidRequest) as caught:
            await impasto.aimage_generation("a", "stability/sd3", extra_body={name: value})
        assert refusal(caught.value) == [name]
    assert not wire.requests


class Word(str, enum.Enum):  # noqa: UP042 - a StrEnum shows its text anyway
    """The kind of enum whose members an f-string shows by their names, as Python 3.11 and later do."""

    MODEL = "stability/sd3"
    KEY = "sk-of-an-enum"
    SIZE = "1000x1001"
    QUALITY = "standard"
    FORMAT = "url"
    USER = "ann"
    STYLE = "anime"
    PROMPT = "a lighthouse"


async def test_an_enums_members_are_their_text(wire: Recorder) -> None:
    response = await impasto.aimage_generation(
        Word.PROMPT,
        Word.MODEL,
        size=Word.SIZE,
        quality=Word.QUALITY,
        response_format=Word.FORMAT,
        user=Word.USER,
        style_preset=Word.STYLE,
        api_key=Word.KEY,
    )
    [post] = wire.posts
    assert post.fields == {"prompt": "a lighthouse", "aspect_ratio": "1:1", "style_preset": "anime"}
    assert post.header("stability-client-user-id") == "ann"
    assert post.header("authorization") == "Bearer sk-of-an-enum"
    assert response.data[0].url
    assert response.warnings == ["size 1000x1001 became aspect_ratio 1:1, the nearest of this model's"]


class Awkward:
    """Compares as an array does: neither equal nor not."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]  # as arrays have none


@pytest.mark.parametrize(
    "name", ["prompt", "n", "size", "response_format", "quality", "background", "user", "seed", "style_preset"]
)
async def test_a_value_that_can_not_be_compared_is_refused_by_name(name: str, wire: Recorder) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation(**{"prompt": "a", "model": "stability/sd3", name: Awkward()})  # type: ignore[call-overload]
    assert refusal(caught.value) == [name]
    assert not wire.requests


# how the provider is reached


async def test_the_environment_counts_as_it_is_at_each_call(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    await impasto.aimage_generation("a", "stability/sd3")
    monkeypatch.setenv("STABILITY_API_KEY", "sk-the-second")
    await impasto.aimage_generation("a", "stability/sd3")
    monkeypatch.delenv("STABILITY_API_KEY")
    with pytest.raises(ConfigError, match="STABILITY_API_KEY"):
        await impasto.aimage_generation("a", "stability/sd3")
    assert [post.header("authorization") for post in wire.posts] == [f"Bearer {KEY}", "Bearer sk-the-second"]


@pytest.mark.parametrize(
    "setting",
    [{"api_key": ""}, {"api_key": "sk\n"}, {"api_key": "é"}, {"api_key": "a b"}, {"api_base": "ftp://x"},
     {"api_base": "http://example.com"}, {"api_base": ""}, {"api_base": 0}, {"timeout": 0}, {"timeout": "soon"},
     {"timeout": True}, {"base_model": "bedrock/stability.x"}],
)  # fmt: skip
async def test_wrong_settings_are_refused_before_any_socket(setting: dict[str, object], wire: Recorder) -> None:
    with pytest.raises(ConfigError):
        await impasto.aimage_generation("a", "stability/sd3", **setting)  # type: ignore[call-overload]
    assert not wire.requests


async def test_timeout_ends_the_call(wire: Recorder) -> None:
    def slow(_: ReceivedRequest) -> None:
        time.sleep(0.5)

    wire.answer = slow
    with pytest.raises(impasto.ChargeUnknown, match=r"0\.1 s"):
        await impasto.aimage_generation("a", "stability/sd3", timeout=0.1)


def test_importing_the_functions_imports_nothing_heavy() -> None:
    source = "import sys, impasto; impasto.image_edit; print([m for m in ('aiohttp', 'PIL') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
