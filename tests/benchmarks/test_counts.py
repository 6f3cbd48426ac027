"""What a call may cost, as counts: they hold on every machine, where times do not."""

from __future__ import annotations

import asyncio
import cProfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import EntryPoint
from unittest.mock import Mock, create_autospec

import attrs
import pytest
from benchmarks.dispatch import GIVEN, FloorNowhere, many_installed
from benchmarks.floors import route
from benchmarks.pictures import picture
from benchmarks.server import LARGE, running

from impasto import Client, Handler, Middleware, Operation, Registry, WireRequest, WireResponse, distributions, hookimpl
from impasto.metadata import read_folders
from impasto.route import Route
from impasto_plugins.stability.stable_image_core import operation as core
from tests.conftest import KEY

MODEL = "stability/stable-image-core"
PICTURE = picture(1_000)
HEADERS = {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "7"}


class Nowhere:
    """A transport that answers at once, or when it is told to."""

    def __init__(self, *, waits: bool = False) -> None:
        self.sends = 0
        self.go = asyncio.Event()
        if not waits:
            self.go.set()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        self.sends += 1
        with wire.call.sending(paid=True):
            await self.go.wait()
            return WireResponse(status=200, headers=HEADERS, body=PICTURE)


def a_client(transport: object, registry: Registry | None = None, middleware: tuple[object, ...] = ()) -> Client:
    return Client(
        registry=registry,
        transport=transport,
        middleware=middleware,
        api_key=KEY,
        api_base="http://127.0.0.1:9",
        max_concurrency=1_000,  # the default depends on how many descriptors this process may open
    )


async def test_each_hook_is_called_once_a_call_and_middleware_is_asked_once_a_route() -> None:
    calls: Counter[str] = Counter()

    class Counting:
        """A plugin's wrappers around each hook of a call."""

        @hookimpl(wrapper=True)
        def transform_request(self):
            calls["transform_request"] += 1
            return (yield)

        @hookimpl(wrapper=True)
        def send(self):
            calls["send"] += 1
            return (yield)

        @hookimpl(wrapper=True)
        def classify_error(self):
            calls["classify_error"] += 1
            return (yield)

        @hookimpl(wrapper=True)
        def normalize_response(self):
            calls["normalize_response"] += 1
            return (yield)

        @hookimpl
        def middleware(self) -> Middleware:
            calls["middleware"] += 1

            async def through(wire: WireRequest, next: Handler) -> WireResponse:
                calls["through"] += 1
                return await next(wire)

            return through

    async with a_client(Nowhere(), middleware=(Counting(),)) as client:
        for _ in range(5):
            await client.run(MODEL, prompt="a lighthouse")
    assert calls == {
        "transform_request": 5,
        "send": 5,
        "classify_error": 5,
        "normalize_response": 5,
        "through": 5,
        "middleware": 1,
    }


async def test_a_thousand_calls_in_flight_need_no_thread_and_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = Mock(wraps=loop.call_at)
    transport = Nowhere(waits=True)
    async with a_client(transport) as client:
        await client.warm(MODEL)  # imports in a thread, once
        threads = threading.active_count()
        monkeypatch.setattr(loop, "call_at", timers)
        calls = [asyncio.create_task(client.run(MODEL, prompt="a lighthouse")) for _ in range(1_000)]
        while transport.sends < len(calls):
            await asyncio.sleep(0)
        assert threading.active_count() <= threads
        assert timers.call_count == 1
        transport.go.set()
        await asyncio.gather(*calls)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Every reading of installed metadata."""
    scan = Mock(wraps=read_folders)
    monkeypatch.setattr(distributions, "read_folders", scan)
    return scan


@pytest.fixture
def crowd(scans: Mock) -> Iterator[Registry]:
    """A registry that sees 3,000 more operations, their metadata read."""
    with many_installed() as registry:
        yield registry


async def test_a_crowd_of_operations_is_read_once_and_imported_never(
    crowd: Registry, scans: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = create_autospec(EntryPoint.load, side_effect=EntryPoint.load)
    monkeypatch.setattr(EntryPoint, "load", loads)
    async with a_client(Nowhere(), crowd) as client:
        for _ in range(3):
            await client.run(MODEL, prompt="a lighthouse")
    assert scans.call_count == 1, "one reading serves every group"
    assert sorted(loading.args[0].name for loading in loads.call_args_list) == ["limit", "retry", MODEL]


@pytest.fixture
def server() -> Iterator[str]:
    """A server of large pictures in a process of its own, whose memory is not ours."""
    with running(LARGE) as url:
        yield url


async def test_a_large_answer_is_held_twice_at_most_and_kept_once(server: str) -> None:
    async with Client(api_key=KEY, api_base=server) as client:
        await client.run(MODEL, prompt="a lighthouse")  # imports and connects
        tracemalloc.start()
        try:
            result = await client.run(MODEL, prompt="a lighthouse")
            memory, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(result.artifacts[0].data) == LARGE
    assert memory < 1.2 * LARGE
    assert peak < 2.3 * LARGE  # the pieces as they came, and the whole


def test_the_floor_has_the_fields_of_the_model_that_it_stands_beside() -> None:
    from benchmarks.floors import route

    assert isinstance(core, Operation)
    assert [a.name for a in attrs.fields(route.Params)] == list(core.fields)


async def test_a_dispatch_makes_few_more_function_calls_than_the_least_route_does() -> None:
    """The count behind the ratio of ``python -m benchmarks dispatch``: 165 over 78 when this was written."""
    least = route.Route(FloorNowhere())
    async with a_client(Nowhere()) as client:
        ours = await _function_calls(lambda: client.run(MODEL, **GIVEN))
    floor = await _function_calls(lambda: least(least.operation.request(**GIVEN)))
    assert ours < 2.5 * floor


async def _function_calls(call: Callable[[], Awaitable[object]]) -> float:
    await call()
    profile = cProfile.Profile()
    with profile:
        for _ in range(100):
            await call()
    return sum(entry.callcount for entry in profile.getstats()) / 100


def test_a_route_is_opened_with_few_function_calls() -> None:
    """A gateway opens two for each deployment: 3,900 calls when this was written, 8,100 with names such as __init__."""
    transport, profile = Nowhere(), cProfile.Profile()
    with profile:
        Route.open(core, transport)
    assert sum(entry.callcount for entry in profile.getstats()) < 6_000
