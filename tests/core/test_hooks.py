"""The hooks, each by a plugin that a third party could write, and middleware in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

import attrs
import pluggy
import pytest

import impasto
from impasto import (
    Account,
    Artifact,
    BrokenPlugin,
    ChargeUnknown,
    Cost,
    Handler,
    ImpastoError,
    InvalidRequest,
    Middleware,
    Operation,
    Problem,
    RateLimited,
    Registry,
    Request,
    Result,
    Specs,
    WireRequest,
    WireResponse,
    hookimpl,
    hookspec,
)
from impasto.registry import OPERATIONS
from tests.conftest import KEY
from tests.images import png

ERASE = Registry().operation("stability/erase")
IMAGE = png(64, 64)


class Loopback:
    """A transport without a network: it keeps what it is given."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.sent: list[WireRequest] = []

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        with wire.call.sending(paid=True):
            self.sent.append(wire)
            return WireResponse(status=self.status, headers={"content-type": "image/png"}, body=IMAGE)


@attrs.frozen(kw_only=True, eq=False)
class Painted(Operation):
    """A model with hooks of its own in the place of a dialect's."""

    @hookimpl
    def transform_request(self, request: Request, account: Account) -> WireRequest:
        return WireRequest(target="/mine", fields={"model": request.operation})

    @hookimpl
    def classify_error(self, request: Request, response: WireResponse) -> ImpastoError | None:
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    @hookimpl
    def normalize_response(  # type: ignore[override]  # as version 1 of the hooks had it
        self, request: Request, response: WireResponse
    ) -> Result:  # pyright: ignore[reportIncompatibleMethodOverride]  # the same
        return Result(artifacts=(Artifact(data=response.body[:4], media_type=response.media_type),))


def painted() -> Painted:
    defaults = {a.name: getattr(ERASE, a.name) for a in attrs.fields(Operation) if a.init}
    return Painted(**defaults)


async def run(operation: object, transport: object, **settings: Any) -> Result:
    registry = Registry()
    registry.add(OPERATIONS, "mine/painted", operation)
    settings = {"api_key": KEY, "transport": transport, **settings}
    async with impasto.Client(registry=registry, **settings) as client:
        return await client.run("mine/painted", image=IMAGE)


async def test_an_operations_own_hooks_are_asked() -> None:
    transport = Loopback()
    result = await run(painted(), transport)
    assert result.artifacts[0].data == IMAGE[:4]
    assert (transport.sent[0].target, transport.sent[0].fields) == ("/mine", {"model": "mine/painted"})


async def test_a_failure_that_a_plugin_names_is_raised_with_the_models_name() -> None:
    with pytest.raises(ChargeUnknown, match="mine/painted: HTTP 418") as caught:
        await run(painted(), Loopback(418))
    assert (caught.value.status, caught.value.billed) == (418, "unknown")


class Layer:
    """A middleware that writes down when it was passed."""

    def __init__(self, name: str, position: str | None, log: list[str]) -> None:
        self.name, self.log = name, log
        if position is not None:
            self.position = position

    @hookimpl
    def middleware(self, operation: Operation) -> Middleware:
        assert operation.id == "stability/stable-image-erase-object-v1:0"
        return self

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        self.log.append(f"> {self.name}")
        response = await next(wire)
        self.log.append(f"< {self.name}")
        return response


async def test_middleware_stands_where_it_says_whatever_the_order_of_naming() -> None:
    log: list[str] = []
    layers = [Layer("inner", "inner", log), Layer("plain", None, log), Layer("outer", "outer", log)]
    await run(painted(), Loopback(), middleware=layers)
    assert log[0] == "> outer"
    assert log[-1] == "< outer"
    assert sorted(log[1:3]) == ["> inner", "> plain"]


async def test_a_bare_function_is_a_middleware_too() -> None:
    names: list[str] = []

    def note(wire: WireRequest, next: Handler) -> Awaitable[WireResponse]:
        names.append(wire.target)
        return next(wire)

    await run(painted(), Loopback(), middleware=[note])
    assert names == ["/mine"]


async def test_a_refusal_reaches_the_middleware_as_an_error() -> None:
    met: list[ImpastoError] = []

    async def watch(wire: WireRequest, next: Handler) -> WireResponse:
        try:
            return await next(wire)
        except ImpastoError as error:
            met.append(error)
            raise

    with pytest.raises(ChargeUnknown):
        await run(painted(), Loopback(500), middleware=[watch])
    assert [type(error) for error in met] == [ChargeUnknown]


async def test_a_middleware_that_sends_a_paid_request_twice_is_stopped() -> None:
    transport = Loopback()

    async def twice(wire: WireRequest, next: Handler) -> WireResponse:
        await next(wire)
        return await next(wire)

    with pytest.raises(ChargeUnknown, match="twice"):
        await run(painted(), transport, middleware=[twice])
    assert len(transport.sent) == 1


class WrongHook:
    @hookimpl
    def transform_reqest(self, request: Request) -> None:
        """The name of no hook."""


class WrongArgument:
    @hookimpl
    def middleware(self, operations: str) -> None:
        """An argument that the hook does not have."""


class Raises:
    @hookimpl
    def middleware(self) -> Middleware:
        raise RuntimeError("no")


class Misplaced:
    position: Any = "middle"

    @hookimpl
    def middleware(self) -> Middleware:
        return Layer("x", self.position, [])


