"""OpenAI's own SDK against the gateway: every endpoint, every form of an argument."""

import asyncio
import base64
import io
from typing import Any

import aiohttp
import openai
import pytest
from PIL import Image

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.images import drawn, padded

from .conftest import MASTER, MODELS, Running, Start, config

PICTURE = drawn("PNG", size=(128, 128))


@pytest.fixture
async def gateway(start: Start) -> Running:
    return await start(models=MODELS)


def decoded(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


async def test_a_picture_is_generated(gateway: Running, impasto_emulator: Emulator) -> None:
    answer = await gateway.sdk.images.with_raw_response.generate(model="sd3", prompt="a lighthouse", size="1792x1024")
    response = answer.parse()
    assert response.data is not None
    assert response.created > 0
    picture = decoded(response.data[0].b64_json)
    assert response.size == f"{picture.width}x{picture.height}"
    assert response.output_format == "png"
    assert response.usage is not None
    assert response.usage.total_tokens == 0
    assert response.data[0].model_extra is not None
    assert response.data[0].model_extra["finish_reason"] == "SUCCESS"
    assert answer.headers["x-impasto-cost-usd"] == "0.065"
    assert answer.headers["x-request-id"].startswith("req_")
    (sent,) = impasto_emulator.requests
    assert sent.fields["aspect_ratio"] == "16:9"
    assert len(impasto_emulator.charges) == 1


async def test_the_picture_is_the_providers_own_bytes(gateway: Running) -> None:
    response = await gateway.sdk.images.generate(model="sd3", prompt="a lighthouse", n=1)
    assert response.data is not None
    data = base64.b64decode(response.data[0].b64_json or "", validate=True)
    assert data.startswith(b"\x89PNG")
    assert data.endswith(b"IEND\xaeB`\x82")


def test_the_synchronous_client(impasto_emulator: Emulator) -> None:
    async def both() -> None:
        async with Gateway(parse(config(impasto_emulator.url).encode())) as gateway:
            await asyncio.to_thread(blocking, gateway.url)

    def blocking(url: str) -> None:
        with openai.OpenAI(api_key=MASTER, base_url=f"{url}/v1") as client:
            response = client.images.generate(model="core", prompt="a boat")
            assert decoded((response.data or [])[0].b64_json).format == "PNG"
            edited = client.images.edit(model="upscale", image=io.BytesIO(PICTURE), prompt="sharper")
            assert decoded((edited.data or [])[0].b64_json).format == "PNG"
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="wrong").images.generate(model="core", prompt="a boat")

    asyncio.run(both())


async def test_own_fields_reach_the_wire(gateway: Running, impasto_emulator: Emulator) -> None:
    extra = {"negative_prompt": "blurry", "seed": 12345, "cfg_scale": 4.5, "style_preset": "anime"}
    response = await gateway.sdk.images.generate(model="sd3", prompt="p", output_format="webp", extra_body=extra)
    assert response.data is not None
    assert response.data[0].model_extra is not None
    assert response.data[0].model_extra["seed"] == 12345
    assert response.output_format == "webp"
    sent = impasto_emulator.requests[0].fields
    assert {name: sent[name] for name in extra} == {
        "negative_prompt": "blurry",
        "seed": "12345",
        "cfg_scale": "4.5",
        "style_preset": "anime",
    }


async def test_extra_body_as_an_object(gateway: Running, impasto_emulator: Emulator) -> None:
    assert (await gateway.generate(extra_body={"seed": 7})).status == 200
    assert impasto_emulator.requests[0].fields["seed"] == "7"


async def test_n_pictures_count_their_seeds_up(gateway: Running, impasto_emulator: Emulator) -> None:
    response = await gateway.sdk.images.generate(model="sd3", prompt="p", n=3, extra_body={"seed": 5})
    assert response.data is not None
    assert [(each.model_extra or {})["seed"] for each in response.data] == [5, 6, 7]
    assert len(impasto_emulator.charges) == 3


@pytest.mark.parametrize(
    "image",
    [PICTURE, ("cat.png", PICTURE), ("cat", PICTURE, "image/png"), io.BytesIO(PICTURE), [PICTURE]],
    ids=["bytes", "named", "typed", "object", "list of one"],
)
async def test_an_edit_takes_a_picture_in_every_form(gateway: Running, impasto_emulator: Emulator, image: Any) -> None:
    response = await gateway.sdk.images.edit(model="upscale", image=image, prompt="sharper")
    assert response.data is not None
    assert decoded(response.data[0].b64_json).format == "PNG"
    assert impasto_emulator.requests[0].files["image"].bytes == len(PICTURE)


