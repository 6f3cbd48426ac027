"""Tests of Nova Canvas: impasto's conformance suite for each task, and calls against the stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from impasto_nova.stand_in import FILTER, StandIn, paint, serving
from PIL import Image

import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario

MODEL = "bedrock/amazon.nova-canvas-v1:0"
ACCEPT = {"header:accept": "application/json"}
IMAGE, OTHER, THIRD = (paint("a lighthouse", 0, index) for index in range(3))
MASK_FILE = BytesIO()
Image.new("L", (64, 64), 0).save(MASK_FILE, "png")
MASK = MASK_FILE.getvalue()
JSON = {"content-type": "application/json", "x-amzn-requestid": "7f"}
SOME = "Some of the generated images have been blocked by our content filters."
ALL = "All of the generated images have been blocked by our content filters."
CONFIG = {"quality": "premium", "cfgScale": 8.5, "seed": 1_234_567}
SIGNED = re.compile(
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/[0-9]{8}/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=[a-z0-9;-]+, Signature=[0-9a-f]{64}"
)


def answer(*images: bytes, error: str | None = None) -> Answer:
    """Return an answer with images."""
    body = {"images": [base64.b64encode(each).decode() for each in images], "error": error}
    return Answer(headers=JSON, body=json.dumps(body).encode())


def refused(status: int, code: str, error: type[impasto.ImpastoError], message: str = "no") -> Refusal:
    """Return a refusal of AWS, with the error that it must become."""
    headers = {**JSON, "x-amzn-errortype": code}
    return Refusal(
        answer=Answer(status=status, headers=headers, body=json.dumps({"message": message}).encode()), error=error
    )


class NovaCanvas(OperationSuite):
    """What all tasks have in common."""

    endpoint = "/model/amazon.nova-canvas-v1%3A0/invoke"
    auth = {"header:authorization": SIGNED}
    request_id = "x-amzn-requestid"
    media_types = ("image/png",)
    encoding = "json"
    max_bytes = 25_000_000
    golden = None  # a signature depends on the time
    success = answer(IMAGE)
    reports: dict[str, object] = {}
    requirements = Requirements(partial_results=False)
    refusals = (
        refused(400, "ValidationException", impasto.BadRequest),
        refused(400, "ValidationException", impasto.ContentFiltered, FILTER),
        refused(403, "AccessDeniedException", impasto.PermissionDenied),
        refused(403, "InvalidSignatureException", impasto.Unauthorized),
        refused(404, "ResourceNotFoundException", impasto.NotFound),
        refused(429, "ThrottlingException", impasto.RateLimited),
        refused(500, "InternalServerException", impasto.ProviderFault),
    )
    scenarios = {
        "three images": Scenario(answers=(answer(IMAGE, OTHER, THIRD),), images=(IMAGE, OTHER, THIRD)),
        "one of two is damaged": Scenario(
            answers=(answer(IMAGE, OTHER[:40]),), images=(IMAGE,), errors={1: impasto.UnusableResult}
        ),
        "AWS does not say if it was charged": Scenario(
            answers=(refused(424, "ModelErrorException", impasto.ChargeUnknown).answer,), error=impasto.ChargeUnknown
        ),
        "all are blocked": Scenario(answers=(answer(error=ALL),), error=impasto.ContentFiltered, billed="unknown"),
    }

    def settings(self, url: str) -> Any:
        """Return the settings of AWS."""
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": KEY}
        return {"aws_region": "us-east-1", "bedrock_endpoint": url, **keys}

    def drop_in_settings(self, url: str) -> dict[str, object]:
        """Return the arguments of AWS."""
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": KEY}
        return {"aws_region_name": "us-east-1", "aws_bedrock_runtime_endpoint": url, **keys}

    entrances = False  # one task goes through all of them


def places(group: str, task: tuple[str, ...], *config: str) -> dict[str, str]:
    """Return the places of fields."""
    return {**{name: f"{group}.{name}" for name in task}, **{name: f"imageGenerationConfig.{name}" for name in config}}


SHARED = ("quality", "cfgScale", "seed", "numberOfImages")
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "negativeText": (1, 1024),
    "text": (1, 1024),
    "cfgScale": (1.1, 10),
    "seed": (0, 858_993_459),
    "numberOfImages": (1, 5),
}
SIDES: dict[str, tuple[float | None, float | None, int]] = {"width": (320, 4096, 16), "height": (320, 4096, 16)}


class Sized(NovaCanvas):
    """What the tasks with a size have in common."""

    def params_with(self, field: str, value: object) -> dict[str, object]:
        """Return a shape that is allowed with this side."""
        other = {"width": "height", "height": "width"}.get(field)
        side = {} if other is None or not isinstance(value, int) else {other: 320 if value < 1024 else 1024}
        return {**super().params_with(field, value), **side}


class TestTextImage(Sized):
    """The task TEXT_IMAGE."""

    model = MODEL
    entrances = True
    minimal = {"text": "a lighthouse"}
    roles = {"text": "prompt", "conditionImage": "image"}
    scenarios = {
        **NovaCanvas.scenarios,
        "one of three is blocked": Scenario(
            answers=(answer(IMAGE, OTHER, error=SOME),), images=(IMAGE, OTHER), errors={2: impasto.ContentFiltered}
        ),
    }
    others = {
        **CONFIG,
        "negativeText": "people",
        "width": 1280,
        "height": 720,
        "style": "PHOTOREALISM",
        "conditionImage": OTHER,
        "controlMode": "SEGMENTATION",
        "controlStrength": 0.4,
    }
    along_with = {
        "controlMode": {"conditionImage": OTHER},
        "controlStrength": {"conditionImage": OTHER},
    }
    constants = {**ACCEPT, "taskType": "TEXT_IMAGE"}
    names = places(
        "textToImageParams",
        ("text", "negativeText", "style", "conditionImage", "controlMode", "controlStrength"),
        *(*SHARED, "width", "height"),
    )
    native_n = ("numberOfImages", 5)
    limits = {**LIMITS, **SIDES, "controlStrength": (0, 1)}
    choices = {
        "quality": ("standard", "premium"),
        "controlMode": ("CANNY_EDGE", "SEGMENTATION"),
        "style": (
            *("3D_ANIMATED_FAMILY_FILM", "DESIGN_SKETCH", "FLAT_VECTOR_ILLUSTRATION", "GRAPHIC_NOVEL_ILLUSTRATION"),
            *("MAXIMALISM", "MIDCENTURY_RETRO", "PHOTOREALISM", "SOFT_DIGITAL_PAINTING"),
        ),
    }
    defaults = {
        "quality": "standard",
        "cfgScale": 6.5,
        "seed": 12,
        "numberOfImages": 1,
        "width": 1024,
        "height": 1024,
        "controlMode": "CANNY_EDGE",
        "controlStrength": 0.7,
    }


class TestImageVariation(Sized):
    """The task IMAGE_VARIATION."""

    model = f"{MODEL}/image-variation"
    minimal = {"images": [IMAGE, OTHER]}
    others = {
        **CONFIG,
        "text": "a lighthouse",
        "negativeText": "people",
        "width": 1280,
        "height": 720,
        "similarityStrength": 0.9,
    }
    constants = {**ACCEPT, "taskType": "IMAGE_VARIATION"}
    names = places(
        "imageVariationParams",
        ("images", "text", "negativeText", "similarityStrength"),
        *(*SHARED, "width", "height"),
    )
    native_n = ("numberOfImages", 5)
    limits = {**LIMITS, **SIDES, "images": (1, 5), "similarityStrength": (0.2, 1)}
    choices = {"quality": ("standard", "premium")}
    defaults = {"quality": "standard", "cfgScale": 6.5, "seed": 12, "numberOfImages": 1, "width": 1024, "height": 1024}


class TestInpainting(NovaCanvas):
    """The task INPAINTING."""

    model = f"{MODEL}/inpainting"
    minimal = {"image": IMAGE, "maskPrompt": "the lamp"}
    others = {**CONFIG, "text": "a window", "negativeText": "people", "maskImage": MASK}
    along_with = {"maskImage": {"maskPrompt": None}}
    roles = {"image": "image", "text": "prompt", "maskImage": "mask"}
    mask_area = "black"
    constants = {**ACCEPT, "taskType": "INPAINTING"}
    names = places("inPaintingParams", ("image", "text", "negativeText", "maskPrompt", "maskImage"), *SHARED)
    native_n = ("numberOfImages", 5)
    limits = {**LIMITS, "maskPrompt": (1, 1024)}
    choices = {"quality": ("standard", "premium")}
    defaults = {"quality": "standard", "cfgScale": 6.5, "seed": 12, "numberOfImages": 1}


class TestBackgroundRemoval(NovaCanvas):
    """The task BACKGROUND_REMOVAL."""

    model = f"{MODEL}/background-removal"
    minimal = {"image": IMAGE}
    constants = {**ACCEPT, "taskType": "BACKGROUND_REMOVAL"}
    names = places("backgroundRemovalParams", ("image",))


Act = Callable[[StandIn, impasto.Client], Awaitable[None]]


def act(do: Act, **settings: Any) -> None:
    """Call ``do`` with a stand-in and a client."""

    async def run() -> None:
        async with serving() as nova:
            keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "a-secret"}
            async with impasto.Client(aws_region="us-east-1", bedrock_endpoint=nova.url, **keys, **settings) as client:
                await do(nova, client)

    asyncio.run(run())


def test_seven_images_are_two_signed_requests() -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        result = await client.run(MODEL, text="a lighthouse", n=7, seed=100)
        assert len(result.artifacts) == 7
        configs = sorted((each["imageGenerationConfig"] for each in nova.bodies), key=lambda each: each["seed"])
        assert configs == [{"seed": 100, "numberOfImages": 5}, {"seed": 105, "numberOfImages": 2}]
        assert nova.charges == 7
        assert all("/us-east-1/bedrock/aws4_request" in each for each in nova.authorizations)

    act(do)


def test_each_task_has_its_own_object() -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        await client.run(f"{MODEL}/image-variation", images=[IMAGE, OTHER], text="both", similarityStrength=0.5)
        await client.run(f"{MODEL}/inpainting", image=IMAGE, maskImage=MASK, text="a window")
        await client.run(f"{MODEL}/background-removal", image=IMAGE)
        variation, inpainting, removal = nova.bodies
        assert [base64.b64decode(each) for each in variation["imageVariationParams"]["images"]] == [IMAGE, OTHER]
        assert base64.b64decode(inpainting["inPaintingParams"]["maskImage"]) == MASK
        assert removal == {
            "taskType": "BACKGROUND_REMOVAL",
            "backgroundRemovalParams": {"image": base64.b64encode(IMAGE).decode()},
        }

    act(do)


def test_a_blocked_image_is_reported_beside_the_others() -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        result = await client.run(MODEL, text="a lighthouse one-blocked", n=3)
        assert len(result.artifacts) == 2
        assert [(each.index, type(each.error)) for each in result.errors] == [(2, impasto.ContentFiltered)]

    act(do)


@pytest.mark.parametrize(
    ("word", "error", "billed"),
    [
        ("forbidden", impasto.ContentFiltered, "no"),
        ("blocked", impasto.ContentFiltered, "unknown"),
        ("no-access", impasto.PermissionDenied, "no"),
        ("throttled", impasto.RateLimited, "no"),
        ("breaks", impasto.ProviderFault, "no"),
    ],
)
def test_an_outcome_is_an_error_with_its_bill(word: str, error: type[impasto.ImpastoError], billed: str) -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        with pytest.raises(error) as caught:
            await client.run(MODEL, text=f"a lighthouse {word}")
        assert caught.value.billed == billed

    act(do, retry=impasto.Retry(attempts=1, refused=0))


def test_a_throttle_is_waited_for() -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        nova.busy = 1
        assert (await client.run(MODEL, text="a lighthouse")).artifacts
        assert (nova.charges, len(nova.bodies)) == (1, 2)

    act(do, retry=impasto.Retry(base=0.01))


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"width": 4096, "height": 320}, "width"),
        ({"width": 2064, "height": 2064}, "width"),
        ({"width": 1000}, "width"),
        ({"controlMode": "SEGMENTATION"}, "conditionImage"),
        ({"numberOfImages": 2}, "numberOfImages"),
    ],
)
def test_what_nova_would_refuse_is_not_sent(params: dict[str, object], field: str) -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.InvalidRequest) as caught:
            await client.run(MODEL, text="a lighthouse", **params)
        assert [each.field for each in caught.value.problems] == [field]
        assert nova.bodies == []

    act(do)


def test_the_size_of_openai_is_a_width_and_a_height(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        monkeypatch.setenv("AWS_BEDROCK_RUNTIME_ENDPOINT", nova.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        response = await impasto.aimage_generation(
            "a lighthouse", MODEL, size="1536x1024", n=2, aws_region_name="us-east-1"
        )
        assert len(response.data) == 2
        assert nova.bodies[0]["imageGenerationConfig"] == {"width": 1536, "height": 1024, "numberOfImages": 2}
        edited = await impasto.aimage_edit(
            [IMAGE, OTHER], f"{MODEL}/image-variation", "both", aws_region_name="us-east-1"
        )
        assert edited.data[0].b64_json
        assert len(nova.bodies[1]["imageVariationParams"]["images"]) == 2

    act(do)


def test_the_clear_area_of_openais_mask_becomes_black(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.putpixel((5, 5), (0, 0, 0, 0))
    file = BytesIO()
    mask.save(file, "png")

    async def do(nova: StandIn, client: impasto.Client) -> None:
        monkeypatch.setenv("AWS_BEDROCK_RUNTIME_ENDPOINT", nova.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        where = {"aws_region_name": "us-east-1"}
        await impasto.aimage_edit(IMAGE, f"{MODEL}/inpainting", "a window", mask=file.getvalue(), **where)
        sent = base64.b64decode(nova.bodies[0]["inPaintingParams"]["maskImage"])
        with Image.open(BytesIO(sent)) as image:
            assert (image.convert("L").getpixel((5, 5)), image.convert("L").getpixel((6, 5))) == (0, 255)

    act(do)


def test_an_arn_needs_the_task_as_its_base_model() -> None:
    async def do(nova: StandIn, client: impasto.Client) -> None:
        arn = "bedrock/arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
        result = await client.run(arn, base_model=f"{MODEL}/background-removal", image=IMAGE)
        assert len(result.artifacts) == 1
        assert nova.bodies[0]["taskType"] == "BACKGROUND_REMOVAL"

    act(do)
