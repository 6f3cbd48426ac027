"""The sliding window and the turns of calls (row F20 of the promise, and F64 for this side)."""

from __future__ import annotations

import asyncio
import threading
import time

import attrs
import pytest

import impasto
from impasto_plugins.stability.provider import stability
from tests.reliability.conftest import CORE, JOB_MODEL, KEY, MakeClient
from tests.reliability.servers import (
    PICTURE,
    ServedRequest,
    Server,
    Wire,
    accepted_job,
    pending,
    picture,
    refused,
    serving,
    silence,
)


def most_in(times: list[float], seconds: float) -> int:
    """The most of the times in any window of so many seconds."""
    return max(sum(1 for other in times if 0 <= other - start < seconds) for start in times)


async def test_the_window_holds_across_clients_and_counts_polls(server: Server, make_client: MakeClient) -> None:
    server.posts = [accepted_job()]
    server.polls = [pending(), picture()]
    limit = impasto.RateLimit(6, 0.3)
    clients = [make_client(server.url, rate_limit=limit, poll_interval=0.001) for _ in range(2)]
    await asyncio.gather(*(clients[i % 2].run(JOB_MODEL, prompt="p", image=PICTURE) for i in range(8)))
    assert len(server.paid) == 8
    assert len(server.requests) >= 16
    assert most_in([request.at for request in server.requests], 0.3) <= 6


async def test_the_window_holds_across_threads_with_loops_of_their_own(server: Server) -> None:
    limit = impasto.RateLimit(5, 0.3)

    async def some() -> None:
        async with impasto.Client(api_key=KEY, api_base=server.url, rate_limit=limit) as client:
            await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(6)))

    threads = [threading.Thread(target=lambda: asyncio.run(some())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    times = [request.at for request in server.paid]
    assert len(times) == 12
    assert most_in(times, 0.3) <= 5
    assert max(times) - min(times) < 15


async def test_a_send_counts_from_when_it_left_not_from_when_it_might(server: Server, make_client: MakeClient) -> None:
    """Three are long on their way out, as after a slow handshake; the next come when those are counted."""
    limit = impasto.RateLimit(3, 0.3)
    delays = [0.5, 0.5, 0.5]

    async def slow(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        await asyncio.sleep(delays.pop() if delays else 0)
        return await next(wire)

    client = make_client(server.url, rate_limit=limit, middleware=[slow])
    await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(8)))
    assert most_in([request.at for request in server.paid], 0.3) <= 3


async def test_a_request_that_never_left_takes_no_place_in_the_window(make_client: MakeClient) -> None:
    """A server that was down for a second does not cost the key its next ten."""
    limit = impasto.RateLimit(2, 30.0)
    async with serving() as was:
        pass
    down = make_client(was.url, rate_limit=limit, retry=impasto.Retry(attempts=1))
    for _ in range(4):
        with pytest.raises(impasto.NotSent):
            await asyncio.wait_for(down.run(CORE, prompt="p"), 5)


async def test_two_limits_on_one_key_are_both_kept(server: Server, make_client: MakeClient) -> None:
    """A narrow window must not make a wide one forget."""
    narrow = make_client(server.url, rate_limit=impasto.RateLimit(2, 0.05))
    wide = make_client(server.url, rate_limit=impasto.RateLimit(6, 0.5))
    await asyncio.gather(*(narrow.run(CORE, prompt="p") for _ in range(4)))
    await asyncio.gather(*(wide.run(CORE, prompt="p") for _ in range(4)))
    assert most_in([request.at for request in server.paid], 0.5) <= 6


async def test_cancelled_calls_leave_no_hole_in_the_window(server: Server, make_client: MakeClient) -> None:
    """Two hundred calls wait and are cancelled; the next one waits for the window only, not for them."""
    client = make_client(server.url, rate_limit=impasto.RateLimit(2, 0.2))
    calls = [asyncio.ensure_future(client.run(CORE, prompt="p")) for _ in range(200)]
    while len(server.paid) < 2:
        await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    began = time.monotonic()
    await client.run(CORE, prompt="p")
    assert time.monotonic() - began < 10


async def test_a_poll_passes_the_calls_that_have_not_begun(server: Server, make_client: MakeClient) -> None:
    """A paid job's result is not lost because two hundred other calls stand in line."""
    server.posts = [accepted_job(), picture()]
    client = make_client(server.url, rate_limit=impasto.RateLimit(2, 0.15), timeout=1.5)
    job = asyncio.ensure_future(client.run(JOB_MODEL, prompt="p", image=PICTURE))
    while not server.paid:
        await asyncio.sleep(0.002)
    others = [asyncio.ensure_future(client.run(CORE, prompt="p")) for _ in range(200)]
    result = await job
    assert result.artifacts[0].data == PICTURE
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_the_first_wait_for_the_window_is_not_in_the_time_of_a_call(
    server: Server, make_client: MakeClient
) -> None:
    """The third call waits for half a second, longer than a call may take, and is in time all the same."""
    client = make_client(server.url, rate_limit=impasto.RateLimit(1, 0.25), timeout=0.3)
    began = time.monotonic()
    results = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(3)))
    assert len(results) == 3
    assert time.monotonic() - began >= 0.5


