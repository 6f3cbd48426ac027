"""A Ctrl-C while a plugin is at work ends the program, wherever that is: no plugin is blamed, and nothing hides it.

While a hook of a call is at work: test_plugin_faults.py.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest

import impasto
from impasto import BrokenPlugin, Download, Pending, Registry, Result, WireRequest, WireResponse, hookimpl
from impasto.distributions import scan_entry_points
from impasto.interrupts import pass_interrupt
from impasto.redact import describe_error
from impasto.registry import OPERATIONS, TRANSPORTS
from tests.conftest import KEY
from tests.core.test_hooks import ERASE, IMAGE, Loopback
from tests.distributions import install


def press(*_: object, **__: object) -> Any:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """The handler that Python starts with, whatever whoever runs the tests had."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Presses:
    """Parts of an operation that are asked ahead of a call."""

    cost = None
    quote = problems = staticmethod(press)


class Opened:
    """A transport by name."""

    def __init__(self, options: object) -> None:
        pass

    async def open(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    @hookimpl
    async def send(self, wire: WireRequest) -> Any:
        return await Loopback().send(wire)


class Layer:
    @hookimpl
    def middleware(self) -> object:
        return press()


async def waits_for_the_end(wire: WireRequest, next: impasto.Handler) -> impasto.WireResponse:
    wire.call.on_end = (press,)
    return await next(wire)


async def painted(operation: object = ERASE, transport: object = None, **settings: Any) -> Result:
    registry = Registry()
    registry.add(OPERATIONS, "mine/painted", operation)
    if isinstance(transport, type):
        registry.add(TRANSPORTS, "mine", transport)
        transport = "mine"
    settings = {"api_key": KEY, "transport": transport or Loopback(), **settings}
    async with impasto.Client(registry=registry, **settings) as client:
        return await client.run("mine/painted", image=IMAGE)


class Slow:
    """A transport whose polls do not end, and that is interrupted as it cancels the job."""

    @hookimpl
    async def send(self, wire: WireRequest) -> Any:
        if wire.target == "/cancel":
            press()
        if wire.method == "GET":
            await asyncio.sleep(60)
        return await Loopback().send(wire)


class Free:
    """A transport that also sends free requests."""

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        with wire.call.sending(paid=wire.method == "POST"):
            return WireResponse(status=200, headers={"content-type": wire.method}, body=IMAGE)


POLL = WireRequest(target="/poll", method="GET")


class Jobs:
    """A dialect of jobs, whose images are fetched from addresses."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending

    def transform_request(self, *_: object) -> WireRequest:
        return WireRequest(target="/jobs")

    def classify_error(self, *_: object) -> None:
        return None

    def normalize_response(self, operation: object, request: object, response: WireResponse) -> Pending:
        return press() if response.media_type == "get" else self.pending


def job(transport: object, **pending: Any) -> Awaitable[Result]:
    operation = attrs.evolve(ERASE, dialect=Jobs(Pending(id="job", **pending)))
    return painted(operation, transport=transport, timeout=1)


class Provider(impasto.Provider):
    account = press


PROVIDER = Provider(name="mine", base_url="https://mine.example")
PLACES: dict[str, Callable[[], Awaitable[Result]]] = {
    "price": lambda: painted(attrs.evolve(ERASE, price=Presses())),
    "account": lambda: painted(attrs.evolve(ERASE, provider=PROVIDER)),
    "transport made": lambda: painted(transport=type("Made", (Opened,), {"__init__": press})),
    "transport opened": lambda: painted(transport=type("Opens", (Opened,), {"open": press})),
    "transport closed": lambda: painted(transport=type("Closes", (Opened,), {"aclose": press})),
    "middleware": lambda: painted(middleware=[Layer()]),
    "end of a call": lambda: painted(middleware=[waits_for_the_end]),
    "cancel of a job": lambda: job(Slow(), poll=POLL, interval=0.0, cancel=WireRequest(target="/cancel", method="PUT")),
    "download": lambda: job(Free(), downloads=(Download(request=POLL, index=0),)),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_ends_the_program_wherever_a_plugin_is_asked(place: str) -> None:
    loop = asyncio.new_event_loop()  # without the handler of asyncio.run, which would cancel first
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(PLACES[place]())
        for task in asyncio.all_tasks(loop):  # as asyncio.run does
            task.cancel()
            with suppress(KeyboardInterrupt, asyncio.CancelledError):
                loop.run_until_complete(task)
            if not task.cancelled():
                task.exception()  # asyncio reports what nobody asks for
    finally:
        loop.close()


def test_it_ends_the_program_while_a_request_is_checked() -> None:
    with pytest.raises(KeyboardInterrupt):
        attrs.evolve(ERASE, rules=(Presses(),)).request("mine/painted", {"image": IMAGE})


class Finder:
    def __init__(self, found: list[object]) -> None:
        self.found = found

    def find_distributions(self, context: object) -> list[object]:
        return self.found or press()

    def find_spec(self, *_: object) -> None:
        return None


class Distribution:
    def read_text(self, name: str) -> str:
        return press()  # type: ignore[no-any-return]  # it raises


class Own:
    """One that calls itself impasto, so its files are looked at."""

    def read_text(self, name: str) -> str | None:
        return {"METADATA": "Name: impasto\nVersion: 1\n", "RECORD": None}.get(name)

    def locate_file(self, path: str) -> str:
        return press()  # type: ignore[no-any-return]  # it raises


@pytest.mark.parametrize(
    "found", [[], [Distribution()], [Own()]], ids=["a finder", "its distribution", "the files of one"]
)
def test_it_ends_the_program_while_what_is_installed_is_read(
    monkeypatch: pytest.MonkeyPatch, found: list[object]
) -> None:
    monkeypatch.setattr(sys, "meta_path", [Finder(found), *sys.meta_path])
    with pytest.raises(KeyboardInterrupt):
        scan_entry_points(complete=True)


def test_it_ends_the_program_while_a_plugin_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    install(tmp_path, "slow", {OPERATIONS: {"slow/paint": "slow_to_import:paint"}}, {"slow_to_import": source})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Registry().operation("slow/paint")


def test_it_ends_the_program_while_a_plugins_error_is_shown() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return press()  # type: ignore[no-any-return]  # it raises

    with pytest.raises(KeyboardInterrupt):
        describe_error(Odd())


def raised_by(does: Callable[[], object]) -> KeyboardInterrupt:
    with pytest.raises(KeyboardInterrupt) as caught:
        does()
    return caught.value


def itself() -> object:
    raise KeyboardInterrupt


def test_an_interrupt_of_a_plugins_own_is_not_a_ctrl_c_if_a_handler_is_there_to_tell() -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    for own in (handler, functools.partial(functools.partial(handler), 1)):
        signal.signal(signal.SIGINT, own)
        pass_interrupt(raised_by(itself))
        error = raised_by(press)
        with pytest.raises(KeyboardInterrupt):
            pass_interrupt(error)


def test_pythons_own_handler_leaves_no_trace_so_what_it_may_have_raised_is_passed() -> None:
    with pytest.raises(KeyboardInterrupt):
        pass_interrupt(raised_by(itself))


def test_nothing_interrupts_where_ctrl_c_is_ignored_or_in_another_thread() -> None:
    passed: list[bool] = []

    def elsewhere() -> None:
        pass_interrupt(raised_by(itself))
        passed.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert passed == [True]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pass_interrupt(raised_by(itself))
    pass_interrupt(BrokenPlugin("no interrupt at all"))


def test_a_sigterm_ends_the_program_even_if_ctrl_c_is_ignored() -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        error = raised_by(lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            pass_interrupt(error)
        pass_interrupt(raised_by(itself))
    finally:
        signal.signal(signal.SIGTERM, before)
