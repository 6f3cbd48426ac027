"""What a plugin may do wrong in a hook: it is named, it breaks only its own call, and what may be paid is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    BrokenPlugin,
    ChargeUnknown,
    ConfigError,
    NotAllowed,
    Registry,
    UnusableResult,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.registry import OPERATIONS
from tests.conftest import KEY
from tests.core.test_hooks import ERASE, IMAGE, Loopback, painted, run
from tests.distributions import ACME, install

FAULTS: dict[str, tuple[type[impasto.ImpastoError], str]] = {
    "transform_request": (BrokenPlugin, "transform_request returned str, not a WireRequest"),
    "send": (ChargeUnknown, "send returned str, not a WireResponse"),
    "classify_error": (ChargeUnknown, "classify_error returned str, not an ImpastoError"),
    "normalize_response": (UnusableResult, "normalize_response returned str, not a Result or a Pending"),
}


def with_hook(name: str, does: Callable[[], object]) -> tuple[object, Loopback]:
    """An operation and a transport, of which one hook does something else."""
    transport, operation = Loopback(), painted()

    if name == "send":

        class Sends(Loopback):
            @hookimpl
            async def send(self, wire: WireRequest) -> WireResponse:
                await super().send(wire)
                return does()  # type: ignore[return-value]  # what the test is about

        return operation, Sends()
    broken = type("Broken", (type(operation),), {name: hookimpl(lambda self: does())})
    defaults = {a.name: getattr(ERASE, a.name) for a in attrs.fields(impasto.Operation) if a.init}
    return broken(**defaults), transport


@pytest.mark.parametrize("hook", FAULTS)
async def test_a_hook_that_returns_the_wrong_type_is_named(hook: str) -> None:
    kind, message = FAULTS[hook]
    with pytest.raises(kind, match=message):
        await run(*with_hook(hook, lambda: "text"))


class Panic(BaseException):
    """A plugin's own, as pyo3 raises for a panic in Rust; no Exception."""


def exits() -> object:
    raise SystemExit(3)


def raises(kind: type[BaseException]) -> Callable[[], object]:
    def does() -> object:
        raise kind

    return does


KINDS = [(name, UnusableResult if name == "normalize_response" else kind) for name, (kind, _) in FAULTS.items()]


@pytest.mark.parametrize("raised", [SystemExit, Panic, asyncio.CancelledError, GeneratorExit, pytest.skip.Exception])
@pytest.mark.parametrize(("hook", "kind"), KINDS)
async def test_a_hook_that_raises_what_is_no_exception_ends_its_call_and_not_the_process(
    hook: str, kind: type[Exception], raised: type[BaseException]
) -> None:
    with pytest.raises(kind, match=raised.__name__):
        await run(*with_hook(hook, raises(raised)))


class Mute(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise SystemExit(7)

    __repr__ = __str__


class Numb(Mute):
    """Of the caller's kind of error, it says something that is not text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - what the test is about


class Bare(impasto.ImpastoError):
    """Without what every error of impasto has."""

    def __init__(self) -> None:
        pass


class Locked(impasto.ImpastoError):
    """With a property of its own in place of what every error of impasto has."""

    def __init__(self) -> None:
        super().__init__("locked")

    @property
    def message(self) -> str:
        raise SystemExit(8)

    @message.setter
    def message(self, _: str) -> None: ...


@pytest.mark.parametrize("raised", [Mute, Numb, Bare, Locked])
@pytest.mark.parametrize(("hook", "kind"), KINDS)
async def test_an_error_that_is_itself_broken_ends_its_call_with_what_is_known_of_the_charge(
    hook: str, kind: type[Exception], raised: type[Exception]
) -> None:
    with pytest.raises(impasto.ImpastoError, match=raised.__name__) as caught:
        await run(*with_hook(hook, raises(raised)))
    assert type(caught.value) in (kind, ChargeUnknown)
    assert (caught.value.billed == "no") == (hook == "transform_request")


def test_a_call_whose_coroutine_is_closed_is_no_plugins_fault() -> None:
    reached = asyncio.Event()

    class Waits(Loopback):
        @hookimpl
        async def send(self, wire: WireRequest) -> WireResponse:
            reached.set()
            return await asyncio.Future()

    async def begin() -> asyncio.Task[impasto.Result]:
        registry = Registry()
        registry.add(OPERATIONS, "mine/painted", painted())
        client = impasto.Client(registry=registry, api_key=KEY, transport=Waits())
        task = asyncio.create_task(client.run("mine/painted", image=IMAGE))
        await reached.wait()
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    coroutine = task.get_coro()
    assert coroutine is not None
    task.cancel()
    coroutine.close()  # raises what the call raises, if that is not GeneratorExit
    with pytest.raises(RuntimeError, match="already awaited"):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.parametrize(("hook", "kind"), KINDS)
def test_an_interrupt_that_a_hook_raises_itself_ends_its_call_and_not_the_process(
    hook: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="KeyboardInterrupt"):
        asyncio.run(run(*with_hook(hook, raises(KeyboardInterrupt))))


def test_an_interrupt_that_a_plugin_raises_in_another_thread_ends_its_call() -> None:
    """As in the drop-in functions, whose loop runs in a thread: no signal reaches any but the main thread."""
    with ThreadPoolExecutor(1) as pool:
        work = run(*with_hook("normalize_response", raises(KeyboardInterrupt)))
        with pytest.raises(UnusableResult, match="KeyboardInterrupt") as caught:
            pool.submit(asyncio.run, work).result()
    assert caught.value.raw


@pytest.fixture
def default_handler() -> Iterator[None]:
    """The handler that Python starts with, whatever whoever runs the tests had."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_twice() -> object:
    """Block the loop while Ctrl-C is pressed twice: the first cancels the main task, the second raises here."""
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    return None


@pytest.mark.usefixtures("default_handler")
@pytest.mark.parametrize("hook", FAULTS)
def test_ctrl_c_is_nobodys_fault(hook: str) -> None:
    """It raises wherever Python is at work when it is pressed."""
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run(*with_hook(hook, press_twice)))


