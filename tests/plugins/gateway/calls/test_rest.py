"""How long a deployment rests, which one goes first, and what may be asked of another: without a gateway around it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impasto import (
    Account,
    Artifact,
    BadRequest,
    ChargeUnknown,
    ConfigError,
    ContentFiltered,
    Cost,
    ImpastoError,
    InvalidRequest,
    NotFound,
    NotSent,
    PaymentRequired,
    PermissionDenied,
    Problem,
    Provider,
    ProviderFault,
    RateLimited,
    Result,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
)
from impasto_plugins.gateway.calls import deployments as module
from impasto_plugins.gateway.calls.deployments import Deployment, Model, can_fall_back
from impasto_plugins.gateway.calls.execution import DeploymentCandidates, PreparedCall, invoke_deployment, try_each
from impasto_plugins.gateway.calls.queue_timeout import with_queue_timeout
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.middleware.gate import gate_of


def limited(seconds: float | None) -> RateLimited:
    error = RateLimited("slow", status=429)
    error.retry_after = seconds
    return error


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock()


def deployment(name: str = "d", **values: Any) -> Deployment:
    entry = SimpleNamespace(order=values.pop("order", None), input_cost_per_image=values.pop("usd", None), model=name)
    operation = SimpleNamespace(output="image", flat_cost=values.pop("cost", None), fields={}, aliases={}, roles={})
    found: Any = dict.fromkeys(("client", "account", "description", "observer"))
    return Deployment(name, cast("Any", entry), cast("Any", operation), **{**found, "drop_params": False, **values})


def rest(*errors: ImpastoError) -> float:
    """Return for how many seconds a deployment rests after these failures."""
    resting = deployment()
    for error in errors:
        resting.record_failure(error)
    return max(0.0, resting.cooldown_until - 1000)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("errors", "seconds"),
    [
        ([NotSent("no")] * 2, 0),
        ([NotSent("no")] * 3, 30),
        ([ProviderFault("no", status=500)] * 3, 30),
        ([ChargeUnknown("no")] * 3, 30),
        ([Unauthorized("no", status=401)], 60),
        ([PaymentRequired("no", status=402)], 60),
        ([PermissionDenied("no", status=403)], 60),
        ([ConfigError("no")], 60),
        ([limited(7)], 7),
        ([limited(0)], 0),
        ([limited(None)], 1),
        ([limited(None)] * 2, 2),
        ([limited(None)] * 3, 4),
        ([limited(None)] * 9, 30),
        ([ContentFiltered("no", status=403)] * 9, 0),
        ([InvalidRequest([Problem("p", "no")])] * 9, 0),
        ([ContentFiltered("no", status=403), NotSent("no"), NotSent("no")], 0),
    ],
    ids=lambda value: f"{len(value)} {type(value[0]).__name__}" if isinstance(value, list) else None,
)
def test_a_deployment_rests_as_long_as_its_failure_says(errors: list[ImpastoError], seconds: float) -> None:
    assert rest(*errors) == seconds


def test_it_rests_until_the_time_is_over_or_it_works(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    resting = deployment()
    assert not resting.is_cooling_down()
    resting.record_failure(limited(7))
    for now, rests in ((1000.0, True), (1006.9, True), (1007.0, False)):
        monkeypatch.setattr(Clock, "now", now)
        assert resting.is_cooling_down() is rests
    resting.record_failure(Unauthorized("no", status=401))
    resting.record_success()
    assert (resting.failures, resting.is_cooling_down()) == (0, False)


@pytest.mark.usefixtures("clock")
def test_the_order_of_deployments_is_rest_then_rank_then_load() -> None:
    ranked, busy, idle, resting = (
        deployment("ranked", order=1, running=9),
        deployment("busy", running=2),
        deployment("idle", running=1),
        deployment("resting", order=0),
    )
    later = deployment("later", order=2)
    resting.record_failure(Unauthorized("no", status=401))
    for _ in range(5):
        turn = Model("m", (resting, busy, idle, later, ranked)).by_preference()
        assert [each.name for each in turn] == ["ranked", "later", "idle", "busy", "resting"]
    assert Model("m", (resting,)).by_preference() == [resting]


def result(n: int = 2, cost: Cost | None = None) -> Result:
    return Result(artifacts=(Artifact(data=b"", media_type="image/png"),) * n, cost=cost)


@pytest.mark.parametrize(
    ("usd", "cost", "came", "expected"),
    [
        (0.01, 0.01, 0.065, 0.02),
        (0.01, 0.01, None, 0.02),
        (0.01, 0.01, 0.0, 0.0),  # of a cache
        (None, 0.01, 0.065, 0.065),
        (0.01, None, 0.065, 0.065),
    ],
)
def test_a_price_of_the_entry_counts_for_what_cost_something(
    usd: float | None, cost: float | None, came: float | None, expected: float
) -> None:
    own = Cost(usd=cost, as_of="") if cost is not None else None
    priced = deployment(usd=usd, cost=own).apply_price(
        result(cost=Cost(usd=came, as_of="") if came is not None else None)
    )
    assert priced.cost is not None
    assert priced.cost.usd == pytest.approx(expected)


@pytest.mark.parametrize(
    ("error", "elsewhere"),
    [
        (NotSent("no"), True),
        (ProviderFault("no", status=500), True),
        (limited(None), True),
        (Unauthorized("no", status=401), True),
        (PaymentRequired("no", status=402), True),
        (PermissionDenied("no", status=403), True),
        (ConfigError("no"), True),
        (ChargeUnknown("no"), False),
        (UnusableResult("no"), False),
        (ContentFiltered("no", status=403), False),
        (BadRequest("no", status=400), False),
        (Unprocessable("no", status=422), False),
        (TooLarge("no", status=413), False),
        (NotFound("no", status=404), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ImpastoError) else None,
)
def test_only_what_says_nothing_of_the_request_and_cost_nothing_goes_elsewhere(
    error: ImpastoError, elsewhere: bool
) -> None:
    assert can_fall_back(error) is elsewhere
    error.errors = (ChargeUnknown("one of its images"),)
    assert can_fall_back(error) is False


class Others:
    """The deployments that are left, by name."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    @property
    def untried(self) -> list[str]:
        return self.names

    async def next(self) -> PreparedCall | None:
        return call(self.names.pop(0)) if self.names else None


