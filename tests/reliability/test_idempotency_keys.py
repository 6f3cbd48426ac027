"""``client.run(idempotency_key=...)``: one charge for each key, over tasks, clients, processes and kills."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

import impasto
from impasto.ext import Options
from tests.reliability.conftest import CORE, JOB_MODEL, KEY, MakeClient
from tests.reliability.servers import (
    PICTURE,
    Answer,
    ServedRequest,
    Server,
    Wire,
    accepted_job,
    http,
    pending,
    picture,
    refused,
    serving,
)

RUN = f"""
import asyncio, sys
import impasto

async def main(url, state, model, key):
    settings = dict(api_key={KEY!r}, api_base=url, state=state, poll_interval=0.02)
    image = {{"image": sys.stdin.buffer.read()}} if model == {JOB_MODEL!r} else {{}}
    async with impasto.Client(**settings) as client:
        result = await client.run(model, prompt="a kite", idempotency_key=key, **image)
    print(len(result.artifacts[0].data), flush=True)

asyncio.run(main(*sys.argv[1:5]))
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def processes(server: Server, state: Path) -> AsyncIterator[list[Process]]:
    """Processes that are ended after the test."""
    started: list[Process] = []
    yield started
    for each in started:
        if each.returncode is None:
            each.kill()
        await each.wait()


async def start(server: Server, state: Path, model: str = CORE, key: str = "k") -> Process:
    command = [sys.executable, "-c", RUN, server.url, str(state), model, key]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert process.stdin is not None
    process.stdin.write(PICTURE)
    process.stdin.close()
    return process


def behind(gate: asyncio.Event, answer: Answer) -> Answer:
    """Answer once the gate is open."""

    async def wait(request: ServedRequest, wire: Wire) -> None:
        await gate.wait()
        await answer(request, wire)

    return wait


async def reached(server: Server, posts: int) -> None:
    async with asyncio.timeout(30):
        while len(server.paid) < posts:
            await asyncio.sleep(0.01)


async def test_a_repeated_call_returns_the_stored_image(server: Server, make_client: MakeClient, state: Path) -> None:
    first = await make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="order 7")
    again = await make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="order 7")
    assert again == first
    assert again.artifacts[0].data == PICTURE
    assert len(server.paid) == 1


async def test_the_order_of_parameters_and_the_form_of_a_file_do_not_matter(
    server: Server, make_client: MakeClient, state: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    client = make_client(server.url, state=state)
    model = "stability/search-and-replace"
    await client.run(model, prompt="a kite", search_prompt="a bird", image=path, idempotency_key="k")
    await client.run(model, image=PICTURE, search_prompt="a bird", prompt="a kite", idempotency_key="k")
    assert len(server.paid) == 1


async def test_callers_at_the_same_time_share_one_request(server: Server, make_client: MakeClient, state: Path) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture())]
    clients = [make_client(server.url, state=state) for _ in range(2)]
    calls = [asyncio.create_task(each.run(CORE, prompt="p", idempotency_key="k")) for each in clients * 10]
    await reached(server, 1)
    gate.set()
    results = await asyncio.gather(*calls)
    assert {each.artifacts[0].data for each in results} == {PICTURE}
    assert len(server.paid) == 1


async def test_processes_share_one_request(server: Server, state: Path, processes: list[Process]) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture())]
    processes += [await start(server, state) for _ in range(3)]
    await reached(server, 1)
    gate.set()
    assert [(await each.communicate())[0] for each in processes] == [f"{len(PICTURE)}\n".encode()] * 3
    assert len(server.paid) == 1


async def test_another_request_under_the_key_is_refused(server: Server, make_client: MakeClient, state: Path) -> None:
    client = make_client(server.url, state=state)
    await client.run(CORE, prompt="a kite", idempotency_key="k")
    for changes in ({"prompt": "two kites"}, {"n": 2}, {"seed": 5}):
        with pytest.raises(impasto.InvalidRequest) as caught:
            await client.run(CORE, **{"prompt": "a kite", "idempotency_key": "k", **changes})  # type: ignore[arg-type]
        assert [each.field for each in caught.value.problems] == ["idempotency_key"]
    assert len(server.paid) == 1


async def test_a_key_belongs_to_its_account(server: Server, make_client: MakeClient, state: Path) -> None:
    await make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
    await make_client(server.url, state=state, api_key=f"{KEY}2").run(CORE, prompt="two", idempotency_key="k")
    assert len(server.paid) == 2


