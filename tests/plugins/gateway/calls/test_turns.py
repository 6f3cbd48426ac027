"""A call's wait for its turn, and jobs of a provider that are fetched: without a gateway around them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from impasto import (
    Account,
    Artifact,
    ChargeUnknown,
    Cost,
    NotSent,
    ProviderFault,
    RateLimited,
    Result,
    UnusableResult,
    Usage,
    WireRequest,
)
from impasto_plugins.fetched_jobs import ProviderJob
from impasto_plugins.gateway.calls import queue_timeout as module
from impasto_plugins.gateway.calls.deployments import Deployment, Model
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.provider_jobs import ProviderJobs
from impasto_plugins.gateway.calls.queue_timeout import (
    QueueTimeout,
    max_queue_wait,
    read_max_queue_wait,
    with_queue_timeout,
)
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from impasto_plugins.gateway.storage.local import LocalStore
from impasto_plugins.gateway.storage.salvage import SalvageStore

ACCOUNT = cast("Account", None)
WIRE = cast("WireRequest", None)


class Gate:
    """A provider whose turn comes in so many seconds."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)

    def estimate_wait(self, account: Account) -> float:
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


@pytest.fixture(autouse=True)
def longest() -> Iterator[None]:
    """Wait for ten seconds at most."""
    token = max_queue_wait.set(10)
    yield
    max_queue_wait.reset(token)


def gate(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    there = Gate(*seconds)
    monkeypatch.setattr(module, "gate_of", lambda account: there)


async def come() -> str:
    return "came"


def limited(seconds: float | None) -> RateLimited:
    error = RateLimited("slow", status=429)
    error.retry_after = seconds
    return error


@pytest.mark.parametrize(
    ("seconds", "waits", "comes"),
    [(0, True, True), (10, True, True), (10.1, True, False), (0, False, True), (0.1, False, False)],
)
async def test_a_call_whose_turn_comes_too_late_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, seconds: float, waits: bool, comes: bool
) -> None:
    gate(monkeypatch, seconds)
    if comes:
        assert await with_queue_timeout(ACCOUNT, come, waits=waits) == "came"
    else:
        with pytest.raises(RateLimited, match="nothing was sent") as refused:
            await with_queue_timeout(ACCOUNT, come, waits=waits)
        assert (refused.value.retry_after, refused.value.status, refused.value.billed) == (seconds, 429, "no")
    assert module._current_wait.get() is None


async def test_a_caller_without_a_time_out_waits_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    gate(monkeypatch, 1e6)
    max_queue_wait.set(math.inf)
    assert await with_queue_timeout(ACCOUNT, come) == "came"


@pytest.mark.parametrize(("left", "expected"), [(0.0, 1.0), (7.0, 7.0)])
async def test_a_wait_that_took_too_long_says_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, left: float, expected: float
) -> None:
    gate(monkeypatch, 0.0, left)
    max_queue_wait.set(0.01)
    with pytest.raises(RateLimited) as refused:
        await with_queue_timeout(ACCOUNT, asyncio.Event().wait)
    assert refused.value.retry_after == expected
    assert module._current_wait.get() is None


async def test_a_calls_own_time_out_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gate(monkeypatch, 0.0)

    async def times_out() -> None:
        raise TimeoutError("of the call")

    with pytest.raises(TimeoutError, match="of the call"):
        await with_queue_timeout(ACCOUNT, times_out)


