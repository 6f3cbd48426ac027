"""Jobs of a provider that is unlike Stability: addresses that change, failures, its own interval, and cancelling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest

import impasto
from impasto import (
    Account,
    Artifact,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    ImpastoError,
    JobFailed,
    NotFound,
    Operation,
    Pending,
    Provider,
    ProviderFault,
    Registry,
    Request,
    Result,
    Unauthorized,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.fields import text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, Recorder, recording
from tests.images import png
from tests.sleep import replace_sleep

IMAGE = Answer(headers={"content-type": "image/png"}, body=png(64, 64))


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)


class Dialect:
    """``{"poll": path, ...}`` is a job, ``{"failed": billed}`` its failure, an image its result."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        if request.job is not None:
            return WireRequest(target=f"/jobs/{request.job}", method="GET")
        return WireRequest(target="/submit", fields={"prompt": "a kite"}, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 200:
            return None
        if response.status == 401 and response.media_type == "application/json":
            return Unauthorized("no", status=401)
        if response.status == 404 and response.media_type == "application/json":
            return NotFound("no such job", status=404)
        if response.status == 500 and response.media_type == "application/json":
            return ProviderFault("oh", status=500)
        return ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))
        body: Any = json.loads(response.body)
        if "failed" in body:
            raise JobFailed("the vendor's GPU broke", billed=body["failed"])
        if "moderated" in body:
            raise ContentFiltered("not this", status=200, billed=body["moderated"])
        poll = WireRequest(target=body.pop("poll"), method="GET") if "poll" in body else None
        cancel = WireRequest(target=body.pop("cancel"), method=body.pop("with", "PUT")) if "cancel" in body else None
        cost = Cost(usd=body.pop("usd"), as_of="2026-01-01") if "usd" in body else None
        return Pending(id=body.pop("id", "j1"), poll=poll, cancel=cancel, cost=cost, **body)


def says(headers: dict[str, str] | None = None, status: int = 200, **body: object) -> Answer:
    return Answer(
        status=status, headers={"content-type": "application/json", **(headers or {})}, body=json.dumps(body).encode()
    )


Answers = Callable[[RecordedRequest], Answer]


@asynccontextmanager
async def acme(
    answer: Answers, provider: type[Provider] = Provider, **settings: Any
) -> AsyncIterator[tuple[impasto.Client, Recorder]]:
    about = {name: settings.pop(name) for name in ("poll_seconds",) if name in settings}
    vendor = provider(
        name="acme", base_url="https://api.acme.example", key_header="x-key", key_prefix="",
        poll_interval=about.get("poll_seconds", 0.0),
    )  # fmt: skip
    model = Operation(id="acme/x", title="X", params=Params, target="/submit", provider=vendor, dialect=Dialect())
    registry = Registry()
    registry.add(OPERATIONS, "acme/x", model)
    async with recording(answer) as recorder:
        where = {"acme": {"api_base": recorder.url, "api_key": "k"}}
        options: dict[str, Any] = {"timeout": 20, **settings}
        async with impasto.Client(registry=registry, providers=where, **options) as client:
            yield client, recorder


def in_turn(*answers: Answer) -> Answers:
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def targets(recorder: Recorder) -> list[str]:
    return [f"{each.method} {each.target}" for each in recorder.requests]


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between requests, which take no time."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    replace_sleep(monkeypatch, note)
    return waits


async def test_a_poll_may_lead_to_another_address_and_the_id_stays() -> None:
    answers = in_turn(says(poll="/status"), says(poll="/result", id="j2", is_ready=True), IMAGE)
    async with acme(answers, poll_interval=0.01) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite")
    assert len(result.artifacts) == 1
    assert targets(recorder) == ["POST /submit", "GET /status", "GET /result"]


async def test_an_answer_without_an_address_leaves_the_job_as_it_was(sleeps: list[float]) -> None:
    answers = in_turn(says(poll="/status", interval=0.3), says(id="j2"), says(), IMAGE)
    async with acme(answers, poll_seconds=7.0) as (client, recorder):
        await client.run("acme/x", prompt="a kite")
    assert targets(recorder) == ["POST /submit", "GET /status", "GET /status", "GET /status"]
    assert [wait for wait in sleeps if wait] == [0.3, 0.3, 0.3]


