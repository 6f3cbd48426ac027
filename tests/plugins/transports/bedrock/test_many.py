"""Bedrock's transport with many calls at once, cancelled at each step, and closed with calls in flight."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest

import impasto
from tests.bedrock import ACCESS_KEY, pictured
from tests.images import png
from tests.plugins.transports.bedrock.wire import BODY, ERASE, GENERATOR, GOOD, HEADERS, MakeClient
from tests.recorder import Recorder
from tests.reliability.servers import ServedRequest, Server, Wire, head, raw, silence

# many at once, cancelled, closed


async def test_more_parallel_calls_than_botocores_pool_run_at_once(server: Server, client: impasto.Client) -> None:
    async def when_all_are_there(request: ServedRequest, wire: Wire) -> None:
        while len(server.paid) < 40:
            await asyncio.sleep(0.005)
        await GOOD(request, wire)

    server.posts = [when_all_are_there]
    await asyncio.gather(*(client.run(GENERATOR, prompt="p") for _ in range(40)))


async def test_a_connection_is_reused(server: Server, client: impasto.Client) -> None:
    for _ in range(5):
        await client.run(GENERATOR, prompt="p")
    assert server.connections == 1


@pytest.mark.parametrize("model", [GENERATOR, ERASE])
async def test_a_call_can_be_cancelled_at_each_step(server: Server, make_client: MakeClient, model: str) -> None:
    """Cancels ever later, until the call is through: nothing leaks, and what may be paid is said."""
    server.posts = [raw(0.01, head(200, {**HEADERS, "content-length": str(len(BODY))}) + BODY)]
    client = make_client(server.url, max_concurrency=1)
    arguments: dict[str, Any] = {"prompt": "p"} if model == GENERATOR else {"image": png(96, 96)}
    await client.run(model, **arguments)
    tasks, files = len(asyncio.all_tasks()), len(os.listdir("/dev/fd"))
    noted = unnoted = 0
    for step in range(2_000):
        call = asyncio.ensure_future(client.run(model, **arguments))
        if model == GENERATOR and step < 50:
            for _ in range(step):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(step * 0.0002)
        call.cancel()
        try:
            await call
            break
        except asyncio.CancelledError as cancelled:
            notes = getattr(cancelled, "__notes__", [])
            noted, unnoted = noted + bool(notes), unnoted + (not notes)
    else:
        pytest.fail("the call never came through")
    assert noted
    assert unnoted
    await client.run(model, **arguments)  # the turn was given back
    await asyncio.sleep(0.05)
    gc.collect()
    assert len(asyncio.all_tasks()) <= tasks + 1
    assert len(os.listdir("/dev/fd")) <= files + 4


async def test_the_first_call_can_be_cancelled_while_its_identity_is_searched(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    client = make_client("", bedrock_endpoint=None)
    await client.warm(GENERATOR)
    call = asyncio.ensure_future(client.run(GENERATOR, prompt="p"))
    await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await client.run(GENERATOR, prompt="p")).artifacts
    assert len(server.paid) == 1


async def test_closing_ends_calls_in_flight(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    client = make_client(server.url)
    calls = [asyncio.ensure_future(client.run(GENERATOR, prompt="p")) for _ in range(3)]
    while len(server.paid) < 3:
        await asyncio.sleep(0.005)
    await client.aclose()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [impasto.ChargeUnknown] * 3
    with pytest.raises(impasto.ClientClosedError):
        await client.run(GENERATOR, prompt="p")


async def test_two_accounts_of_one_client_have_their_own_keys(recorder: Recorder, make_client: MakeClient) -> None:
    recorder.answer = lambda request: pictured()
    client = make_client(recorder.url)
    other = client.with_options(aws_access_key_id="AKIAOTHER", aws_secret_access_key="s", aws_region="us-east-1")
    await asyncio.gather(client.run(ERASE, image=png(96, 96)), other.run(ERASE, image=png(96, 96)))
    signed = {
        (request.header("authorization") or "").split("Credential=")[1].split("/bedrock")[0]
        for request in recorder.requests
    }
    assert {(each.split("/")[0], each.split("/")[2]) for each in signed} == {
        (ACCESS_KEY, "us-west-2"),
        ("AKIAOTHER", "us-east-1"),
    }
