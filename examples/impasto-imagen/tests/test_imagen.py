"""Tests of Imagen on both ways: impasto's conformance suite, and calls against the stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from impasto_imagen.stand_in import FILTERED, STATUSES, StandIn, paint, serving
from PIL import Image

import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario

GEMINI, VERTEX = (f"{name}/imagen-4.0-generate-001" for name in ("gemini", "vertex_ai"))
IMAGE, OTHER = paint("a lighthouse", 0), paint("a lighthouse", 1)
JSON = {"content-type": "application/json"}
CALLERS = {"project": "my-project", "location": "us-east4"}


def answer(*images: bytes | None) -> Answer:
    """Return an answer with images, None for one that was filtered."""
    predictions = [
        {"raiFilteredReason": FILTERED}
        if each is None
        else {
            "mimeType": "image/png",
            "bytesBase64Encoded": base64.b64encode(each).decode(),
            "prompt": f"a lighthouse, seen {index}",
        }
        for index, each in enumerate(images)
    ]
    return Answer(headers=JSON, body=json.dumps({"predictions": predictions}).encode())


def refused(status: int, error: type[impasto.ImpastoError], wait: float | None = None, **info: str) -> Refusal:
    """Return a refusal of Google, with the error that it must become. ``info`` has its details."""
    body: dict[str, Any] = {"code": status, "message": "no", "status": STATUSES.get(status, "UNAVAILABLE")}
    if info:
        body["details"] = [{"@type": "type.googleapis.com/google.rpc.Help"}, info]
    answer = Answer(status=status, headers=JSON, body=json.dumps({"error": body}).encode())
    return Refusal(answer=answer, error=error, retry_after=wait)


class Imagen(OperationSuite):
    """What both ways have in common."""

    minimal = {"prompt": "a lighthouse"}
    others: dict[str, object] = {
        "aspectRatio": "16:9",
        "sampleImageSize": "2K",
        "personGeneration": "dont_allow",
        "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 80},
    }
    constants = {"parameters.includeRaiReason": True}
    encoding = "json"
    roles = {"prompt": "prompt"}
    names = {
        "prompt": "instances.0.prompt",
        **{name: f"parameters.{name}" for name in (*others, "sampleCount")},
    }
    native_n = ("sampleCount", 4)
    limits: dict[str, tuple[float | None, float | None]] = {
        "prompt": (1, None),
        "sampleCount": (1, 4),
        "outputOptions.compressionQuality": (0, 100),
    }
    choices: dict[str, tuple[str, ...]] = {
        "aspectRatio": ("1:1", "3:4", "4:3", "9:16", "16:9"),
        "sampleImageSize": ("1K", "2K"),
        "personGeneration": ("dont_allow", "allow_adult", "allow_all"),
        "outputOptions.mimeType": ("image/png", "image/jpeg"),
    }
    defaults: dict[str, object] = {
        "sampleCount": 4,
        "aspectRatio": "1:1",
        "sampleImageSize": "1K",
        "personGeneration": "allow_adult",
        "outputOptions.mimeType": "image/png",
        "outputOptions.compressionQuality": 75,
    }
    success = answer(IMAGE)
    reports: dict[str, object] = {"usd": 0.04, "revised_prompt": "a lighthouse, seen 0"}
    request_id = None
    media_types = ("image/png", "image/jpeg")
    requirements = Requirements(partial_results=False)
    refusals = (
        refused(400, impasto.BadRequest),
        refused(400, impasto.Unauthorized, reason="API_KEY_INVALID"),
        refused(401, impasto.Unauthorized),
        refused(403, impasto.PermissionDenied),
        refused(404, impasto.NotFound),
        refused(429, impasto.RateLimited),
        refused(429, impasto.RateLimited, 58.9, retryDelay="58.9s"),
        refused(500, impasto.ProviderFault),
        refused(503, impasto.ProviderFault),
    )
    scenarios = {
        "one of three is filtered": Scenario(
            answers=(answer(IMAGE, None, OTHER),),
            images=(IMAGE, OTHER),
            errors={1: impasto.ContentFiltered},
            reports={"revised_prompt": ("a lighthouse, seen 0", "a lighthouse, seen 2")},
        ),
        "all are filtered": Scenario(answers=(answer(None),), error=impasto.ContentFiltered, billed="unknown"),
        "one of two is damaged": Scenario(
            answers=(answer(IMAGE, OTHER[:40]),), images=(IMAGE,), errors={1: impasto.UnusableResult}
        ),
    }


class TestGemini(Imagen):
    """With an API key."""

    model = GEMINI
    endpoint = "https://generativelanguage.googleapis.com/v1beta/models/imagen-4.0-generate-001:predict"
    auth = {"header:x-goog-api-key": KEY}


class TestVertex(Imagen):
    """On Vertex AI, with an access token of the caller's."""

    model = VERTEX
    endpoint = "/v1/projects/my-project/locations/us-east4/publishers/google/models/imagen-4.0-generate-001:predict"
    auth = {"header:authorization": f"Bearer {KEY}"}
    others = {
        **Imagen.others,
        "seed": 1_234_567,
        "addWatermark": False,
        "enhancePrompt": False,
        "safetySetting": "block_only_high",
    }
    along_with = {"seed": {"addWatermark": False}}
    names = {**Imagen.names, **{name: f"parameters.{name}" for name in others}}
    limits = {**Imagen.limits, "seed": (1, 2_147_483_647)}
    choices = {
        **Imagen.choices,
        "safetySetting": ("block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"),
    }
    defaults = {
        **Imagen.defaults,
        "addWatermark": True,
        "enhancePrompt": True,
        "safetySetting": "block_medium_and_above",
    }
    entrances = False  # the stand-in takes only tokens that it issued; see the README

    def settings(self, url: str) -> Any:
        """Return the settings of Vertex AI."""
        return {"providers": {"vertex_ai": {"api_base": url, "api_key": KEY, **CALLERS}}}

    def drop_in_settings(self, url: str) -> dict[str, object]:
        """Return the arguments of Vertex AI."""
        return {"api_base": url, "api_key": KEY, **CALLERS}