async def test_a_call_whose_turn_came_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on it may be paid for, however long it takes."""
    gate(monkeypatch, 0.0)
    max_queue_wait.set(0.05)

    async def answers(wire: WireRequest) -> Any:
        await asyncio.sleep(0.1)
        return "came"

    came: object = await with_queue_timeout(ACCOUNT, lambda: QueueTimeout()(WIRE, answers))
    assert came == "came"


async def test_a_call_whose_turn_came_too_late_is_not_sent_either(monkeypatch: pytest.MonkeyPatch) -> None:
    gate(monkeypatch, 0.0)
    max_queue_wait.set(0.01)
    errors: list[NotSent] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(NotSent) as refused:
                await QueueTimeout()(WIRE, cast("Any", None))
            errors.append(refused.value)
            raise

    with pytest.raises(RateLimited):
        await with_queue_timeout(ACCOUNT, stubborn)
    assert [error.retryable for error in errors] == [False]


async def test_work_that_no_caller_waits_for_passes() -> None:
    async def answers(wire: WireRequest) -> Any:
        return "came"

    came: object = await QueueTimeout()(WIRE, answers)
    assert came == "came"


@pytest.mark.parametrize(
    ("waits", "seconds", "again"),
    [
        (True, 9.0, True),
        (True, 10.0, True),
        (True, 10.5, False),
        (True, None, True),
        (False, 0.0, False),
        (False, None, False),
    ],
)
async def test_a_refusal_for_now_is_waited_for_if_no_other_deployment_is_left_and_its_caller_is_patient(
    monkeypatch: pytest.MonkeyPatch, waits: bool, seconds: float | None, again: bool
) -> None:
    gate(monkeypatch, 0.0)

    async def refuses(wire: WireRequest) -> Any:
        raise limited(seconds)

    with pytest.raises(RateLimited) as refused:
        await with_queue_timeout(ACCOUNT, lambda: QueueTimeout()(WIRE, refuses), waits=waits)
    assert refused.value.retryable is again


@pytest.mark.parametrize("came", [True, False])
async def test_one_image_of_several_waits_for_what_becomes_of_the_others(
    monkeypatch: pytest.MonkeyPatch, came: bool
) -> None:
    """If another of the same call came, the one that was refused for now is sent again here; else all go elsewhere."""
    gate(monkeypatch, 0.0)
    over = asyncio.Event()
    middleware = QueueTimeout()

    async def refuses(wire: WireRequest) -> Any:
        raise limited(1)

    async def later(wire: WireRequest) -> Any:
        await over.wait()
        if not came:
            raise NotSent("no")
        return "came"

    async def several() -> list[Any]:
        tasks = [asyncio.ensure_future(middleware(WIRE, each)) for each in (later, refuses)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not tasks[1].done()
        over.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    _, refused = await with_queue_timeout(ACCOUNT, several, waits=False)
    assert refused.retryable is came


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-stainless-read-timeout": "5", "x-stainless-timeout": "7"}, 5),
        ({"x-stainless-read-timeout": "7", "x-stainless-timeout": "5"}, 5),
        ({"x-stainless-read-timeout": "x", "x-stainless-timeout": "5"}, 5),
        ({"x-stainless-read-timeout": "0.001"}, 0.001),
    ],
)
def test_the_shorter_of_two_time_outs_counts(headers: Mapping[str, str], seconds: float) -> None:
    assert read_max_queue_wait(headers, 60) == seconds


def provider_jobs(*ids: str, n: int = 2, cost: Cost | None = None) -> ProviderJobs:
    return ProviderJobs(model="m", account="a", ids=ids, n=n, cost=cost, warnings=("w",), created=7)


@pytest.mark.parametrize("cost", [None, Cost(usd=0.6, as_of="2026-01-01")])
def test_a_job_is_read_as_it_was_written(cost: Cost | None) -> None:
    usage = Usage(input_tokens=1, output_tokens=2) if cost is not None else None
    jobs = (ProviderJob(id="x", place=0, count=4, cost=cost, usage=usage), ProviderJob(id="y", place=4, count=2))
    job = attrs.evolve(provider_jobs(n=6, cost=cost), jobs=jobs)
    assert ProviderJobs.from_json(job.to_json()) == job


async def fetched(jobs: ProviderJobs, runtime: Runtime) -> CallOutcome:
    with MemoryReservation(MemoryBudget(1 << 24)) as memory, ExitStack() as stack:
        return await jobs.fetch(runtime, memory, stack)


BEFORE = """{"model": "m", "account": "a", "ids": ["x", "y"], "n": %d, "cost": {"usd": 0.6, "credits": null,
"as_of": "2026-01-01"}, "warnings": ["w"], "created": 7}"""
"""A row of the version before."""


@pytest.mark.parametrize(
    ("maximum", "n", "counts"),
    [(None, 2, {"x": 1, "y": 1}), (4, 6, {"x": 4, "y": 2}), (None, 3, {"x": 1, "y": 1})],
)
async def test_a_row_of_the_version_before_is_fetched(
    tmp_path: Any, maximum: int | None, n: int, counts: dict[str, int]
) -> None:
    client = Client({})
    done = await fetched(ProviderJobs.from_json(BEFORE % n), setup(tmp_path, client, maximum=maximum))
    assert client.polls == counts
    assert len(done.artifacts) == sum(counts.values())
    assert [each["index"] for each in done.lost] == list(range(sum(counts.values()), n))
    assert done.cost is not None
    assert done.cost.usd == pytest.approx(0.6 * len(done.artifacts))


async def test_jobs_that_the_provider_priced_cost_that(tmp_path: Any) -> None:
    stated, usage = Cost(usd=0.5, as_of=""), Usage(input_tokens=1, output_tokens=2)
    jobs = [
        ProviderJob(id="y", place=4, count=2, usage=usage),
        ProviderJob(id="x", place=0, count=4, cost=stated, usage=usage),
    ]
    call = attrs.evolve(provider_jobs(n=6, cost=Cost(usd=0.6, as_of="")), jobs=tuple(jobs))
    done = await fetched(call, setup(tmp_path, Client({})))
    assert [each.data for each in done.artifacts] == [b"x"] * 4 + [b"y"] * 2
    assert done.cost is not None
    assert done.cost.usd == pytest.approx(0.5 + 2 * 0.6)
    assert done.usage == Usage(input_tokens=2, output_tokens=4)


class Client:
    """Fetches jobs: as many images as were asked for, or the error of an id."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        self.errors = errors
        self.seconds: list[float] = []
        self.polls: dict[str, int] = {}

    async def resume(self, model: str, id: str, *, n: int, timeout: float, call: object) -> Result:
        self.seconds.append(timeout)
        self.polls[id] = n
        if id in self.errors:
            raise self.errors[id]
        return Result(artifacts=(Artifact(data=id.encode(), media_type="image/png"),) * n)


