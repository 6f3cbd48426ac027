"""Cancellation at every step (row F32 of the promise): nothing leaks, and what may have been charged is said."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

import impasto
from tests.reliability.conftest import CORE, JOB_MODEL, MakeClient
from tests.reliability.servers import (
    JOB,
    PICTURE,
    ServedRequest,
    Server,
    Wire,
    accepted_job,
    pending,
    picture,
    refused,
    silence,
)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("model", [CORE, JOB_MODEL])
async def test_f32_cancelled_at_each_step(server: Server, make_client: MakeClient, model: str) -> None:
    """Cancels after 0, 1, 2 … turns of the loop, until the call is through."""
    server.posts = [refused(500), accepted_job() if model == JOB_MODEL else picture()]
    server.polls = [pending(), picture()]
    client = make_client(
        server.url, max_concurrency=1, poll_interval=0.0001, retry=impasto.Retry(base=0.0001, floor=9999)
    )
    params = {"image": PICTURE} if model == JOB_MODEL else {}
    await client.warm(model)
    tasks, files = len(asyncio.all_tasks()), open_files()
    noted = unnoted = 0
    for step in range(2_000):
        server.requests.clear()
        call = asyncio.ensure_future(client.run(model, prompt="p", **params))  # type: ignore[arg-type]
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        try:
            await call
            break  # it was through before
        except asyncio.CancelledError as cancelled:
            notes = getattr(cancelled, "__notes__", [])
            await asyncio.sleep(0.001)  # what left arrives
            if notes:
                assert len(notes) == 1
                assert "charged" in notes[0]
                noted += 1
            else:
                unnoted += 1
                assert len(server.paid) <= 1, "the second request is the one that was paid for"
    else:
        pytest.fail("the call never came through")
    assert noted > 3
    assert unnoted > 1
    await client.run(model, prompt="p", **params)  # type: ignore[arg-type]  # the turn was given back
    await asyncio.sleep(0.05)
    gc.collect()
    assert len(asyncio.all_tasks()) <= tasks + 1  # the server's own, for the connection that stays open
    assert open_files() <= files + 4


async def test_cancelled_before_the_headers_left_has_no_note(make_client: MakeClient, server: Server) -> None:
    async def hold(wire: Wire) -> None:
        await asyncio.sleep(5)

    server.on_connect = hold
    client = make_client(server.url.replace("http:", "https:"))
    call = asyncio.ensure_future(client.run(CORE, prompt="p"))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert not getattr(caught.value, "__notes__", [])


async def test_cancelled_after_a_refusal_has_no_note(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt was refused, which proves that it was free; the second has not begun."""
    monkeypatch.setattr("impasto_plugins.middleware.retry.random.uniform", lambda _, most: most)
    server.posts = [refused(500)]
    client = make_client(server.url, retry=impasto.Retry(base=2.0, cap=2.0))
    call = asyncio.ensure_future(client.run(CORE, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert not getattr(caught.value, "__notes__", [])


async def test_cancelled_while_it_generates_says_that_the_charge_is_unknown(
    server: Server, client: impasto.Client
) -> None:
    server.posts = [silence]
    call = asyncio.ensure_future(client.run(CORE, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.002)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert "may have been charged" in caught.value.__notes__[0]


async def test_cancelled_while_it_polls_tells_the_job(server: Server, client: impasto.Client) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    call = asyncio.ensure_future(client.run(JOB_MODEL, prompt="p", image=PICTURE))
    while not server.polled:
        await asyncio.sleep(0.002)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert JOB in caught.value.__notes__[0]


async def test_cancelling_a_fan_out_counts_the_calls_in_its_note(server: Server, client: impasto.Client) -> None:
    server.posts = [picture(), silence]
    call = asyncio.ensure_future(client.run(CORE, prompt="p", n=3))
    while len(server.paid) < 3:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    notes = caught.value.__notes__
    (charge,) = (note for note in notes if "may have been charged" in note)
    assert charge.endswith("(2 calls)")
    assert sum("1 of 3 images had arrived" in note for note in notes) == 1


async def test_a_callers_own_timeout_works(server: Server, client: impasto.Client) -> None:
    server.posts = [silence]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.run(CORE, prompt="p")
    async with asyncio.timeout(1):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.run(CORE, prompt="p"), 0.1)
    server.posts = [picture()]
    await client.run(CORE, prompt="p")


async def test_a_failing_sibling_in_a_task_group_cancels_cleanly(server: Server, client: impasto.Client) -> None:
    server.posts = [silence]

    async def fail() -> None:
        while not server.paid:
            await asyncio.sleep(0.002)
        raise KeyError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.run(CORE, prompt="p"))
            group.create_task(fail())
    assert [type(each) for each in caught.value.exceptions] == [KeyError]


async def test_a_call_that_is_being_uploaded_is_cancelled(server: Server, client: impasto.Client) -> None:
    """The server reads nothing: the upload stands still, half sent."""
    from tests.images import padded

    async def reads_nothing(request: ServedRequest, wire: Wire) -> None:
        await asyncio.sleep(30)

    server.reads_bodies = False
    server.posts = [reads_nothing]
    files = open_files()
    call = asyncio.ensure_future(client.run("stability/erase", image=padded(9 * 2**20)))
    while not server.paid:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert caught.value.__notes__
    await client.aclose()
    await asyncio.sleep(0.05)
    assert open_files() <= files + 2