async def test_waiting_is_first_come_first_served(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url, rate_limit=impasto.RateLimit(3, 0.06))
    await asyncio.gather(*(client.run(CORE, prompt=f"number {i:02}") for i in range(15)))
    order = [int(request.body.partition(b"number ")[2][:2]) for request in server.paid]
    assert all(abs(place - number) < 3 for place, number in enumerate(order))


async def test_f64_turns_are_first_come_first_served(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url, max_concurrency=2)

    async def slow(request: ServedRequest, wire: Wire) -> None:
        await asyncio.sleep(0.005)
        await picture()(request, wire)

    server.posts = [slow]
    heavy = [asyncio.ensure_future(client.run(CORE, prompt=f"number {i:02}")) for i in range(30)]
    await asyncio.sleep(0)
    light = asyncio.ensure_future(client.run(CORE, prompt="number 30"))
    await asyncio.gather(*heavy, light)
    order = [int(request.body.partition(b"number ")[2][:2]) for request in server.paid]
    assert all(abs(place - number) <= 2 for place, number in enumerate(order))
    assert server.most <= 2


async def test_by_default_only_the_vendors_own_host_has_a_limit() -> None:
    for base, limit in (
        (None, impasto.RateLimit(150, 10.0)),
        ("https://api.stability.ai", impasto.RateLimit(150, 10.0)),
        ("https://API.stability.ai:443/", impasto.RateLimit(150, 10.0)),
        ("https://api.stability.ai.", impasto.RateLimit(150, 10.0)),
        ("http://127.0.0.1:8008", None),
        ("https://stability.example", None),
        ("https://api.stability.ai.example", None),
    ):
        account = stability.account({"api_key": KEY, "api_base": base})
        assert account.rate_limit == limit, base


async def test_no_limit_lets_a_burst_through(server: Server, client: impasto.Client) -> None:
    await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(160)))
    assert most_in([request.at for request in server.paid], 5.0) == 160


async def test_f20_after_a_429_all_wait_and_then_keep_to_the_documented_limit(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor locks a key out after a burst, without saying for how long. It happens once, and never again."""
    from impasto_plugins.stability import refusals, stable_image_core

    documented = impasto.RateLimit(15, 0.3)
    vendor = attrs.evolve(stability, rate_limit=documented)
    registry = impasto.Registry()
    registry.add("impasto.operations", CORE, attrs.evolve(stable_image_core.operation, provider=vendor))
    monkeypatch.setattr(refusals, "LOCKED_SECONDS", 0.6)
    lockouts: list[float] = []
    taken: list[float] = []

    async def locks_out(request: ServedRequest, wire: Wire) -> None:
        is_locked = bool(lockouts) and request.at < lockouts[-1] + 0.55
        is_burst = sum(each > request.at - documented.seconds for each in taken) >= documented.requests
        if not is_locked and (is_burst or len(server.paid) == 10):
            lockouts.append(request.at)
            is_locked = True
        if not is_locked:
            taken.append(request.at)
        await (refused(429, "rate_limit_exceeded") if is_locked else picture())(request, wire)

    server.posts = [locks_out]
    retry = impasto.Retry(base=0.02, max_wait=60)
    client = make_client(server.url, retry=retry, timeout=30.0, registry=registry)
    results = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(40)))
    assert (len(results), len(taken), len(lockouts)) == (40, 40, 1)
    at_once = [request.at for request in server.paid[:40]]  # the burst was on its way when the key was locked out
    assert all(request.at > lockouts[0] + 0.55 for request in server.paid if request.at not in at_once)


async def test_a_limit_that_is_given_is_never_met(make_client: MakeClient) -> None:
    """The provider counts what arrives, and never sees more than the limit, however long its answers take.

    Its window is a little shorter than the client's, as it shares a loop with it that a busy machine holds up.
    """
    from impasto_plugins.emulator import Emulator, EmulatorSettings

    settings = EmulatorSettings(
        rate_requests=10, rate_seconds=0.3, lock_seconds=60, image_scale=0.0625, answer_seconds=0.1
    )
    async with Emulator(settings) as emulator:
        client = make_client(emulator.url, rate_limit=impasto.RateLimit(10, 0.5), timeout=20.0)
        await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(25)))
        assert emulator.lockouts == 0


async def test_a_pause_longer_than_what_a_begun_call_has_left_is_said_at_once(
    server: Server, make_client: MakeClient
) -> None:
    """A poll meets a pause: the job's id is told, and that it may have been charged."""
    server.posts = [accepted_job()]
    server.polls = [refused(429, "rate_limit_exceeded", retry_after="30")]
    client = make_client(server.url, timeout=20.0, retry=impasto.Retry(max_wait=60))
    began = time.monotonic()
    with pytest.raises(impasto.RateLimited) as caught:
        await client.run(JOB_MODEL, prompt="p", image=PICTURE)
    assert time.monotonic() - began < 15
    assert (caught.value.billed, caught.value.retryable, caught.value.id) == ("unknown", False, "a1" * 32)
    assert (len(server.paid), len(server.polled)) == (1, 1)


async def test_a_call_that_waits_for_its_turn_is_cancelled_cleanly(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    client = make_client(server.url, max_concurrency=1)
    first = asyncio.ensure_future(client.run(CORE, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.002)
    waiting = asyncio.ensure_future(client.run(CORE, prompt="p"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    assert not getattr(caught.value, "__notes__", [])
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.posts = [picture()]
    await client.run(CORE, prompt="p")
