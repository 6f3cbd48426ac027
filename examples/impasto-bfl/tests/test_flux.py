"""Tests of bfl/flux-2-pro: impasto's conformance suite, and calls against the stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from impasto_bfl.stand_in import StandIn, paint, serving
from PIL import Image

import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario

MODEL = "bfl/flux-2-pro"
IMAGE, OTHER = (paint("a lighthouse", seed, 64, 64, "png") for seed in (7, 8))
JSON = {"content-type": "application/json"}


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    """Return an answer in JSON."""
    return Answer(status=status, headers={**JSON, **headers}, body=json.dumps(body).encode())


def state(status: str, result: object = None) -> Answer:
    """Return an answer to a poll."""
    return answer({"id": "{job}", "status": status, "result": result})


ACCEPTED = answer({"id": "{job}", "polling_url": "{other_url}/v1/get_result?id={job}", "cost": 3.0})
READY = state("Ready", {"sample": "{signed_url}/results/{job}/sample.png?sig=0a1b"})


class TestFlux(OperationSuite):
    """The conformance suite."""

    model = MODEL
    minimal = {"prompt": "a lighthouse"}
    others = {
        "input_image": [IMAGE, OTHER],
        "seed": 1_234_567,
        "width": 1920,
        "height": 1088,
        "safety_tolerance": 3,
        "output_format": "png",
    }
    endpoint = "https://api.bfl.ai/v1/flux-2-pro"
    auth = {"header:x-key": KEY}
    translated = {"input_image": {"input_image": IMAGE, "input_image_2": OTHER}}
    limits = {
        "prompt": (1, None),
        "input_image": (1, 8),
        "seed": (None, None),
        "width": (64, 4096, 16),
        "height": (64, 4096, 16),
        "safety_tolerance": (0, 5),
    }
    encoding = "json"
    roles = {"prompt": "prompt", "input_image": "image"}
    hosts = ("*.bfl.ai",)
    poll_interval = 0.5
    result_ttl = 600
    choices = {"output_format": ("jpeg", "png")}
    defaults = {"safety_tolerance": 2, "output_format": "jpeg"}
    job_accepted = ACCEPTED
    polls = (state("Pending"), READY)
    success = Answer(headers={"content-type": "image/png"}, body=IMAGE)
    reports = {"usd": 0.03}
    request_id = None
    media_types = ("image/jpeg", "image/png")
    requirements = Requirements(several_images=False, partial_results=False)
    refusals = (
        Refusal(answer=answer({"detail": "bad request"}, 400), error=impasto.BadRequest),
        Refusal(answer=answer({"detail": "Not authenticated"}, 401), error=impasto.Unauthorized),
        Refusal(answer=answer({"detail": "Insufficient credits"}, 402), error=impasto.PaymentRequired),
        Refusal(answer=answer({"detail": "Forbidden"}, 403), error=impasto.PermissionDenied),
        Refusal(answer=answer({"detail": [{"msg": "no"}]}, 422), error=impasto.Unprocessable),
        Refusal(answer=answer({"detail": "Too many"}, 429, **{"retry-after": "3"}), error=impasto.RateLimited),
        Refusal(answer=answer({"detail": "sorry"}, 500), error=impasto.ProviderFault),
        Refusal(answer=answer({"detail": "busy"}, 503), error=impasto.ProviderFault),
    )
    scenarios = {
        "the request is moderated": Scenario(
            answers=(ACCEPTED, state("Pending"), state("Request Moderated")),
            error=impasto.ContentFiltered,
            billed="no",
        ),
        "the image is moderated": Scenario(
            answers=(ACCEPTED, state("Content Moderated")), error=impasto.ContentFiltered, billed="no"
        ),
        "the job is gone": Scenario(answers=(ACCEPTED, state("Task not found")), error=impasto.ChargeUnknown),
        "the job fails": Scenario(answers=(ACCEPTED, state("Error")), error=impasto.JobFailed, billed="unknown"),
    }


Act = Callable[[StandIn, impasto.Client], Awaitable[None]]


def act(do: Act, key: str = "any-key", **settings: Any) -> None:
    """Call ``do`` with a stand-in and a client."""

    async def run() -> None:
        async with serving("any-key") as bfl:
            reach = {"bfl": {"api_base": bfl.url, "api_key": key}}
            async with impasto.Client(providers=reach, poll_interval=0.01, **settings) as client:
                await do(bfl, client)

    asyncio.run(run())


def test_a_job_is_polled_in_its_region_and_its_image_fetched_without_the_key() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        result = await client.run(MODEL, prompt="a lighthouse", seed=7, width=128, height=64, output_format="png")
        assert result.artifacts[0].data == paint("a lighthouse", 7, 128, 64, "png")
        assert result.cost is not None
        assert (result.cost.usd, result.cost.credits) == (0.03, 3)
        assert bfl.keys == {"api": ["any-key"], "region": ["any-key"] * 2, "delivery": [None]}
        assert bfl.charges == 3

    act(do)


def test_several_reference_images_keep_their_order() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        images = [paint("x", seed, 32, 32, "png") for seed in range(3)]
        await client.run(MODEL, prompt="combine them", input_image=images)
        sent = [bfl.bodies[0][name] for name in ("input_image", "input_image_2", "input_image_3")]
        assert [base64.b64decode(each) for each in sent] == images

    act(do)


def test_a_model_newer_than_this_release_works_and_another_name_does_not() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        assert (await client.run("bfl/flux-2-turbo-preview", prompt="a lighthouse")).artifacts
        with pytest.raises(impasto.UnknownOperation):
            await client.run("bfl/sdxl", prompt="a lighthouse")
        with pytest.raises(impasto.InvalidRequest, match="input_image"):
            await client.run("bfl/flux-2-klein-4b", prompt="a lighthouse", input_image=[IMAGE] * 5)

    act(do)


@pytest.mark.parametrize(
    ("word", "error", "billed"),
    [
        ("request-moderated", impasto.ContentFiltered, "no"),
        ("content-moderated", impasto.ContentFiltered, "no"),
        ("job-fails", impasto.JobFailed, "unknown"),
        ("unknown-job", impasto.ChargeUnknown, "unknown"),
        ("no-credits", impasto.PaymentRequired, "no"),
    ],
)
def test_an_outcome_is_an_error_with_its_bill(word: str, error: type[impasto.ImpastoError], billed: str) -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        with pytest.raises(error) as caught:
            await client.run(MODEL, prompt=f"a lighthouse {word}")
        assert caught.value.billed == billed
        assert bfl.charges == 0

    act(do)


def test_a_wrong_key_is_refused_and_never_shown() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.Unauthorized, match="check BFL_API_KEY") as caught:
            await client.run(MODEL, prompt="a lighthouse")
        assert "wrong-key" not in str(caught.value)

    act(do, key="wrong-key")


def test_a_429_is_waited_for() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        bfl.busy = 1
        assert (await client.run(MODEL, prompt="a lighthouse")).artifacts
        assert (bfl.charges, len(bfl.keys["api"])) == (3, 2)

    act(do)


def test_a_slow_job_is_resumed_by_its_address_and_by_no_other() -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.ChargeUnknown) as caught:
            await client.run(MODEL, prompt="a slow lighthouse", timeout=0.3)
        job = caught.value.id
        assert job is not None
        assert job.startswith(bfl.region)
        next(iter(bfl.jobs.values())).polls = 0
        assert (await client.resume(MODEL, job)).artifacts
        assert bfl.charges == 3
        for other in ("https://evil.example/v1/get_result?id=1", f"{bfl.region}/v1/keys", "1"):
            with pytest.raises(impasto.InvalidRequest, match="must be the address of a job"):
                await client.resume(MODEL, other)

    act(do)


def test_the_size_of_openai_is_a_width_and_a_height(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(bfl: StandIn, client: impasto.Client) -> None:
        monkeypatch.setenv("BFL_API_BASE", bfl.url)
        monkeypatch.setenv("BFL_API_KEY", "any-key")
        response = await impasto.aimage_generation("a lighthouse", MODEL, size="1536x1024")
        with Image.open(BytesIO(base64.b64decode(response.data[0].b64_json))) as image:
            assert image.size == (1536, 1024)
        edited = await impasto.aimage_edit([IMAGE, IMAGE], MODEL, "combine them")
        assert edited.data[0].b64_json
        assert {"input_image", "input_image_2"} <= bfl.bodies[1].keys()

    act(do)