async def test_a_mask_becomes_the_providers(gateway: Running, impasto_emulator: Emulator) -> None:
    mask = drawn("PNG", "LA", size=(128, 128))  # every pixel transparent: all is edited
    response = await gateway.sdk.images.edit(model="inpaint", image=PICTURE, mask=mask, prompt="a garden")
    assert response.data is not None
    assert set(impasto_emulator.requests[0].files) == {"image", "mask"}


async def test_a_second_picture_is_the_style(gateway: Running, impasto_emulator: Emulator) -> None:
    style = drawn("JPEG", size=(256, 256))
    await gateway.sdk.images.edit(
        model="style-transfer", image=[PICTURE, style], prompt="more so", extra_body={"fidelity": 0.5}
    )
    sent = impasto_emulator.requests[0]
    assert sent.files["init_image"].bytes == len(PICTURE)
    assert sent.files["style_image"].media_type == "image/jpeg"
    assert sent.fields["composition_fidelity"] == "0.5"


async def test_numbers_in_a_form_are_numbers(gateway: Running, impasto_emulator: Emulator) -> None:
    await gateway.sdk.images.edit(
        model="outpaint", image=PICTURE, prompt="hills", n=2, extra_body={"left": 100, "creativity": 0.25, "seed": 3}
    )
    first, second = sorted(impasto_emulator.requests, key=lambda each: each.fields["seed"])
    assert (first.fields["left"], first.fields["creativity"]) == ("100", "0.25")
    assert (first.fields["seed"], second.fields["seed"]) == ("3", "4")


async def test_several_pictures_come_in_every_form(gateway: Running, impasto_emulator: Emulator) -> None:
    style = drawn("JPEG", size=(256, 256))
    for names in (("image", "image"), ("image[]", "image[]"), ("images", "images"), ("image[0]", "image[1]")):
        form = aiohttp.FormData({"model": "style-transfer"})
        for name, data in zip(names, (PICTURE, style), strict=True):
            form.add_field(name, data, filename="upload", content_type="application/octet-stream")
        assert (await gateway.ask("POST", "/v1/images/edits", data=form)).status == 200, names
        sent = impasto_emulator.requests[-1].files
        assert (sent["init_image"].bytes, sent["style_image"].bytes) == (len(PICTURE), len(style))