def setup(
    tmp_path: Any, client: Client, *, model: str = "m", account: str = "a", maximum: int | None = None
) -> Runtime:
    class Observed:
        def __enter__(self) -> Any:
            return SimpleNamespace(record_result=lambda result: None)

        def __exit__(self, *error: object) -> None:
            return None

    deployment = cast(
        "Deployment",
        SimpleNamespace(
            config=SimpleNamespace(model=model),
            account=SimpleNamespace(fingerprint=account),
            client=client,
            operation=SimpleNamespace(native_n=("n", maximum) if maximum is not None else None),
            apply_price=lambda result: result,
            label=None,
            observer=SimpleNamespace(record_call=lambda label, price: Observed()),
        ),
    )
    return cast(
        "Runtime",
        SimpleNamespace(
            models={"m": Model("m", (deployment,))},
            places=SimpleNamespace(salvage=SalvageStore(LocalStore(tmp_path, 60))),
        ),
    )


async def test_of_a_call_whose_jobs_are_fetched_each_image_is_accounted_for(tmp_path: Any) -> None:
    """Of four: one came, one failed for nothing, and two were never taken on as far as anybody knows."""
    client = Client({"y": ProviderFault("no", status=500)})
    done = await fetched(provider_jobs("x", "y", n=4, cost=Cost(usd=0.6, as_of="")), setup(tmp_path, client))
    assert [each.data for each in done.artifacts] == [b"x"]
    assert [(each["index"], each["billed"]) for each in done.lost] == [(1, "no"), (2, "unknown"), (3, "unknown")]
    assert done.lost[1]["code"] == "charge_unknown"
    assert done.cost is not None
    assert done.cost.usd == pytest.approx(0.6)
    assert (done.created, done.warnings) == (7, ("w",))
    assert client.seconds == [86_400, 86_400]


async def test_jobs_that_all_failed_are_the_first_ones_error(tmp_path: Any) -> None:
    client = Client({"x": ChargeUnknown("first"), "y": ProviderFault("second", status=500)})
    with pytest.raises(APIError, match="first") as failed:
        await fetched(provider_jobs("x", "y"), setup(tmp_path, client))
    assert not failed.value.not_charged
    done = await fetched(provider_jobs("z"), setup(tmp_path, client))
    assert done.cost is None


async def test_if_a_later_job_may_have_been_charged_the_call_may_have_been(tmp_path: Any) -> None:
    client = Client({"x": ProviderFault("no", status=500), "y": ChargeUnknown("it broke off")})
    with pytest.raises(APIError, match="it broke off") as failed:
        await fetched(provider_jobs("x", "y"), setup(tmp_path, client))
    assert (failed.value.code, failed.value.not_charged, failed.value.should_retry) == ("charge_unknown", False, False)


async def test_if_a_job_was_never_recorded_the_call_may_have_been_charged(tmp_path: Any) -> None:
    client = Client({"x": ProviderFault("no", status=500)})
    with pytest.raises(APIError, match="outcome is unknown") as failed:
        await fetched(provider_jobs("x", n=2), setup(tmp_path, client))
    assert (failed.value.code, failed.value.not_charged, failed.value.should_retry) == ("charge_unknown", False, False)


async def test_if_no_job_has_a_usable_image_the_error_names_the_file_of_each(tmp_path: Any) -> None:
    client = Client({id: UnusableResult("no image", raw=id.encode()) for id in ("x", "y")})
    with pytest.raises(APIError) as failed:
        await fetched(provider_jobs("x", "y"), setup(tmp_path, client))
    names = re.findall(r"GET /v1/images/files/([\w-]{43}\.bin) has the answer", failed.value.message)
    assert sorted((tmp_path / name).read_bytes() for name in names) == [b"x", b"y"]


@pytest.mark.parametrize(("model", "account"), [("other", "a"), ("m", "other")])
async def test_a_job_is_fetched_with_the_key_it_began_with_alone(tmp_path: Any, model: str, account: str) -> None:
    client = Client({})
    with pytest.raises(APIError, match="job x is no longer configured, so the job can't be fetched") as failed:
        await fetched(provider_jobs("x"), setup(tmp_path, client, model=model, account=account))
    assert (failed.value.status, failed.value.code, failed.value.not_charged) == (502, "charge_unknown", False)
    assert failed.value.should_retry is False
    assert client.seconds == []
