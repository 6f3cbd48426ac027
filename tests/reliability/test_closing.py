"""Closing a client while it is busy: every call ends at once, and says what is known of its charge."""

from __future__ import annotations

import asyncio
import time

import pytest

import impasto
from tests.reliability.conftest import CORE, JOB_MODEL, MakeClient
from tests.reliability.servers import (
    JOB,
    PICTURE,
    PICTURE_HEADERS,
    Answer,
    Server,
    accepted_job,
    head,
    pending,
    picture,
    raw,
    refused,
    silence,
)

HALF = raw(head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}) + PICTURE[:50], 30.0)


async def closed_while(client: impasto.Client, server: Server, calls: int, model: str = CORE) -> list[object]:
    """What became of calls, some of which had been sent when the client was closed."""
    await client.warm(model)
    params: dict[str, object] = {"image": PICTURE} if model == JOB_MODEL else {}
    running = [asyncio.ensure_future(client.run(model, prompt="p", **params)) for _ in range(calls)]  # type: ignore[arg-type]
    while not server.requests:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.1)
    sent = len(server.requests)
    began = time.monotonic()
    await client.aclose()
    outcomes = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 60)
    assert time.monotonic() - began < 30
    assert len(server.requests) == sent, "nothing is sent for a client that is closed"
    with pytest.raises(impasto.ClientClosedError):
        await client.run(CORE, prompt="p")
    return list(outcomes)


@pytest.mark.parametrize("answer", [silence, HALF], ids=["nothing came", "half an answer came"])
async def test_calls_in_flight(server: Server, make_client: MakeClient, answer: Answer) -> None:
    server.posts = [answer]
    outcomes = await closed_while(make_client(server.url, timeout=30.0), server, 3)
    for error in outcomes:
        assert isinstance(error, impasto.ChargeUnknown)
        assert error.billed == "unknown"
        assert "the client was closed" in str(error)
        assert error.raw == (PICTURE[:50] if answer is HALF else b"")


@pytest.mark.parametrize("interval", [0.02, 20.0])
async def test_jobs_that_are_polled(server: Server, make_client: MakeClient, interval: float) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    client = make_client(server.url, timeout=30.0, poll_interval=interval)
    (error,) = await closed_while(client, server, 1, JOB_MODEL)
    assert isinstance(error, impasto.ChargeUnknown)
    assert (error.id, error.billed) == (JOB, "unknown")


async def test_calls_that_wait_for_their_turn(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    outcomes = await closed_while(make_client(server.url, max_concurrency=1), server, 3)
    assert [type(each) for each in outcomes] == [impasto.ChargeUnknown, *[impasto.ClientClosedError] * 2]


async def test_calls_that_wait_for_the_window(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    outcomes = await closed_while(make_client(server.url, rate_limit=impasto.RateLimit(1, 30.0)), server, 3)
    assert [type(each) for each in outcomes] == [impasto.ChargeUnknown, *[impasto.ClientClosedError] * 2]


@pytest.mark.parametrize("answer", [refused(500), refused(429, retry_after="20")], ids=["500", "429"])
async def test_calls_that_wait_to_be_tried_again(server: Server, make_client: MakeClient, answer: Answer) -> None:
    server.posts = [answer, picture()]
    patient = impasto.Retry(base=1e5, cap=1e5)  # drawn by lot: it is next to never short
    client = make_client(server.url, timeout=1e6, retry=patient)
    (error,) = await closed_while(client, server, 1)
    assert isinstance(error, impasto.ClientClosedError)
    assert error.billed == "no"


async def test_a_fan_out(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    client = make_client(server.url, timeout=30.0)
    call = asyncio.ensure_future(client.run(CORE, prompt="p", n=3))
    while len(server.paid) < 3:
        await asyncio.sleep(0.002)
    await client.aclose()
    with pytest.raises(impasto.ChargeUnknown) as caught:
        await asyncio.wait_for(call, 60)
    assert len(caught.value.errors) == 2
