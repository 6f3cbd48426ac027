"""What a middleware is made with, what it is told, and that what it answers for nothing costs nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import attrs
import pytest

import impasto
from impasto import BrokenPlugin, Handler, Middleware, Operation, Provider, Registry, Result, WireRequest, WireResponse
from impasto.options import Options
from impasto.registry import MIDDLEWARE, OPERATIONS, TRANSPORTS
from tests.conftest import KEY
from tests.core.test_hooks import ERASE, IMAGE, Loopback, painted, run
from tests.recorder import Answer, Recorder

CUT_OUT = Registry().operation("stability/remove-background")


class Kept:
    """Keeps what came and answers with it. A plugin that is a class: each client makes one of its own."""

    instances: list[Kept] = []  # noqa: RUF012 - what the tests look at

    def __init__(self, options: Options) -> None:
        self.settings = options.providers.get("kept", {})
        self.answer: WireResponse | None = None
        self.results: list[Result | None] = []
        self.operations: list[str] = []
        self.is_closed = False
        self.instances.append(self)

    @impasto.hookimpl
    def middleware(self, operation: Operation) -> Middleware:
        self.operations.append(operation.title)

        async def keep(wire: WireRequest, next: Handler) -> WireResponse:
            wire.call.on_end += (self.results.append,)
            self.answer = self.answer or await next(wire)
            return self.answer

        return keep

    async def aclose(self) -> None:
        self.is_closed = True


def registered(operation: object = None) -> Registry:
    registry = Registry()
    registry.add(OPERATIONS, "mine/painted", operation or painted())
    registry.add(MIDDLEWARE, "kept", Kept)
    return registry


async def test_a_class_is_made_once_with_the_clients_options_and_closed_with_it() -> None:
    Kept.instances.clear()
    settings: dict[str, Any] = {"api_key": KEY, "transport": Loopback(), "middleware": ["kept"]}
    async with impasto.Client(registry=registered(), providers={"kept": {"size": 5}}, **settings) as client:
        for model in ("mine/painted", "stability/remove-background"):
            await client.warm(model)
        [stored] = Kept.instances
        assert stored.settings == {"size": 5}
        assert stored.operations == [ERASE.title, CUT_OUT.title]
        assert not stored.is_closed
    assert stored.is_closed


async def test_an_answer_without_a_request_costs_nothing_and_spends_nothing() -> None:
    Kept.instances.clear()
    transport = Loopback()
    settings: dict[str, Any] = {"api_key": KEY, "transport": transport, "middleware": ["kept"]}
    async with impasto.Client(registry=registered(), spend_limit_usd=0.11, **settings) as client:
        costs = [(await client.run("mine/painted", image=IMAGE)).cost for _ in range(5)]
    assert [cost and (cost.usd, cost.credits) for cost in costs] == [(0.05, 5), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert len(transport.sent) == 1


async def test_it_is_told_how_a_call_ended_and_what_it_raises_then_takes_nothing_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    results: list[Result | None] = []

    def fails(result: Result | None) -> None:
        raise SystemExit(3)

    async def layer(wire: WireRequest, next: Handler) -> WireResponse:
        wire.call.on_end += (fails, results.append)
        assert wire.call.is_proven_free
        response = await next(wire)
        assert not wire.call.is_proven_free
        return response

    result = await run(painted(), Loopback(), middleware=[layer])
    with pytest.raises(impasto.ChargeUnknown):
        await run(painted(), Loopback(500), middleware=[layer])
    assert [results[0] and results[0].artifacts, results[1]] == [result.artifacts, None]
    assert [each.name for each in caplog.records] == ["impasto"] * 2
    assert "a plugin failed at the end of the call" in caplog.text


async def test_one_that_can_not_be_made_breaks_only_what_names_it() -> None:
    class Fails:
        def __init__(self, options: Options) -> None:
            raise OSError("no such device")

    registry = registered()
    registry.add(MIDDLEWARE, "fails", Fails)
    async with impasto.Client(registry=registry, api_key=KEY, transport=Loopback()) as client:
        with pytest.raises(BrokenPlugin, match="middleware 'fails' can't be made: OSError: no such device"):
            await client.with_options(middleware=["fails"]).run("mine/painted", image=IMAGE)
        assert (await client.run("mine/painted", image=IMAGE)).artifacts


class Stuck(Loopback):
    """A plugin, transport and middleware at once, that fails when it is closed."""

    raised: type[BaseException] = RuntimeError

    def __init__(self, options: Options) -> None:
        super().__init__()

    async def open(self) -> None: ...

    async def aclose(self) -> None:
        raise self.raised("boom")


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, asyncio.CancelledError, TimeoutError])
@pytest.mark.parametrize("group", [MIDDLEWARE, TRANSPORTS])
async def test_a_plugin_that_can_not_be_closed_takes_no_result_away(
    caplog: pytest.LogCaptureFixture, group: str, raised: type[BaseException]
) -> None:
    registry = registered()
    registry.add(group, "stuck", type("Raises", (Stuck,), {"raised": raised}))
    settings: dict[str, Any] = {"transport": "stuck"} if group == TRANSPORTS else {"transport": Loopback()}
    layers = ["stuck"] if group == MIDDLEWARE else []
    async with impasto.Client(registry=registry, api_key=KEY, middleware=layers, **settings) as client:
        result = await client.run("mine/painted", image=IMAGE)
    assert result.artifacts
    assert f"'stuck' could not be closed: {raised.__name__}: boom" in caplog.text


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, asyncio.CancelledError])
async def test_a_position_that_raises_breaks_only_what_names_it(raised: type[BaseException]) -> None:
    class Layer:
        @property
        def position(self) -> str:
            raise raised

        async def __call__(self, wire: WireRequest, next: Handler) -> WireResponse:
            raise AssertionError

    transport = Loopback()
    with pytest.raises(BrokenPlugin, match=raised.__name__):
        await run(painted(), transport, middleware=[Layer()])
    assert not transport.sent


@attrs.frozen(kw_only=True, eq=False)
class Odd(Provider):
    """A provider whose account is a plugin's own."""

    gives: Any = None

    def account(self, settings: Any, *, emulator_url: str | None = None) -> Any:
        if self.gives is None:
            raise LookupError(f"not in {settings['api_key']}")
        return self.gives