@pytest.mark.parametrize("extra", [{"extra_body": {"seed": 5}}, {"extra_body": '{"seed": 5}'}, {"seed": 5}])
async def test_own_fields_in_a_form(gateway: Running, impasto_emulator: Emulator, extra: dict[str, object]) -> None:
    await gateway.sdk.images.edit(model="upscale", image=PICTURE, prompt="p", extra_body=extra)
    assert impasto_emulator.requests[0].fields["seed"] == "5"


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"opts": {"a": [1, 2]}}, "opts", "unknown_parameter"),
        ({"opts": {"a": {"b": {"c": 1}}}}, "opts", "unknown_parameter"),
        ({"seed": [1, 2]}, "seed", "invalid_value"),
        ({"seed": {"a": 1}}, "seed", "invalid_value"),
        ({"mask": [1]}, "mask", "invalid_image"),
        ({"extra_body": {"opts": 1}}, "opts", "unknown_parameter"),
        ({"extra_body": "[1]"}, "extra_body", "invalid_value"),
        ({"extra_body": "seed=5"}, "extra_body", "invalid_value"),
        ({"extra_body": {"prompt": "q"}}, "prompt", "invalid_value"),
    ],
)
async def test_nested_fields_of_a_form_are_refused_by_name(
    gateway: Running, impasto_emulator: Emulator, extra: dict[str, object], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await gateway.sdk.images.edit(model="inpaint", image=PICTURE, prompt="p", extra_body=extra)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert not impasto_emulator.requests


async def test_an_upload_larger_than_memory_goes_through_the_disk(gateway: Running, impasto_emulator: Emulator) -> None:
    picture = padded(5 << 20, 512, 512)
    await gateway.sdk.images.edit(model="upscale", image=picture, prompt="sharper")
    assert impasto_emulator.requests[0].files["image"].bytes == len(picture)


async def test_an_edit_in_json(gateway: Running, impasto_emulator: Emulator) -> None:
    uri = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    mask = "data:image/png;base64," + base64.b64encode(drawn("PNG", "LA", size=(128, 128))).decode()
    body = {"model": "inpaint", "prompt": "p", "images": [{"image_url": uri}], "mask": {"image_url": mask}}
    answer = await gateway.ask("POST", "/v1/images/edits", json=body)
    assert answer.status == 200, answer.body
    assert impasto_emulator.requests[0].files["image"].bytes == len(PICTURE)


async def test_a_job_is_polled_to_its_end(gateway: Running, impasto_emulator: Emulator) -> None:
    response = await gateway.sdk.images.edit(model="creative", image=PICTURE, prompt="sharper")
    assert response.data is not None
    assert decoded(response.data[0].b64_json).format == "PNG"
    assert len(impasto_emulator.charges) == 1


OLD = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # what the SDK says of variations


@OLD
async def test_a_variation(gateway: Running, impasto_emulator: Emulator) -> None:
    answer = await gateway.sdk.images.with_raw_response.create_variation(model="sd3", image=PICTURE, n=1)
    assert answer.parse().data
    assert "'a variation of this picture' was used" in answer.headers["x-impasto-warnings"]
    sent = impasto_emulator.requests[0].fields
    assert (sent["prompt"], sent["strength"], sent["mode"]) == ("a variation of this picture", "0.7", "image-to-image")


@OLD
async def test_a_variation_of_a_model_without_one(gateway: Running, impasto_emulator: Emulator) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await gateway.sdk.images.create_variation(model="upscale", image=PICTURE)
    assert caught.value.param == "model"
    assert not impasto_emulator.requests


async def test_a_url(gateway: Running, impasto_emulator: Emulator) -> None:
    response = await gateway.sdk.images.generate(model="sd3", prompt="p", n=2, response_format="url")
    assert response.data is not None
    urls = [each.url for each in response.data]
    assert len(set(urls)) == 2
    assert all(each.b64_json is None for each in response.data)
    async with aiohttp.ClientSession() as anyone, anyone.get(urls[0] or "") as found:
        assert found.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(await found.read())).format == "PNG"
    assert (await gateway.ask("GET", "/images/files/" + "A" * 43 + ".png")).status == 404


async def test_the_models_are_listed(gateway: Running) -> None:
    listed = [model async for model in gateway.sdk.models.list()]
    assert "inpaint" in {model.id for model in listed}
    one = await gateway.sdk.models.retrieve("sd3")
    fields = {field["name"]: field for field in (one.model_extra or {})["parameters"]}
    assert fields["seed"]["maximum"] == 4294967294
    assert fields["prompt"]["description"] == "Content of the image, in English."
    with pytest.raises(openai.NotFoundError):
        await gateway.sdk.models.retrieve("no-such")


async def test_a_stream_of_pictures(gateway: Running, impasto_emulator: Emulator) -> None:
    stream = await gateway.sdk.images.generate(model="sd3", prompt="p", n=2, stream=True, partial_images=2)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert all(decoded(event.b64_json).format == "PNG" for event in events)
    edits = await gateway.sdk.images.edit(model="upscale", image=PICTURE, prompt="p", stream=True)
    assert [event.type async for event in edits] == ["image_edit.completed"]
    assert len(impasto_emulator.charges) == 3


async def test_a_stream_that_fails_at_once_is_an_error_like_any(gateway: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await gateway.sdk.images.generate(model="sd3", prompt="", stream=True)
    assert caught.value.param == "prompt"


async def test_a_stream_that_waits_says_so(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.api.responses.COMMENT_SECONDS", 0.05)
    impasto_emulator.fault("delay", seconds=0.3)
    answer = await gateway.generate(stream=True)
    assert answer.body.startswith(b": working\n\n: working\n\n")
    assert b"event: image_generation.completed\ndata: {" in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    stream = await gateway.sdk.images.generate(model="sd3", prompt="p", stream=True)
    assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_a_stream_that_fails_late_tells_it_in_an_event(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.api.responses.COMMENT_SECONDS", 0.05)
    gateway = await start(config(impasto_emulator.url, general="  timeout: 0.3\n"))
    impasto_emulator.fault("delay", seconds=2)
    stream = await gateway.sdk.images.generate(model="sd3", prompt="p", stream=True)
    with pytest.raises(openai.APIError) as caught:
        _ = [event async for event in stream]
    assert caught.value.code == "charge_unknown"
