"""The drop-in functions on Bedrock: the page's calls with only their import changed, every model, masks, settings."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from PIL import Image

import impasto
from impasto import image_edit, image_generation
from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.bedrock import ACCESS_KEY, SECRET_KEY, pictured
from tests.images import png
from tests.plugins.stability.bedrock_cases import MODELS, minimal
from tests.recorder import Recorder

KEYS = {"your-access-key": "your-secret-key", ACCESS_KEY: SECRET_KEY}
INPAINT = "bedrock/us.stability.stable-image-inpaint-v1:0"
CORE = "bedrock/stability.stable-image-core-v1:1"
EDITS = {
    "original_image.png": png(640, 512),
    "mask_image.png": png(640, 512),
    "low_res_image.png": png(320, 256),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with serve(attrs.evolve(SHORT, aws_keys=KEYS)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Found as a user's environment says it."""
    shared.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", shared.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return shared


@pytest.fixture
def page(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """The page's credentials, and its file names as real files."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "your-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "your-secret-key")
    monkeypatch.setenv("AWS_REGION_NAME", "us-east-1")
    for name, data in EDITS.items():
        (tmp_path / name).write_bytes(data)
    with chdir(tmp_path):
        yield emulator


def arrived(emulator: Emulator, target: str, fields: dict[str, str], **files: str) -> None:
    """The one request holds all that was asked for and nothing else, and was charged."""
    [request] = emulator.requests
    assert request.target == f"/model/{target}/invoke"
    assert request.fields == fields
    sent = {name: part.sha256 for name, part in request.files.items()}
    assert sent == {name: hashlib.sha256(EDITS[path]).hexdigest() for name, path in files.items()}
    assert len(emulator.charges) == 1


# the page


def test_inpainting(page: Emulator) -> None:
    with open("original_image.png", "rb") as image, open("mask_image.png", "rb") as mask:
        response = image_edit(
            model="bedrock/us.stability.stable-image-inpaint-v1:0",
            image=image,
            mask=mask,
            prompt="Add flowers in the masked area",
        )
    assert response.data[0].b64_json
    fields = {"prompt": "Add flowers in the masked area"}
    arrived(page, INPAINT.removeprefix("bedrock/"), fields, image="original_image.png", mask="mask_image.png")


def test_fast_upscale_without_prompt(page: Emulator) -> None:
    with open("low_res_image.png", "rb") as image:
        response = image_edit(model="bedrock/stability.stable-fast-upscale-v1:0", image=image)
    assert response.data[0].b64_json
    arrived(page, "us.stability.stable-fast-upscale-v1:0", {}, image="low_res_image.png")


def test_outpaint_with_numeric_parameters(page: Emulator) -> None:
    with open("original_image.png", "rb") as image:
        response = image_edit(
            model="bedrock/stability.stable-outpaint-v1:0", image=image, left=100, right=100, up=50, down=50
        )
    with Image.open(io.BytesIO(base64.b64decode(response.data[0].b64_json or ""))) as picture_file:
        assert picture_file.size == (840, 612)
    fields = {"left": "100", "right": "100", "up": "50", "down": "50"}
    arrived(page, "us.stability.stable-outpaint-v1:0", fields, image="original_image.png")


def test_credentials_set_in_the_program_itself(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page does, after an earlier call with others."""
    for key, secret in KEYS.items():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_REGION_NAME", "us-west-2")
        image_generation("a lighthouse", CORE)
    assert len({request.key for request in emulator.requests}) == 2
    assert len(emulator.charges) == 2


# every model


@pytest.mark.parametrize("target", MODELS)
async def test_every_model_by_both_kinds_of_id(emulator: Emulator, target: str) -> None:
    operation = MODELS[target]
    params = dict(minimal(operation))
    prompt = str(params.pop("prompt", "a lighthouse"))
    image = params.pop("image", None) or params.pop("init_image", None)
    keys = {"aws_region_name": "us-west-2", "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    for model in {f"bedrock/{target}", f"bedrock/{target.removeprefix('us.')}"}:
        if image is None:
            response = await impasto.aimage_generation(prompt, model, **keys, **params)  # type: ignore[call-overload]  # fields
        else:
            response = await impasto.aimage_edit(image, model, prompt, **keys, **params)  # type: ignore[call-overload]  # fields
        assert response.data[0].b64_json
        takes = "prompt" in operation.fields
        assert response.warnings == [] if takes else any("prompt" in warning for warning in response.warnings)
        assert response.cost is not None
    assert {charge.operation for charge in emulator.charges} == {operation.id}
    assert {request.target for request in emulator.requests} == {f"/model/{target}/invoke"}


# words


async def test_every_setting_arrives(recorder: Recorder) -> None:
    recorder.answer = lambda request: pictured()
    await impasto.aimage_generation(
        "a lighthouse",
        CORE,
        aws_region_name="us-west-2",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        aws_session_token="a-token",
        aws_bedrock_runtime_endpoint=recorder.url,
    )
    [request] = recorder.requests
    assert f"Credential={ACCESS_KEY}/" in (request.header("authorization") or "")
    assert "/us-west-2/bedrock/" in (request.header("authorization") or "")
    assert request.header("x-amz-security-token") == "a-token"
    assert json.loads(request.body) == {"prompt": "a lighthouse"}


async def test_a_profile(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder.answer = lambda request: pictured()
    lines = ["[work]", "aws_access_key_id=AKIAWORK", "aws_secret_access_key=s", "region=us-west-2"]
    (tmp_path / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    await impasto.aimage_generation(
        "a lighthouse", CORE, aws_profile_name="work", aws_bedrock_runtime_endpoint=recorder.url
    )
    assert "Credential=AKIAWORK/" in (recorder.requests[0].header("authorization") or "")


async def test_an_arn_with_its_base_model(page: Emulator) -> None:
    arn = "arn:aws:bedrock:us-west-2::foundation-model/stability.stable-image-core-v1:1"
    response = await impasto.aimage_generation("a lighthouse", f"bedrock/{arn}", base_model=CORE)
    assert response.data[0].b64_json
    assert page.requests[-1].target == f"/model/{arn}/invoke"


async def test_user_goes_nowhere_and_is_said_to(page: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION_NAME", "us-west-2")
    response = await impasto.aimage_generation("a lighthouse", CORE, user="user-7")
    assert ["user" in warning for warning in response.warnings] == [True]
    [request] = page.requests
    assert "user-7" not in f"{request.fields} {request.headers}"


async def test_an_api_base_is_another_word_for_bedrocks_endpoint(recorder: Recorder) -> None:
    recorder.answer = lambda request: pictured()
    await impasto.aimage_generation(
        "a lighthouse", CORE, api_key="x", api_base=recorder.url, aws_region_name="us-west-2"
    )
    assert len(recorder.requests) == 1
    with pytest.raises(impasto.InvalidRequest, match="another word for aws_bedrock_runtime_endpoint") as caught:
        await impasto.aimage_generation(
            "a", CORE, api_key="x", api_base="http://127.0.0.1:9", aws_bedrock_runtime_endpoint=recorder.url
        )
    assert {problem.field for problem in caught.value.problems} == {"api_base"}
    assert len(recorder.requests) == 1


async def test_an_api_key_is_sent_as_a_bearer_token(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the environment has other keys; nothing of AWS's signature goes out."""
    recorder.answer = lambda request: pictured()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key-of-the-environment")
    reach: dict[str, Any] = {"aws_region_name": "us-west-2", "aws_bedrock_runtime_endpoint": recorder.url}
    for key in ("bedrock-api-key-1", "bedrock-api-key-2"):
        await impasto.aimage_generation("a lighthouse", CORE, api_key=key, **reach)
    await impasto.aimage_generation("a lighthouse", CORE, api_key="bedrock-api-key-1", **reach)
    sent = [request.header("authorization") for request in recorder.requests]
    assert sent == [f"Bearer bedrock-api-key-{n}" for n in (1, 2, 1)]
    assert not any(name.lower().startswith("x-amz-") for request in recorder.requests for name, _ in request.headers)


async def test_two_ways_to_sign_in_are_one_too_many(page: Emulator) -> None:
    with pytest.raises(impasto.ConfigError, match="api_key and aws_access_key_id are two ways to sign in") as caught:
        await impasto.aimage_generation(
            "a lighthouse", CORE, api_key="bedrock-key", aws_access_key_id="a", aws_secret_access_key="s"
        )
    assert "bedrock-key" not in str(caught.value)
    assert page.requests == []


ACCOUNT = "arn:aws:bedrock:us-west-2:123456789012"


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (f"bedrock/{ACCOUNT}:application-inference-profile/abc", {"base_model": "stability.sd3-5-large-v1:0"}),
        (f"bedrock/{ACCOUNT}:application-inference-profile/abc", {"base_model": "bedrock/stability.sd3-5-large-v1:0"}),
        ("bedrock/arn:aws:bedrock:us-west-2::foundation-model/stability.sd3-5-large-v1:0", {}),
        (f"bedrock/{ACCOUNT}:inference-profile/us.stability.stable-image-inpaint-v1:0", {"image": png(96, 96)}),
        (f"bedrock/{ACCOUNT}:inference-profile/eu.stability.stable-image-inpaint-v1:0", {"image": png(96, 96)}),
        (f"bedrock/{ACCOUNT}:inference-profile/apac.stability.sd3-5-large-v1:0", {}),
        ("bedrock/arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/stability.sd3-5-large-v1:0", {}),
        (f"bedrock/{ACCOUNT}:custom-model-deployment/abc", {"base_model": "us.stability.sd3-5-large-v1:0"}),
        (f"bedrock/{ACCOUNT}:imported-model/abc", {"base_model": "stability.sd3-5-large-v1:0"}),
        ("bedrock/stability.sd3-5-large-v1:0", {"model_id": f"{ACCOUNT}:application-inference-profile/abc"}),
        ("bedrock/stability.sd3-5-large-v1:0", {"model_id": f"{ACCOUNT}:provisioned-model/abc"}),
    ],
    ids=[
        "bare base_model",
        "base_model",
        "foundation model",
        "inference profile",
        "profile of Europe",
        "profile of Asia",
        "foundation model of another partition",
        "deployment",
        "imported",
        "model_id",
        "provisioned",
    ],
)
async def test_an_arn_in_each_form(recorder: Recorder, model: str, params: dict[str, Any]) -> None:
    recorder.answer = lambda request: pictured()
    reach: dict[str, Any] = {"api_key": "k" * 20, "aws_bedrock_runtime_endpoint": recorder.url}
    call = impasto.aimage_edit if "image" in params else impasto.aimage_generation
    response = await call(prompt="p", model=model, **params, **reach)
    assert response.data[0].b64_json
    arn = params.get("model_id") or model.removeprefix("bedrock/")
    [sent] = recorder.requests
    assert unquote(sent.path) == f"/model/{arn}/invoke"


async def test_an_arn_that_names_no_model_needs_a_base_model(page: Emulator) -> None:
    arn = f"bedrock/{ACCOUNT}:application-inference-profile/abc"
    wrong: list[dict[str, Any]] = [{}, {"base_model": "stability/sd3.5-large"}]
    for value in wrong:
        with pytest.raises(impasto.ConfigError, match="base_model"):
            await impasto.aimage_generation("p", arn, **value)
    with pytest.raises(impasto.UnknownOperation, match="give bedrock/arn"):
        await impasto.aimage_generation("p", arn.removeprefix("bedrock/"))
    with pytest.raises(impasto.InvalidRequest, match="model_id: must be an ARN"):
        await impasto.aimage_generation("p", CORE, model_id="my-model")
    async with impasto.Client() as client:
        with pytest.raises(impasto.InvalidRequest, match="give an ARN as the model: bedrock/arn"):
            await client.run(CORE, prompt="p", model_id=arn)
    assert page.requests == []


@pytest.mark.parametrize("mode", [{"mode": "text-to-image"}, {}])
async def test_awss_own_notebook_sends_a_strength_without_an_image(page: Emulator, mode: dict[str, Any]) -> None:
    """To both, the emulator and the client, and the strength goes out as it was given."""
    response = await impasto.aimage_generation(
        "a car", "bedrock/stability.sd3-5-large-v1:0", strength=1, aws_region_name="us-west-2", **mode
    )
    assert response.warnings == ["strength has no effect without image"]
    assert page.requests[-1].fields["strength"] == "1"
    with pytest.raises(impasto.InvalidRequest, match="strength: not allowed when mode is text-to-image"):
        await impasto.aimage_generation("a car", "stability/sd3.5-large", strength=1, **mode)


async def test_a_setting_of_litellms_that_is_none_here_says_what_there_is(page: Emulator) -> None:
    with pytest.raises(impasto.InvalidRequest) as caught:
        await impasto.aimage_generation("a lighthouse", CORE, aws_role_name="painter")
    [problem] = caught.value.problems
    assert problem.field == "aws_role_name"
    assert "aws_profile_name" in problem.message
    assert "bedrock/ models only" not in problem.message
    assert page.requests == []


async def test_n_pictures_are_n_calls(page: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION_NAME", "us-west-2")
    response = await impasto.aimage_generation("a lighthouse", CORE, n=3, seed=5, size="1792x1024")
    assert [data.seed for data in response.data] == [5, 6, 7]
    assert {request.fields["aspect_ratio"] for request in page.requests} == {"16:9"}
    assert len(page.charges) == 3


async def test_openais_mask_is_converted_and_the_providers_own_is_not(recorder: Recorder) -> None:
    recorder.answer = lambda request: pictured()
    settings = {
        "aws_region_name": "us-west-2",
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "aws_bedrock_runtime_endpoint": recorder.url,
    }
    mask = Image.new("RGBA", (96, 96), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 48, 96))
    out = io.BytesIO()
    mask.save(out, "PNG")
    for value in (out.getvalue(), png(96, 96)):
        await impasto.aimage_edit(png(96, 96), INPAINT, "a cat", value, **settings)  # type: ignore[call-overload]  # all text
    converted, own = [base64.b64decode(json.loads(request.body)["mask"]) for request in recorder.requests]
    with Image.open(io.BytesIO(converted)) as sent:
        assert (sent.mode, sent.size) == ("L", (96, 96))
        assert (sent.getpixel((10, 10)), sent.getpixel((80, 10))) == (255, 0)
    assert own == png(96, 96)