@pytest.mark.parametrize(
    ("gives", "message"), [(None, "finding its account raised LookupError"), (5, "its account is int, not an Account")]
)
async def test_a_provider_that_finds_no_account_is_named_without_the_key(gives: object, message: str) -> None:
    odd = Odd(name="odd", base_url="https://odd.example", gives=gives)
    transport = Loopback()
    with pytest.raises(BrokenPlugin, match=f"provider odd: {message}") as caught:
        await run(attrs.evolve(ERASE, provider=odd), transport, providers={"odd": {"api_key": KEY}})
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert transport.sent == []


async def test_a_layer_of_a_sibling_that_is_gone_leaves_its_identity_to_no_other(recorder: Recorder) -> None:
    """Routes are told apart by which layer it is; a new one at the place of a freed one would get its route."""

    class Fresh:
        @impasto.hookimpl
        def middleware(self) -> object:
            async def passes(wire: WireRequest, next: Handler) -> WireResponse:
                return await next(wire)

            return passes

    async with impasto.Client(api_key=KEY, api_base=recorder.url) as client:
        layer = Fresh()
        left = weakref.ref(layer)
        await client.with_options(middleware=[layer]).run("stability/sd3", prompt="x")
        del layer
        gc.collect()
        assert left() is not None


async def test_a_call_that_is_cancelled_while_its_transport_opens_is_cancelled() -> None:
    began = asyncio.Event()

    class Slow(Loopback):
        def __init__(self, options: Options) -> None:
            super().__init__()

        async def open(self) -> None:
            began.set()
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            raise asyncio.CancelledError  # a plugin's own, which takes nothing away

    registry = Registry()
    registry.add(TRANSPORTS, "slow", Slow)
    async with impasto.Client(registry=registry, api_key=KEY, transport="slow") as client:
        task = asyncio.create_task(client.run("stability/sd3", prompt="x"))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_middleware_that_is_a_class_is_made_once_for_all_models_of_a_client(recorder: Recorder) -> None:
    Kept.instances = []
    registry = Registry()
    registry.add(MIDDLEWARE, "kept", Kept)
    async with impasto.Client(registry=registry, api_key=KEY, api_base=recorder.url, middleware=["kept"]) as client:
        await client.warm("stability/sd3", "stability/erase")
    assert len(Kept.instances) == 1


async def test_a_key_in_the_id_of_an_exchange_is_not_shown(recorder: Recorder) -> None:
    recorder.answer = lambda _: Answer(status=502, headers={"content-type": "text/html", "x-request-id": f"of-{KEY}"})
    async with impasto.Client(api_key=KEY, api_base=recorder.url) as client:
        with pytest.raises(impasto.ChargeUnknown) as caught:
            await client.run("stability/sd3", prompt="x")
    assert caught.value.request_id == "of-***"