Act = Callable[[StandIn, impasto.Client], Awaitable[None]]


def act(do: Act, folder: Path | None = None, key: str = "any-key", **settings: Any) -> None:
    """Call ``do`` with a stand-in and a client; ``folder`` gets the credentials of a user of Vertex AI."""

    async def run() -> None:
        async with serving("any-key") as google:
            vertex = {"api_base": google.url, **CALLERS}
            if folder is not None:
                names = {"client_id": "c", "client_secret": "s", "refresh_token": "refresh-1"}
                stored = {"type": "authorized_user", "token_uri": f"{google.url}/token", **names}
                file = folder / "credentials.json"
                file.write_text(json.dumps(stored))
                vertex["credentials"] = str(file)
            reach = {"gemini": {"api_base": google.url, "api_key": key}, "vertex_ai": vertex}
            async with impasto.Client(providers=reach, **settings) as client:
                await do(google, client)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


def test_one_image_is_one_and_six_are_two_requests() -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        assert len((await client.run(GEMINI, prompt="a lighthouse")).artifacts) == 1
        assert len((await client.run(GEMINI, prompt="a lighthouse", n=6)).artifacts) == 6
        assert sorted(each["parameters"]["sampleCount"] for each in google.bodies) == [1, 2, 4]
        assert google.charges == 7

    act(do)


def test_calls_at_once_share_a_token_and_an_expired_one_is_fetched_again(tmp_path: Path) -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        await asyncio.gather(*(client.run(VERTEX, prompt="a lighthouse") for _ in range(5)))
        assert google.issued == 1
        google.tokens.clear()  # before its time
        results = await asyncio.gather(*(client.run(VERTEX, prompt="a lighthouse") for _ in range(5)))
        assert (google.issued, google.charges) == (2, 10)
        assert all(len(each.artifacts) == 1 for each in results)
        path = "/v1/projects/my-project/locations/us-east4/publishers/google/models/imagen-4.0-generate-001:predict"
        assert set(google.paths) == {path}

    act(do, tmp_path, retry=impasto.Retry(attempts=1, refused=0))


