"""What users of the best-known client met with Stability's own API: each fault is one test, against the emulator.

Those of Bedrock are beside this file; a gateway's stand with its tests.
"""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Iterator

import attrs
import pytest
from PIL import Image

import impasto
from impasto import aimage_edit, aimage_generation
from impasto_plugins.emulator import SHORT, Emulator, serve
from impasto_plugins.openai_compat.response import ImagesResponse
from tests.conftest import KEY
from tests.images import png

PICTURE = png(128, 96)
SD3 = {
    "sd3-large": 6.5,
    "sd3-large-turbo": 4,
    "sd3-medium": 3.5,
    "sd3.5-large": 6.5,
    "sd3.5-large-turbo": 4,
    "sd3.5-medium": 3.5,
    "sd3.5-flash": 2.5,
}
"""Credits by model."""


def open_image(response: ImagesResponse) -> Image.Image:
    """The first picture of an answer."""
    return Image.open(io.BytesIO(b64decode(response.data[0].b64_json or "")))


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with serve(attrs.evolve(SHORT, strict=True)) as running:
        monkeypatch.setenv("STABILITY_API_BASE", running.url)
        monkeypatch.setenv("STABILITY_API_KEY", KEY)
        monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.05")
        yield running


@pytest.mark.parametrize("model", SD3)
async def test_each_sd3_model_is_named_in_the_form_and_costs_its_own_price(model: str, emulator: Emulator) -> None:
    """Seen: no ``model`` field (all variants sent one request) and an empty file named ``none``."""
    response = await aimage_generation("a lighthouse", f"stability/{model}")
    [request] = emulator.requests
    assert request.fields == {"prompt": "a lighthouse", "model": model}
    assert not request.files
    assert response.cost is not None
    assert response.cost.credits == emulator.credits == SD3[model]


async def test_n_pictures_of_a_generation_are_n_calls(emulator: Emulator) -> None:
    """Seen: n=3 made one call and one picture, without a warning."""
    response = await aimage_generation("a lighthouse", "stability/stable-image-core", n=3)
    assert len(response.data) == len(emulator.charges) == 3
    assert not response.warnings
    assert not response.errors


async def test_n_pictures_of_an_edit_are_n_calls(emulator: Emulator) -> None:
    """Seen: n=2 made one call and one picture, without a warning."""
    response = await aimage_edit(PICTURE, "stability/inpaint", "a sunset", n=2)
    assert len(response.data) == len(emulator.charges) == 2


@pytest.mark.parametrize(
    ("size", "ratio"), [("1536x1024", "3:2"), ("1024x1536", "2:3"), ("1792x1024", "16:9"), ("1344x768", "16:9")]
)
async def test_every_size_is_honoured(size: str, ratio: str, emulator: Emulator) -> None:
    """Seen: a size outside a table of five was dropped, and the picture came square."""
    response = await aimage_generation("a lighthouse", "stability/sd3.5-large", size=size)
    assert emulator.requests[0].fields["aspect_ratio"] == ratio
    picture = open_image(response)
    assert (picture.width > picture.height) == (ratio != "2:3")


async def test_response_format_url_answers_a_url(emulator: Emulator) -> None:
    """Seen: it silently answered base64."""
    response = await aimage_generation("a lighthouse", "stability/sd3", response_format="url")
    assert response.data[0].b64_json is None
    assert (response.data[0].url or "").startswith("data:image/png;base64,")


async def test_openais_parameters_are_honoured_or_mean_nothing(emulator: Emulator) -> None:
    """Seen: quality, background, output_format, user and moderation were refused."""
    response = await aimage_generation(
        "a lighthouse", "stability/sd3", quality="standard", background="auto", moderation="auto",
        output_format="webp", output_compression=100, user="ann",
    )  # fmt: skip
    [request] = emulator.requests
    assert request.fields == {"prompt": "a lighthouse", "output_format": "webp"}
    assert request.headers["stability-client-user-id"] == "ann"
    assert response.warnings == []


async def test_style_is_refused_with_what_to_use_and_dropped_when_asked(emulator: Emulator) -> None:
    """Seen: refused without a word of the provider's own field."""
    with pytest.raises(impasto.InvalidRequest, match=r"style: .*style_preset"):
        await aimage_generation("a lighthouse", "stability/sd3", style="natural")
    assert not emulator.requests
    response = await aimage_generation("a lighthouse", "stability/sd3", style="natural", drop_params=True)
    assert "style was dropped" in response.warnings[0]


async def test_an_edits_output_format_is_honoured(emulator: Emulator) -> None:
    """Seen: output_format="webp" silently made a png."""
    response = await aimage_edit(PICTURE, "stability/inpaint", "a sunset", output_format="webp")
    assert emulator.requests[0].fields["output_format"] == "webp"
    assert open_image(response).format == "WEBP"