def call(name: str) -> PreparedCall:
    return cast("PreparedCall", SimpleNamespace(deployment=SimpleNamespace(name=name)))


async def tried(errors: dict[str, list[ImpastoError]], *names: str) -> list[tuple[str, bool]]:
    """Return the deployments that were asked in turn, each with True if it waited as long as its provider asked."""
    requests: list[tuple[str, bool]] = []

    async def attempt(prepared_call: PreparedCall, *, waits: bool) -> str:
        requests.append((prepared_call.deployment.name, waits))
        if left := errors.get(prepared_call.deployment.name):
            raise left.pop(0)
        return "made"

    first, *others = names
    try:
        await try_each(call(first), Others(*others), attempt)
    except ImpastoError as error:
        requests.append((type(error).__name__, False))
    return requests


async def test_nobody_waits_for_one_while_another_is_left() -> None:
    assert await tried({}, "a", "b") == [("a", False)]
    assert await tried({}, "a") == [("a", True)]
    assert await tried({"a": [NotSent("no")]}, "a", "b") == [("a", False), ("b", False)]
    assert await tried({"a": [limited(5)]}, "a", "b") == [("a", False), ("b", False)]


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((5, 3, 9), "b"), ((3, 5, 9), "a"), ((9, 5, 3), "c"), ((None, 5, 3), "a"), ((4, 4, 4), "a")]
)
@pytest.mark.usefixtures("still")
async def test_the_one_that_may_send_first_is_waited_for(seconds: tuple[float | None, ...], chosen: str) -> None:
    errors: dict[str, list[ImpastoError]] = {name: [limited(each)] for name, each in zip("abc", seconds, strict=True)}
    expected = [("a", False), ("b", False), ("c", False), (chosen, True)]
    assert await tried(errors, "a", "b", "c") == expected


