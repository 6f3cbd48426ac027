"""Cancellation at every await of a call: nothing is paid twice, nothing is lost silently, nothing is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

import impasto
from impasto import Account, Provider, Registry, hookimpl
from impasto.dialects import Token, TokenCache
from impasto.fanout import result_of_cancelled
from impasto.registry import OPERATIONS
from tests.reliability.conftest import CORE
from tests.reliability.hostile import IMAGE, KEY, MODEL, event, images, operation
from tests.reliability.servers import PICTURE_HEADERS, Answer, ServedRequest, Server, Wire, head, in_json, raw, serving
from tests.reliability.steps import counting
from tests.streams import END, HEAD, chunk

FAST = impasto.Retry(base=0.0001, cap=0.001, floor=99_999)


def in_pieces(status: int, body: bytes, content_type: str = "application/json") -> Answer:
    """Answer in three pieces, between which the loop turns."""
    start = head(status, {"content-type": content_type, "content-length": str(len(body))})
    return raw(start, 0.0, 0.0, body[:9], 0.0, 0.0, body[9:])


PICTURE = in_pieces(200, IMAGE, "image/png")
NOTHING = in_pieces(200, b"{}" + b" " * 9)


@attrs.frozen(kw_only=True, eq=False)
class Cloud(Provider):
    cache: TokenCache

    @hookimpl
    async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
        return {"authorization": f"Bearer {await self.cache.get(account, refused=refused)}"}


@attrs.define
class Case:
    """A kind of call, its server's answers by path, and the largest number of paid requests."""

    answers: Mapping[str, Answer]
    call: Callable[[impasto.Client], Coroutine[Any, Any, object]]
    model: impasto.Operation = attrs.field(factory=operation)
    most: int = 1
    cancels: bool = False
    paid: list[ServedRequest] = attrs.field(factory=list[ServedRequest])
    tokens: int = 0
    valid: int = 0
    """The number of the first token that is taken; the one in the cache is always too old."""

    async def __call__(self, request: ServedRequest, wire: Wire) -> None:
        token = (request.header("authorization") or "").rpartition("-")[2]
        if self.valid and int(token) < self.valid:
            return await in_json({"error": {"message": "token expired"}}, 401)(request, wire)
        if request.method == "POST":
            self.paid.append(request)
        return await self.answers[request.path](request, wire)


async def run(client: impasto.Client, **options: Any) -> object:
    return await client.run(MODEL, prompt="a kite", **options)


async def read(client: impasto.Client) -> object:
    return [each async for each in client.stream(MODEL, prompt="a kite")]


async def drop_in(client: impasto.Client) -> object:
    base = str(client._options.providers["villain"]["api_base"])
    return await impasto.aimage_generation("a kite", CORE, api_base=base, api_key=KEY)


def authorized() -> Case:
    async def fetch(account: Account) -> Token:
        case.tokens += 1
        await asyncio.sleep(0)
        return Token(f"token-{case.tokens}", 3600)

    cloud = Cloud(name="villain", base_url="https://api.villain.example", cache=TokenCache(fetch))
    case = Case({"/submit": PICTURE}, run, model=operation(provider=cloud), valid=1)
    return case


def polled() -> Case:
    polls = [NOTHING, PICTURE]

    async def status(request: ServedRequest, wire: Wire) -> None:
        polls.append(polls.pop(0))
        await polls[-1](request, wire)

    job = in_pieces(200, b'{"poll": "/status", "cancel": "/cancel"}')
    answers = {"/submit": job, "/status": status, "/cancel": NOTHING}
    return Case(answers, run, cancels=True)


def streamed() -> Case:
    events = [event({"partial": 0}), event({"partial": 1}), event(images())]
    return Case({"/submit": raw(HEAD, *(each for one in events for each in (0.0, chunk(one))), 0.0, END)}, read)


def native() -> Case:
    async def several(client: impasto.Client) -> object:
        return await run(client, n=5)

    answer = in_pieces(200, json.dumps(images(IMAGE, IMAGE)).encode())
    return Case({"/submit": answer}, several, model=operation(native_n=("count", 2)), most=3)


def fan_out() -> Case:
    async def several(client: impasto.Client) -> object:
        return await run(client, n=3)

    return Case({"/submit": PICTURE}, several, most=3)


def downloaded() -> Case:
    answers = {"/submit": in_pieces(200, b'{"paths": ["/a", "/b", "/c"]}')}
    return Case({**answers, **dict.fromkeys(("/a", "/b", "/c"), PICTURE)}, run)


def through_the_drop_in_function() -> Case:
    start = head(200, {**PICTURE_HEADERS, "content-length": str(len(IMAGE))})
    return Case({"/v2beta/stable-image/generate/core": raw(start, 0.0, IMAGE[:9], 0.0, IMAGE[9:])}, drop_in)


CASES = {
    each.__name__: each
    for each in (authorized, polled, downloaded, streamed, native, fan_out, through_the_drop_in_function)
}


@asynccontextmanager
async def client_of(case: Case) -> AsyncIterator[tuple[impasto.Client, Server]]:
    registry = Registry()
    registry.add(OPERATIONS, MODEL, case.model)
    async with serving(Server(posts=[case], polls=[case])) as server:
        own = {"api_base": server.url} if case.valid else {"api_base": server.url, "api_key": KEY}
        settings: dict[str, Any] = {"poll_interval": 0.0001, "max_concurrency": 3, "timeout": 20, "retry": FAST}
        async with impasto.Client(registry=registry, providers={"villain": own}, **settings) as client:
            yield client, server


@pytest.mark.parametrize("turns", [False, True], ids=["await", "turn"])
@pytest.mark.parametrize("again", [(), (1,), (1, 2, 5)], ids=["once", "twice", "four times"])
@pytest.mark.parametrize("name", CASES)
async def test_cancelled_at_every_step(name: str, again: tuple[int, ...], turns: bool) -> None:
    case = CASES[name]()
    async with client_of(case) as (client, server):
        await case.call(client)
        mine = asyncio.all_tasks()
        sent = unsent = through = 0
        with counting() as cancelled_at:
            for step in range(1, 2_000):
                server.requests.clear()
                case.paid.clear()
                case.valid += case.valid and 1 + case.tokens - case.valid
                at = (step, *(step + each for each in again))
                steps = await cancelled_at(lambda: case.call(client), at, turns=turns)
                assert steps.task is not None
                await asyncio.sleep(0.003)  # what left arrives
                left = [each for each in asyncio.all_tasks() - mine if "impasto" in repr(each.get_coro())]
                assert not left, f"step {step} of {steps.count}"
                assert len(case.paid) <= case.most, f"step {step}: paid twice"
                request = [each.path for each in server.requests]
                assert request.count("/cancel") <= 1
                if not steps.task.cancelled():
                    assert steps.task.exception() is None
                    through += 1
                    if through > 3:
                        break
                    continue
                cancelled = exception_of(steps.task)
                notes = " ".join(getattr(cancelled, "__notes__", ()))
                if "charged" in notes or result_of_cancelled(cancelled) is not None:
                    sent += 1
                else:
                    unsent += 1
                    assert not case.paid, f"step {step} of {steps.count}: a paid request that nobody reports"
                if "job j1" in notes:
                    assert request.count("/cancel") == case.cancels
        assert through
        assert sent > 2
        assert unsent > 0 or not turns  # on an open connection a call may be sent before it first waits
        await case.call(client)  # each slot was given back


def exception_of(task: asyncio.Task[Any]) -> BaseException:
    try:
        task.result()
    except asyncio.CancelledError as cancelled:
        return cancelled
    raise AssertionError("it was not cancelled")