async def test_outpaint_sends_all_four_sides(emulator: Emulator) -> None:
    """Seen: up and down were dropped, as top and bottom were forwarded."""
    response = await aimage_edit(PICTURE, "stability/outpaint", left=10, right=20, up=30, down=40)
    assert emulator.requests[0].fields == {"left": "10", "right": "20", "up": "30", "down": "40"}
    assert open_image(response).size == (128 + 30, 96 + 70)
    with pytest.raises(impasto.InvalidRequest, match="unknown parameter 'top'"):
        await aimage_edit(PICTURE, "stability/outpaint", top=10)


@pytest.mark.parametrize("as_list", [True, False])
async def test_style_transfer_goes_to_its_own_path_with_both_pictures(as_list: bool, emulator: Emulator) -> None:
    """Seen: ``stability/style-transfer`` went to ``/control/style``, and the second picture was dropped."""
    second = png(100, 100)
    if as_list:
        await aimage_edit([PICTURE, second], "stability/style-transfer")
    else:
        await aimage_edit(PICTURE, "stability/style-transfer", style_image=second)
    [request] = emulator.requests
    assert request.target == "/v2beta/stable-image/control/style-transfer"
    assert {name: part.bytes for name, part in request.files.items()} == {
        "init_image": len(PICTURE),
        "style_image": len(second),
    }


@pytest.mark.parametrize("model", ["upscale-creative", "replace-background-and-relight"])
async def test_asynchronous_models_are_polled_to_their_picture(model: str, emulator: Emulator) -> None:
    """Seen: the job's id counted as success: no picture, no polling, and its cost was booked."""
    response = await aimage_edit(PICTURE, f"stability/{model}", "a beach at noon")
    assert open_image(response).width > 0
    assert len(emulator.charges) == 1
    polls = [each for each in emulator.requests if each.method == "GET"]
    assert polls
    assert all("/results/" in each.target for each in polls)


async def test_moderation_is_an_error_of_its_own(emulator: Emulator) -> None:
    """Seen: a 403 of moderation was a PermissionDeniedError, so no content policy rule matched it."""
    with pytest.raises(impasto.ContentFiltered) as caught:
        await aimage_generation("[content_moderation]", "stability/sd3")
    assert (caught.value.status, caught.value.billed) == (403, "no")
    assert len(emulator.requests) == 1
    assert not emulator.charges


async def test_a_filtered_picture_is_never_a_normal_one(emulator: Emulator) -> None:
    """Seen: a BadRequestError, or (another gateway) the blurred picture as a normal result."""
    with pytest.raises(impasto.ContentFiltered) as caught:
        await aimage_generation("[content_filtered]", "stability/sd3")
    assert caught.value.billed == "unknown"
    assert caught.value.artifacts[0].finish_reason == "CONTENT_FILTERED"
    assert len(emulator.requests) == len(emulator.charges) == 1


async def test_seed_and_finish_reason_come_with_the_picture(emulator: Emulator) -> None:
    """Seen: both were thrown away."""
    response = await aimage_generation("a lighthouse", "stability/sd3", seed=1234)
    assert (response.data[0].seed, response.data[0].finish_reason) == (1234, "SUCCESS")
    drawn = await aimage_generation("a lighthouse", "stability/sd3")
    assert drawn.data[0].seed == emulator.charges[-1].seed
    assert drawn["data"][0]["seed"] == drawn.model_dump()["data"][0]["seed"]  # type: ignore[index]


@pytest.mark.parametrize(
    "model", ["stability/sd4", "stability/sd3.5-larg", "stability/creative", "sd3.5-large", "stability/"]
)
async def test_an_unknown_model_is_refused(model: str, emulator: Emulator) -> None:
    """Seen: it was quietly sent to SD3, or to inpaint."""
    with pytest.raises(impasto.UnknownOperation, match=r"closest: .*stability/"):
        await aimage_generation("a lighthouse", model)
    with pytest.raises(impasto.UnknownOperation):
        await aimage_edit(PICTURE, model, "a lighthouse")
    assert not emulator.requests


@pytest.mark.parametrize(
    ("model", "usd"), [("inpaint", 0.05), ("upscale-conservative", 0.40), ("upscale-creative", 0.60), ("erase", 0.05)]
)
async def test_an_edit_costs_what_is_charged(model: str, usd: float, emulator: Emulator) -> None:
    """Seen: edit prices a tenth of the real ones, so budgets counted too little."""
    response = await aimage_edit(PICTURE, f"stability/{model}", "a lighthouse")
    assert response.cost is not None
    assert response.cost.usd == pytest.approx(usd)
    assert sum(charge.usd for charge in emulator.charges) == pytest.approx(usd)


async def test_content_decides_the_type_and_a_list_of_one_is_one(emulator: Emulator) -> None:
    """Seen: bytes without a type were refused, and so was ``image`` as a list."""
    await aimage_edit([PICTURE], "stability/upscale-fast")
    [part] = emulator.requests[0].files.values()
    assert (part.media_type, part.declared) == ("image/png", "image/png")


async def test_a_second_picture_is_refused_where_one_is_taken(emulator: Emulator) -> None:
    """Seen: the second of two pictures was silently ignored."""
    with pytest.raises(impasto.InvalidRequest, match="image: this model takes one image, not 2"):
        await aimage_edit([PICTURE, PICTURE], "stability/inpaint", "a sunset")
    assert not emulator.requests