@pytest.mark.parametrize("answer", [refused(400), refused(403, "content_moderation"), refused(402)])
async def test_a_refused_call_runs_again(server: Server, make_client: MakeClient, state: Path, answer: Answer) -> None:
    server.posts = [answer, picture()]
    client = make_client(server.url, state=state)
    with pytest.raises(impasto.ImpastoError) as caught:
        await client.run(CORE, prompt="a kite", idempotency_key="k")
    assert caught.value.billed == "no"
    assert (await client.run(CORE, prompt="a kite", idempotency_key="k")).artifacts[0].data == PICTURE


async def test_a_call_that_was_not_sent_runs_again(make_client: MakeClient, state: Path) -> None:
    async with serving() as closed:
        pass
    with pytest.raises(impasto.NotSent):
        await make_client(closed.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
    async with serving(Server(port=closed.port)) as back:
        await make_client(back.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
        assert len(back.paid) == 1


async def test_an_unknown_outcome_stays_unknown(server: Server, make_client: MakeClient, state: Path) -> None:
    server.posts = [http(504, b"busy"), picture()]
    client = make_client(server.url, state=state)
    errors = []
    for _ in range(2):
        with pytest.raises(impasto.ChargeUnknown) as caught:
            await client.run(CORE, prompt="a kite", idempotency_key="k")
        errors.append(caught.value)
    assert errors[0].message == errors[1].message
    assert errors[1].billed == "unknown"
    assert len(server.paid) == 1


async def test_a_killed_process_leaves_an_unknown_charge(
    server: Server, make_client: MakeClient, state: Path, processes: list[Process]
) -> None:
    server.posts = [behind(asyncio.Event(), picture()), picture()]
    victim = await start(server, state)
    processes.append(victim)
    await reached(server, 1)
    waiting = asyncio.create_task(
        make_client(server.url, state=state, timeout=60.0).run(CORE, prompt="a kite", idempotency_key="k")
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.3)
    victim.kill()
    for _ in range(2):
        with pytest.raises(impasto.ChargeUnknown, match="cut off"):
            await (
                waiting
                if _ == 0
                else make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
            )
    assert len(server.paid) == 1


async def test_the_job_of_a_killed_process_is_fetched(
    server: Server, make_client: MakeClient, state: Path, processes: list[Process]
) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    victim = await start(server, state, JOB_MODEL)
    processes.append(victim)
    async with asyncio.timeout(30):
        while not server.polled:  # a poll is sent once the job is recorded
            await asyncio.sleep(0.01)
    victim.kill()
    await victim.wait()
    server.polls = [picture()]
    client = make_client(server.url, state=state)
    for _ in range(2):
        result = await client.run(JOB_MODEL, image=PICTURE, prompt="a kite", idempotency_key="k")
        assert result.artifacts[0].data == PICTURE
        assert result.cost is not None
        assert result.cost.usd > 0
    assert len(server.paid) == 1


async def test_a_job_that_outlives_its_call_is_fetched_by_the_next(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    client = make_client(server.url, state=state)
    with pytest.raises(impasto.ChargeUnknown):
        await client.run(JOB_MODEL, image=PICTURE, prompt="p", timeout=0.3, idempotency_key="k")
    server.polls = [picture()]
    result = await client.run(JOB_MODEL, image=PICTURE, prompt="p", idempotency_key="k")
    assert result.artifacts[0].data == PICTURE
    assert len(server.paid) == 1


async def test_a_cancelled_call_is_never_made_again(server: Server, make_client: MakeClient, state: Path) -> None:
    server.posts = [behind(asyncio.Event(), picture()), picture()]
    client = make_client(server.url, state=state)
    call = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await reached(server, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(impasto.ChargeUnknown):
        await client.run(CORE, prompt="a kite", idempotency_key="k")
    assert len(server.paid) == 1


async def test_a_call_that_was_cancelled_before_it_was_sent_runs_again(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    client = make_client(server.url, state=state, max_concurrency=1)
    gate = asyncio.Event()
    server.posts = [behind(gate, picture()), picture()]
    other = asyncio.create_task(client.run(CORE, prompt="another"))
    await reached(server, 1)
    waiting = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await asyncio.sleep(0.2)  # it waits for its slot; if it does not yet, the test holds all the same
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await other
    assert (await client.run(CORE, prompt="a kite", idempotency_key="k")).artifacts[0].data == PICTURE


async def test_a_waiting_caller_gives_up_at_its_own_time(server: Server, make_client: MakeClient, state: Path) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture())]
    client = make_client(server.url, state=state)
    first = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await reached(server, 1)
    with pytest.raises(impasto.ChargeUnknown, match="repeat it with the same key"):
        await client.run(CORE, prompt="a kite", timeout=0.2, idempotency_key="k")
    gate.set()
    assert (await client.run(CORE, prompt="a kite", idempotency_key="k")) == await first


async def test_several_images_are_stored_with_the_errors_of_those_that_did_not_come(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    server.posts = [picture(), refused(403, "content_moderation"), picture()]
    client = make_client(server.url, state=state)
    first = await client.run(CORE, n=3, prompt="a kite", idempotency_key="k")
    again = await client.run(CORE, n=3, prompt="a kite", idempotency_key="k")
    assert len(again.artifacts) == 2
    assert [(each.index, type(each.error), each.error.billed) for each in again.errors] == [
        (each.index, type(each.error), each.error.billed) for each in first.errors
    ]
    assert again.cost == first.cost
    assert len(server.paid) == 3


@pytest.mark.parametrize("key", ["", " k", "k ", "a\nb", "k" * 256, "ключ", 7])
async def test_an_invalid_key_is_refused(server: Server, make_client: MakeClient, state: Path, key: object) -> None:
    with pytest.raises(impasto.InvalidRequest) as caught:
        await make_client(server.url, state=state).run(CORE, prompt="p", idempotency_key=key)  # type: ignore[arg-type]
    assert [each.field for each in caught.value.problems] == ["idempotency_key"]
    assert not server.paid


async def test_a_key_is_checked_before_the_state_is_opened(client: impasto.Client) -> None:
    operation = await client.operation(CORE)
    request, options = operation.request(CORE, {"prompt": "p"}, None), Options(state="/nowhere")
    with pytest.raises(impasto.InvalidRequest):
        await impasto.run_idempotent(
            client, options, AsyncMock(side_effect=OSError), "", CORE, request, 1, None, None, None
        )


async def test_a_key_needs_a_state(client: impasto.Client, server: Server) -> None:
    with pytest.raises(impasto.ConfigError, match='state="machine"'):
        await client.run(CORE, prompt="p", idempotency_key="k")
    assert not server.paid


async def test_a_key_needs_a_state_that_has_images(server: Server, make_client: MakeClient) -> None:
    """A database is not even asked: the address of this one is nobody's."""
    client = make_client(server.url, state="postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(
        impasto.ConfigError, match=r"a state on this machine.*send the call to a gateway.*othing was sent"
    ):
        await client.run(CORE, prompt="a kite", idempotency_key="k")
    assert not server.paid


async def test_an_invalid_request_leaves_no_record(server: Server, make_client: MakeClient, state: Path) -> None:
    client = make_client(server.url, state=state)
    with pytest.raises(impasto.InvalidRequest, match="prompt"):
        await client.run(CORE, idempotency_key="k")
    await client.run(CORE, prompt="p", idempotency_key="k")
    assert len(server.paid) == 1


async def test_a_result_that_cannot_be_stored_is_returned_and_never_paid_for_again(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture())]
    client = make_client(server.url, state=state)
    call = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await reached(server, 1)
    (state / "results").write_text("a file in the place of the folder")
    gate.set()
    assert (await call).artifacts[0].data == PICTURE
    with pytest.raises(impasto.ChargeUnknown):
        await client.run(CORE, prompt="a kite", idempotency_key="k")
    assert len(server.paid) == 1


async def test_the_drop_in_functions_take_a_key(server: Server) -> None:
    call: dict[str, Any] = {"model": CORE, "api_key": KEY, "api_base": server.url, "idempotency_key": "order 7"}
    first = await impasto.aimage_generation(prompt="a kite", **call)
    again = await asyncio.to_thread(lambda: impasto.image_generation(prompt="a kite", **call))
    assert again.data[0].b64_json == first.data[0].b64_json
    assert len(server.paid) == 1
    with pytest.raises(impasto.InvalidRequest, match="idempotency_key"):
        await impasto.aimage_generation(prompt="two kites", **call)
    with pytest.raises(impasto.InvalidRequest, match="idempotency_key"):
        await impasto.aimage_generation(prompt="a kite", stream=True, **call)
    assert len(server.paid) == 1