@pytest.mark.usefixtures("default_handler")
@pytest.mark.parametrize("hook", FAULTS)
def test_ctrl_c_is_nobodys_fault_in_a_loop_without_a_handler_of_its_own(hook: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(run(*with_hook(hook, lambda: signal.raise_signal(signal.SIGINT))))
    finally:
        loop.close()


@pytest.mark.parametrize("part", ["price", "rules"])
def test_an_interrupt_ahead_of_a_call_sends_nothing(part: str) -> None:
    class Interrupts:
        cost = None
        quote = problems = staticmethod(lambda value: raises(KeyboardInterrupt)())

    transport = Loopback()
    parts: dict[str, Any] = {part: Interrupts() if part == "price" else (Interrupts(),)}
    with pytest.raises(BrokenPlugin, match="raised KeyboardInterrupt; nothing was sent"):
        asyncio.run(run(attrs.evolve(ERASE, **parts), transport))
    assert transport.sent == []


class Exits:
    """Parts of an operation that are asked ahead of a call."""

    cost = None

    def quote(self, params: object) -> Any:
        exits()

    def problems(self, value: object) -> Iterator[Any]:
        exits()
        yield


@pytest.mark.parametrize("part", [{"price": Exits()}, {"rules": (Exits(),)}], ids=",".join)
async def test_an_exit_before_a_call_sends_nothing(part: dict[str, Any]) -> None:
    transport = Loopback()
    with pytest.raises(BrokenPlugin, match="raised SystemExit: 3; nothing was sent"):
        await run(attrs.evolve(ERASE, **part), transport)
    assert transport.sent == []


async def test_a_price_that_is_none_is_refused_before_anything_is_spent() -> None:
    class Free:
        cost = None

        def quote(self, params: object) -> Any:
            return 0

    transport = Loopback()
    with pytest.raises(BrokenPlugin, match="its price returned int, not a Cost; nothing was sent"):
        await run(attrs.evolve(ERASE, price=Free()), transport)
    assert transport.sent == []


@pytest.mark.parametrize("value", ["text", 5])
async def test_a_middleware_that_gives_something_else_is_named(value: object) -> None:
    class Layer:
        @hookimpl
        def middleware(self) -> Any:
            async def around(wire: WireRequest, next: impasto.Handler) -> object:
                await next(wire)
                return value

            return around if value == "text" else value

    message = (
        "a middleware returned str, not a WireResponse"
        if value == "text"
        else "a middleware hook returned int, not a func"
    )
    with pytest.raises(ChargeUnknown if value == "text" else BrokenPlugin, match=message):
        await run(painted(), Loopback(), middleware=[Layer()])


async def test_one_with_an_argument_of_tomorrow_is_told_what_to_do() -> None:
    class Tomorrow:
        @hookimpl
        def middleware(self, operation: object, weather: object) -> None: ...

    with pytest.raises(BrokenPlugin, match="Tomorrow: .*'weather'.*newer hooks: pip install --upgrade impasto"):
        await run(painted(), Loopback(), middleware=[Tomorrow()])


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "Acme_Paint", {OPERATIONS: {"acme/paint": "acme_plugin:paint"}}, {"acme_plugin": ACME})
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("allowed", [["acme.paint"], "Acme-Paint", "all", ("other", "ACME_paint")])
async def test_a_client_uses_the_distributions_that_it_was_told(allowed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_PLUGINS", "none")  # what is given goes before it
    async with impasto.Client(plugins=allowed) as client:
        assert "acme/paint" in client.models()
        await client.warm("acme/paint")


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("allowed", [[], "none", "", ["acme"]])
async def test_a_client_imports_nothing_of_the_others(allowed: Any) -> None:
    async with impasto.Client(plugins=allowed, api_key=KEY) as client:
        assert "acme/paint" not in client.models()
        with pytest.raises(NotAllowed, match="plugins allows (none|acme); add acme-paint to it"):
            await client.run("acme/paint", prompt="a barn")
        await client.warm("stability/sd3")
        with pytest.raises(ConfigError, match="plugins is shared by both clients and can't change"):
            client.with_options(plugins="all")


@pytest.mark.parametrize("wrong", [5, ["a b"], [7], "none,acme"])
def test_a_list_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="plugins"):
        impasto.Client(plugins=wrong)


def test_a_registry_has_its_own_list() -> None:
    with pytest.raises(ConfigError, match="give Registry"):
        impasto.Client(registry=Registry(), plugins="none")