class MisplacedByAList(Misplaced):
    position: Any = ["outer"]  # noqa: RUF012 - wrong on purpose


@pytest.mark.parametrize(
    "plugin", [WrongHook(), WrongArgument(), Raises(), Misplaced(), MisplacedByAList()], ids=lambda p: type(p).__name__
)
async def test_a_plugin_that_does_not_fit_the_hooks_is_named(plugin: object) -> None:
    transport = Loopback()
    with pytest.raises(BrokenPlugin):
        await run(painted(), transport, middleware=[plugin])
    assert transport.sent == []


@pytest.mark.parametrize("layer", [5, None, object(), []])
async def test_an_invalid_middleware_is_refused(layer: object) -> None:
    with pytest.raises(BrokenPlugin, match="invalid middleware .*; give a name, a plugin or a function"):
        await run(painted(), Loopback(), middleware=[layer])


async def test_plugins_are_told_apart_by_which_they_are_as_some_can_not_be_hashed() -> None:
    @attrs.define
    class Mark:
        name: str
        names: list[str]

        async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
            self.names.append(self.name)
            return await next(wire)

    @attrs.define
    class Unhashable(Loopback):
        status: int = 200
        sent: list[WireRequest] = attrs.field(factory=list[WireRequest])

    names: list[str] = []
    registry, transport = Registry(), Unhashable()
    registry.add(OPERATIONS, "mine/painted", painted())
    async with impasto.Client(registry=registry, api_key=KEY, transport=transport) as client:
        for name in ("one", "two"):
            sibling = client.with_options(middleware=[Mark(name, names)])
            await sibling.run("mine/painted", image=IMAGE)
            await sibling.run("mine/painted", image=IMAGE)
    assert names == ["one", "one", "two", "two"]


async def test_a_transport_without_the_hook_is_named() -> None:
    class Unmarked:
        async def send(self, wire: WireRequest) -> WireResponse:
            raise AssertionError

    with pytest.raises(BrokenPlugin, match="Unmarked.send is named like a hook, but it is not marked"):
        await run(painted(), Unmarked())


async def test_an_error_while_a_transport_opens_breaks_only_its_models() -> None:
    class Fails:
        def __init__(self, options: object) -> None: ...
        async def open(self) -> None:
            raise OSError("no such device")

        async def aclose(self) -> None: ...

    registry = Registry()
    registry.add("impasto.transports", "fails", Fails)
    async with impasto.Client(registry=registry, api_key=KEY, transport="fails") as client:
        with pytest.raises(BrokenPlugin, match="transport 'fails' can't be opened: OSError: no such device"):
            await client.run("stability/erase", image=IMAGE)


async def test_a_cancellation_that_nobody_asked_for_is_told() -> None:
    """A task group passes over a task that ends as cancelled: a paid call would be lost in silence."""

    async def leaks(wire: WireRequest, next: Handler) -> WireResponse:
        await next(wire)
        raise asyncio.CancelledError

    transport = Loopback()
    with pytest.raises(ChargeUnknown, match="a plugin raised CancelledError"):
        await run(painted(), transport, middleware=[leaks])
    assert len(transport.sent) == 1


class NoRule:
    def problems(self, params: Mapping[str, object]) -> Iterator[Problem]:
        raise ZeroDivisionError("rule")


class NoPrice:
    cost = None

    def quote(self, params: attrs.AttrsInstance) -> Cost | None:
        raise LookupError("price")


def no_default(params: Mapping[str, object]) -> Mapping[str, object]:
    raise KeyError("default")


@pytest.mark.parametrize(
    "part", [{"rules": (NoRule(),)}, {"price": NoPrice()}, {"derive_params": no_default}], ids=",".join
)
async def test_an_error_of_a_plugin_before_a_call_names_the_plugin_and_nothing_is_sent(part: dict[str, Any]) -> None:
    transport = Loopback()
    with pytest.raises(BrokenPlugin, match=r"mine/painted: .* raised .*Error: .*; nothing was sent"):
        await run(attrs.evolve(ERASE, **part), transport)
    assert transport.sent == []


async def test_a_plugin_that_would_pay_to_resume_a_job_is_stopped() -> None:
    registry, transport = Registry(), Loopback()
    registry.add(OPERATIONS, "mine/painted", painted())
    async with impasto.Client(registry=registry, api_key=KEY, transport=transport) as client:
        with pytest.raises(InvalidRequest, match="this model answers at once: it has no jobs to resume"):
            await client.resume("mine/painted", "any-id")
    assert transport.sent == []


def test_a_429_carries_how_long_to_wait() -> None:
    error = RateLimited("slow", status=429)
    assert (error.retry_after, error.retryable, error.billed) == (None, True, "no")


def test_the_specifications_are_pluggys_and_may_stand_beside_others() -> None:
    class Others:
        @hookspec(firstresult=True)
        def preview(self, operation_id: str) -> str | None: ...

    class Plugin:
        @hookimpl
        def preview(self, operation_id: str) -> str:
            return f"a thumbnail of {operation_id}"

    manager = pluggy.PluginManager("impasto")
    manager.add_hookspecs(Specs)
    manager.add_hookspecs(Others)
    manager.register(Plugin())
    manager.check_pending()
    assert manager.hook.preview(operation_id="acme/paint") == "a thumbnail of acme/paint"