def test_the_seeds_of_two_requests_differ(tmp_path: Path) -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        await client.run(VERTEX, prompt="a lighthouse", n=6, seed=100, addWatermark=False)
        assert sorted(each["parameters"]["seed"] for each in google.bodies) == [100, 104]
        with pytest.raises(impasto.InvalidRequest, match="addWatermark"):
            await client.run(VERTEX, prompt="a lighthouse", seed=100)

    act(do, tmp_path)


def test_credentials_that_google_refuses_are_named_and_nothing_is_sent(tmp_path: Path) -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        file = tmp_path / "credentials.json"
        file.write_text(file.read_text().replace("refresh-1", "refresh-2"))
        with pytest.raises(impasto.ConfigError, match="gcloud auth application-default login") as caught:
            await client.run(VERTEX, prompt="a lighthouse")
        assert "refresh-2" not in str(caught.value)
        file.unlink()
        with pytest.raises(impasto.ConfigError, match="no credentials of a user in credentials.json"):
            await client.run(VERTEX, prompt="a lighthouse")
        assert google.bodies == []

    act(do, tmp_path, retry=impasto.Retry(attempts=1, refused=0))


def test_the_location_chooses_the_host_and_a_project_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def host(**settings: str) -> str:
        async with impasto.Client(providers={"vertex_ai": {"api_key": "t", **settings}}) as client:
            return (await client.account(VERTEX)).base_url

    assert asyncio.run(host(project="p", location="europe-west4")) == "https://europe-west4-aiplatform.googleapis.com"
    assert asyncio.run(host(project="p", location="global")) == "https://aiplatform.googleapis.com"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    assert asyncio.run(host()) == "https://us-central1-aiplatform.googleapis.com"
    for wrong in ({"location": "evil.example/"}, {"project": "a/../b"}):
        with pytest.raises(impasto.ConfigError, match=f"set {next(iter(wrong))} or GOOGLE_CLOUD"):
            asyncio.run(host(**wrong))


def test_a_filtered_image_is_reported_beside_the_others() -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        result = await client.run(GEMINI, prompt="a lighthouse one-filtered", n=3)
        assert len(result.artifacts) == 2
        assert [(each.index, type(each.error)) for each in result.errors] == [(0, impasto.ContentFiltered)]

    act(do)


@pytest.mark.parametrize(
    ("word", "error", "billed"),
    [
        ("filtered", impasto.ContentFiltered, "unknown"),
        ("bad", impasto.BadRequest, "no"),
        ("no-access", impasto.PermissionDenied, "no"),
        ("too-many", impasto.RateLimited, "no"),
        ("breaks", impasto.ProviderFault, "no"),
    ],
)
def test_an_outcome_is_an_error_with_its_bill(word: str, error: type[impasto.ImpastoError], billed: str) -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        with pytest.raises(error) as caught:
            await client.run(GEMINI, prompt=f"a lighthouse {word}")
        assert (caught.value.billed, google.charges) == (billed, 0)

    act(do, retry=impasto.Retry(attempts=1, refused=0))


def test_a_wrong_key_is_refused_and_never_shown() -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.Unauthorized, match="check GEMINI_API_KEY") as caught:
            await client.run(GEMINI, prompt="a lighthouse")
        assert "wrong-key" not in str(caught.value)

    act(do, key="wrong-key")


def test_the_size_of_openai_is_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(google: StandIn, client: impasto.Client) -> None:
        monkeypatch.setenv("GEMINI_API_BASE", google.url)
        monkeypatch.setenv("GEMINI_API_KEY", "any-key")
        response = await impasto.aimage_generation("a lighthouse", GEMINI, size="1792x1024", n=2)
        assert len(response.data) == 2
        with Image.open(BytesIO(base64.b64decode(response.data[0].b64_json))) as image:
            assert image.size == (256, 144)

    act(do)