async def test_of_two_with_one_paused_key_the_one_that_did_not_refuse_is_asked_again_first() -> None:
    provider = Provider(name="acme", base_url="https://acme.example", key_variable="ACME_KEY")
    account = Account(provider=provider, base_url=provider.base_url, headers={"x-key": "sk-one-key"})
    requests: list[str] = []

    async def attempt(prepared_call: PreparedCall, *, waits: bool) -> str:
        async def ask() -> str:
            requests.append(name := prepared_call.deployment.name)
            if name == "refuses":
                gate_of(account).pause(60)
                raise limited(60)
            return "made"

        try:
            return await with_queue_timeout(account, ask, waits=waits)
        except RateLimited:
            await asyncio.sleep(0.01 * (prepared_call.deployment.name != "refuses"))  # the budget is given back
            raise

    assert await try_each(call("refuses"), Others("free"), attempt) == "made"
    assert requests == ["refuses", "free"]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass."""
    from impasto_plugins.gateway.calls import execution

    monkeypatch.setattr(execution, "time", SimpleNamespace(monotonic=lambda: 1000.0))


@pytest.mark.usefixtures("still")
async def test_one_that_is_held_back_again_is_the_last() -> None:
    errors: dict[str, list[ImpastoError]] = {"a": [limited(1), limited(1)], "b": [limited(2)]}
    assert await tried(errors, "a", "b") == [("a", False), ("b", False), ("a", True), ("RateLimited", False)]
    errors = {"a": [limited(1)], "b": [NotSent("no")]}
    assert await tried(errors, "a", "b") == [("a", False), ("b", False), ("b", True)]
    errors = {"a": [limited(1)], "b": [NotSent("no"), NotSent("no")]}
    assert await tried(errors, "a", "b") == [("a", False), ("b", False), ("b", True), ("a", True)]
    assert await tried({"a": [ChargeUnknown("no")]}, "a", "b") == [("a", False), ("ChargeUnknown", False)]


@pytest.mark.usefixtures("still")
async def test_those_that_can_not_be_reached_are_asked_again_one_after_the_other() -> None:
    errors: dict[str, list[ImpastoError]] = {name: [NotSent("no"), NotSent("no")] for name in "ab"}
    assert await tried(errors, "a", "b") == [
        *(("a", False), ("b", False)),
        *(("a", True), ("b", True), ("NotSent", False)),
    ]
    errors = {"a": [NotSent("no")], "b": [Unauthorized("no", status=401)]}
    assert await tried(errors, "a", "b") == [("a", False), ("b", False), ("a", True)]
    errors = {"a": [NotSent("no"), ChargeUnknown("no")], "b": [NotSent("no")]}
    assert await tried(errors, "a", "b") == [("a", False), ("b", False), ("a", True), ("ChargeUnknown", False)]


async def test_a_refusal_of_all_is_that_of_the_first_and_of_some_is_none() -> None:
    one, two, three = (deployment(name) for name in ("one", "two", "three"))
    model = Model("m", (one, two, three))
    fits = {"three"}

    async def check(each: Deployment) -> PreparedCall:
        if each.name in fits:
            return call(each.name)
        raise InvalidRequest([Problem(each.name, "no")])

    fitting = DeploymentCandidates(model, check, model.by_preference())
    found = await fitting.next()
    assert found is not None
    assert found.deployment.name == "three"
    assert await fitting.next() is None
    assert not fitting.untried
    fits.clear()
    with pytest.raises(APIError) as refused:
        await DeploymentCandidates(model, check, model.by_preference()).next()
    assert refused.value.param == "one"


@pytest.mark.parametrize("error", [None, NotSent("no"), asyncio.CancelledError()], ids=["came", "failed", "cancelled"])
async def test_a_call_that_is_over_is_no_load(error: BaseException | None) -> None:
    running: list[int] = []

    class Client:
        async def invoke(self, *args: object, **options: object) -> Result:
            running.append(one.running)
            if error is not None:
                raise error
            return result()

    class Observer:
        def record_call(self, label: object, price: object) -> Any:
            return nullcontext(SimpleNamespace(record_result=lambda result: None))

    one = deployment(client=Client(), observer=Observer())
    one.config = cast("Any", SimpleNamespace(model_name="n", model="p/m", base_model=None, input_cost_per_image=None))
    checked = cast("PreparedCall", SimpleNamespace(deployment=one, request=None, n=2, cost=None))
    if error is None:
        await invoke_deployment(checked, cast("Any", None))
    else:
        with pytest.raises(type(error)):
            await invoke_deployment(checked, cast("Any", None))
    assert (running, one.running) == ([1], 0)
    assert one.failures == (1 if isinstance(error, NotSent) else 0)