async def test_an_accepted_job_without_an_address_is_a_fault_of_the_plugin() -> None:
    async with acme(in_turn(says(id="j2"), IMAGE)) as (client, recorder):
        with pytest.raises(UnusableResult, match="accepts a job without the request that polls it"):
            await client.run("acme/x", prompt="a kite")
    assert len(recorder.requests) == 1


async def test_a_job_that_changes_its_address_without_end_times_out_with_its_first_id() -> None:
    def answer(request: RecordedRequest) -> Answer:
        return says(poll=f"/p{len(request.target)}" + "x" * (len(request.target) % 7), id="other", is_ready=True)

    def first(request: RecordedRequest) -> Answer:
        return says(poll="/a", id="j1") if request.method == "POST" else answer(request)

    async with acme(first, poll_interval=0.01, timeout=0.5) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="job j1 continues") as caught:
            await client.run("acme/x", prompt="a kite")
    assert caught.value.id == "j1"
    assert len(recorder.posts) == 1
    assert len(recorder.requests) < 70, "a ready job is followed without a wait a few times only"


@pytest.mark.parametrize("billed", ["no", "yes", "unknown"])
async def test_a_failed_job_is_polled_no_more_and_billed_as_its_plugin_says(billed: str) -> None:
    answers = in_turn(says(poll="/status"), says(poll="/status"), says(failed=billed))
    async with acme(answers, poll_interval=0.01) as (client, recorder):
        with pytest.raises(JobFailed, match="the vendor's GPU broke") as caught:
            await client.run("acme/x", prompt="a kite")
    assert (caught.value.billed, caught.value.id) == (billed, "j1")
    assert len(recorder.requests) == 3


@pytest.mark.parametrize("answers", [(says(moderated="no"),), (says(poll="/status"), says(moderated="no"))])
async def test_moderation_in_a_200_is_as_free_as_the_provider_says(answers: tuple[Answer, ...]) -> None:
    async with acme(in_turn(*answers), poll_interval=0.01) as (client, _):
        with pytest.raises(ContentFiltered) as caught:
            await client.run("acme/x", prompt="a kite")
    assert caught.value.billed == "no"


async def test_a_refused_poll_says_nothing_of_the_jobs_bill() -> None:
    async with acme(in_turn(says(poll="/status"), says(status=401)), poll_interval=0.01) as (client, recorder):
        with pytest.raises(Unauthorized) as caught:
            await client.run("acme/x", prompt="a kite")
    assert caught.value.billed == "unknown"
    assert targets(recorder) == ["POST /submit", "GET /status"]  # the same key would be refused again


async def test_a_proxys_503_does_not_end_a_job() -> None:
    answers = in_turn(says(poll="/status"), Answer(status=503, body=b"<html>"), IMAGE)
    async with acme(answers, poll_interval=0.01) as (client, _):
        assert len((await client.run("acme/x", prompt="a kite")).artifacts) == 1


@pytest.mark.parametrize(
    ("job", "settings", "waits"),
    [
        ({}, {}, [1.0, 1.0]),
        ({}, {"poll_seconds": 0.3}, [0.3, 0.3]),
        ({"interval": 0.2}, {}, [0.2, 0.2]),
        ({"interval": 0.2}, {"poll_seconds": 0.5}, [0.2, 0.2]),
        ({"interval": 0.2, "first": 0.05}, {}, [0.05, 0.2]),
        ({"interval": 0.2, "first": 0.05}, {"poll_interval": 0.4}, [0.4, 0.4]),
        ({"is_ready": True}, {"poll_interval": 0.4}, [0.0, 0.0]),
    ],
)
async def test_the_interval_is_the_callers_or_the_jobs_or_the_providers(
    job: dict[str, Any], settings: dict[str, Any], waits: list[float], sleeps: list[float]
) -> None:
    """Stability's minimum of 10 s is its own; others answer in less than a second."""
    async with acme(in_turn(says(poll="/s", **job), says(poll="/s", **job), IMAGE), **settings) as (client, _):
        await client.run("acme/x", prompt="a kite")
    assert [each for each in sleeps if each or job.get("is_ready")][: len(waits)] == waits


async def test_eight_addresses_of_a_job_are_followed_at_once(sleeps: list[float]) -> None:
    async with acme(in_turn(*[says(poll="/s", is_ready=True)] * 12, IMAGE), poll_interval=0.5) as (client, _):
        await client.run("acme/x", prompt="a kite")
    waits = [each for each in map(str, sleeps) if each != "0"]  # those are the transport's
    assert waits[:10] == ["0.0"] * 9 + ["0.5"]


@pytest.mark.parametrize("status", [200, 429, 503])
async def test_a_polls_retry_after_is_waited_for(status: int, sleeps: list[float]) -> None:
    busy = says({"retry-after": "7"}, status, poll="/s")
    async with acme(in_turn(says(poll="/s"), busy, IMAGE), poll_interval=0.5) as (client, _):
        await client.run("acme/x", prompt="a kite")
    assert [each for each in sleeps if each] == [0.5, 7.0]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_a_job_that_times_out_is_cancelled_once_and_for_free(method: str) -> None:
    about: dict[str, Any] = {"poll": "/status", "cancel": "/cancel/j1", "with": method}
    job = says(**about)
    async with acme(lambda _: job, poll_interval=0.01, timeout=0.2) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="job j1 was cancelled; it may have been charged"):
            await client.run("acme/x", prompt="a kite")
    assert [each for each in targets(recorder) if "cancel" in each] == [f"{method} /cancel/j1"]
    assert len([each for each in recorder.posts if each.target == "/submit"]) == 1


async def test_an_empty_answer_to_the_cancel_is_a_success() -> None:
    def answer(request: RecordedRequest) -> Answer:
        return Answer(status=204) if "cancel" in request.target else says(poll="/status", cancel="/cancel")

    async with acme(answer, poll_interval=0.01, timeout=0.2) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="job j1 was cancelled; it may have been charged"):
            await client.run("acme/x", prompt="a kite")
    assert targets(recorder).count("PUT /cancel") == 1


async def test_a_call_that_is_cancelled_cancels_its_job() -> None:
    polled = asyncio.Event()

    def answer(request: RecordedRequest) -> Answer:
        if request.method == "GET":
            polled.set()
        return says(poll="/status", cancel="/cancel")

    async with acme(answer, poll_interval=0.01) as (client, recorder):
        task = asyncio.create_task(client.run("acme/x", prompt="a kite"))
        await polled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert "job j1 was cancelled" in " ".join(caught.value.__notes__)
    assert targets(recorder).count("PUT /cancel") == 1


async def test_a_poll_that_leads_elsewhere_leaves_the_way_to_cancel_its_job() -> None:
    answers = in_turn(says(poll="/status", cancel="/cancel"), says(poll="/status-2"))
    async with acme(answers, poll_interval=0.01, timeout=0.2) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="job j1 was cancelled"):
            await client.run("acme/x", prompt="a kite")
    assert targets(recorder).count("PUT /cancel") == 1


async def test_a_poll_that_leads_elsewhere_leaves_the_interval_of_its_job(sleeps: list[float]) -> None:
    answers = in_turn(says(poll="/status", interval=0.3), says(poll="/status-2"), IMAGE)
    async with acme(answers) as (client, _):
        await client.run("acme/x", prompt="a kite")
    assert [each for each in sleeps if each] == [0.3, 0.3]


async def test_a_finished_job_is_not_cancelled() -> None:
    def answer(request: RecordedRequest) -> Answer:
        match request.target:
            case "/submit":
                return says(poll="/status", cancel="/cancel")
            case "/status":
                return says(poll="/result", is_ready=True)
            case _:
                return Answer(status=503)

    async with acme(answer, poll_interval=0.01, timeout=0.2) as (client, recorder):
        with pytest.raises(ChargeUnknown, match=r"job j1 continues at the provider.* client\.resume"):
            await client.run("acme/x", prompt="a kite")
    assert "PUT /cancel" not in targets(recorder)


async def test_a_cancel_that_fails_is_reported_and_hides_nothing() -> None:
    def answer(request: RecordedRequest) -> Answer:
        return Answer(status=500) if request.method == "PUT" else says(poll="/status", cancel="/cancel")

    async with acme(answer, poll_interval=0.01, timeout=0.1) as (client, recorder):
        with pytest.raises(ChargeUnknown, match=r"job j1 could not be cancelled \(ChargeUnknown\)") as caught:
            await client.run("acme/x", prompt="a kite")
    assert caught.value.id == "j1"
    assert targets(recorder).count("PUT /cancel") == 1


async def test_a_cancel_whose_answer_breaks_the_plugin_does_not_hide_the_callers_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polled = asyncio.Event()
    sound = Dialect.classify_error

    def classify(self: Dialect, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 418:
            raise RuntimeError("a fault of the plugin")
        return sound(self, operation, response)

    def answer(request: RecordedRequest) -> Answer:
        if request.method == "GET":
            polled.set()
        return Answer(status=418) if request.method == "PUT" else says(poll="/status", cancel="/cancel")

    monkeypatch.setattr(Dialect, "classify_error", classify)
    async with acme(answer, poll_interval=0.01) as (client, _):
        task = asyncio.create_task(client.run("acme/x", prompt="a kite"))
        await polled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert "job j1 could not be cancelled (RuntimeError)" in " ".join(caught.value.__notes__)


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -5.0, 1e300, True, "1"])
async def test_an_invalid_cost_of_a_plugin_loses_no_image_and_reaches_no_sum(usd: object) -> None:
    answers = in_turn(says(poll="/status", usd=usd), Answer(headers={"content-type": "image/png"}, body=png(64, 64)))
    async with acme(answers, poll_interval=0.01) as (client, _):
        result = await client.run("acme/x", prompt="a kite")
    assert len(result.artifacts) == 1
    assert result.cost is None
    assert any("invalid cost" in warning for warning in result.warnings)


class Cloud(Provider):
    """A provider whose tokens expire."""

    tokens: ClassVar[list[tuple[str, bool]]] = []

    @impasto.hookimpl
    async def authorize(self, account: Account, refused: bool) -> dict[str, str]:
        self.tokens.append((account.provider.name, refused))
        return {"authorization": f"Bearer token-canary-{sum(again for _, again in self.tokens)}"}


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    monkeypatch.setattr(Cloud, "tokens", [])
    return Cloud.tokens


async def test_a_token_that_expired_is_renewed_once_and_the_request_sent_again(tokens: list[tuple[str, bool]]) -> None:
    def answer(request: RecordedRequest) -> Answer:
        return IMAGE if request.header("authorization").endswith("-1") else says(status=401)

    async with acme(answer, Cloud, retry=impasto.Retry(attempts=1, refused=0)) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite")
    assert len(result.artifacts) == 1
    assert [again for _, again in tokens] == [False, True]
    assert [each.header("authorization")[-1] for each in recorder.posts] == ["0", "1"]


async def test_a_second_401_is_unauthorized_and_free_and_shows_no_token(tokens: list[tuple[str, bool]]) -> None:
    async with acme(lambda _: says(status=401), Cloud) as (client, recorder):
        with pytest.raises(Unauthorized) as caught:
            await client.run("acme/x", prompt="a kite")
    assert (caught.value.billed, caught.value.retryable, len(recorder.posts)) == ("no", False, 2)
    assert "canary" not in f"{caught.value!r} {caught.value}"


async def test_a_token_that_expires_while_a_job_runs_is_renewed_for_its_polls(tokens: list[tuple[str, bool]]) -> None:
    left = [says(poll="/s"), says(poll="/s"), says(status=401), says(poll="/s"), says(status=401), IMAGE]
    async with acme(lambda _: left.pop(0), Cloud, poll_interval=0.01) as (client, recorder):
        await client.run("acme/x", prompt="a kite")
    assert [again for _, again in tokens] == [False, False, False, True, False, True]
    assert len(recorder.posts) == 1
