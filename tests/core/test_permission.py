"""Middleware can't send a paid request again, whatever it does with the call: only the owner of retries can."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

import impasto
from impasto import (
    BrokenPlugin,
    Call,
    ChargeUnknown,
    Handler,
    ImpastoError,
    NotSent,
    ProviderFault,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.permission import Permission
from tests.conftest import KEY
from tests.core.test_hooks import IMAGE
from tests.recorder import Answer, Recorder, in_json

CORE = "stability/stable-image-core"
POSITIONS = ("outer", "retry", "limit", "inner")
Misuse = Callable[[WireRequest, Handler], Awaitable[WireResponse]]


async def twice(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    return await next(wire)


async def side_by_side(wire: WireRequest, next: Handler) -> WireResponse:
    first, _ = await asyncio.gather(next(wire), next(wire))
    return first


async def asks_the_call(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    wire.call.again()  # type: ignore[attr-defined]  # it was there once
    return await next(wire)


def sets(name: str, value: object) -> Misuse:
    async def set_first(wire: WireRequest, next: Handler) -> WireResponse:
        await next(wire)
        setattr(wire.call, name, value)
        return await next(wire)

    return set_first


async def with_a_copy_of_the_call(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    return await next(wire.with_call(copy.copy(wire.call)))


async def with_a_call_of_its_own(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    call = wire.call
    another = Call(call.request, call.account, timeout=9.0, retry=call.retry)
    return await next(attrs.evolve(wire, call=another))


async def says_that_it_was_refused(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    wire.call.mark_not_charged(ProviderFault("no", status=500))
    raise NotSent("nothing left")


MISUSES: dict[str, Misuse] = {
    "calls the next handler twice": twice,
    "calls it twice side by side": side_by_side,
    "calls again()": asks_the_call,
    "sets permits": sets("permits", 99),
    "sets posts": sets("posts", 0),
    "sets sent": sets("sent", False),
    "sets the retry policy": sets("retry", impasto.Retry(on_ambiguous=True, max_charges=9)),
    "copies the call": with_a_copy_of_the_call,
    "makes a call": with_a_call_of_its_own,
    "reports a refusal that was none": says_that_it_was_refused,
}


def layer_at(misuse: Misuse, position: str) -> Any:
    class Placed:
        @hookimpl
        def middleware(self) -> object:
            async def layer(wire: WireRequest, next: Handler) -> WireResponse:
                return await misuse(wire, next)

            layer.position = position  # type: ignore[attr-defined]  # as a class would have it
            return layer

    return Placed()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("misuse", MISUSES)
async def test_one_post_goes_out_and_the_charge_is_reported(recorder: Recorder, misuse: str, position: str) -> None:
    layer = layer_at(MISUSES[misuse], position)
    async with impasto.Client(api_key=KEY, api_base=recorder.url, middleware=[layer]) as client:
        with pytest.raises(ImpastoError) as caught:
            await client.run(CORE, prompt="p")
        await client.with_options(middleware=[]).run(CORE, prompt="what comes behind it")
    *posts, _ = recorder.posts
    assert len(posts) == (0 if misuse == "calls it twice side by side" else 1), "the first of two is stopped as well"
    assert (caught.value.billed, caught.value.retryable) == ("unknown" if posts else "no", False)


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_free_refusal_gives_middleware_no_right_either(recorder: Recorder, position: str) -> None:
    """It is tried again as often as the policy says, and by nobody else."""
    refusal = in_json({"id": "e", "name": "internal_error", "errors": ["busy"]}, status=500)
    recorder.answer = lambda _: refusal

    async def tries(wire: WireRequest, next: Handler) -> WireResponse:
        try:
            return await next(wire)
        except ProviderFault:
            return await next(wire)

    policy = impasto.Retry(base=0, refused=2)
    settings: dict[str, Any] = {"middleware": [layer_at(tries, position)], "retry": policy}
    async with impasto.Client(api_key=KEY, api_base=recorder.url, **settings) as client:
        with pytest.raises(BrokenPlugin, match="only the retry policy may do that") as caught:
            await client.run(CORE, prompt="p")
    assert len(recorder.posts) in (1, 3)
    assert caught.value.billed == "no"


async def test_a_retry_that_is_opted_in_goes_on(recorder: Recorder) -> None:
    answers = [Answer(status=502, headers={"content-type": "text/html"})] * 2
    recorder.answer = lambda _: answers.pop() if answers else None
    policy = impasto.Retry(base=0, on_ambiguous=True, max_charges=3)
    async with impasto.Client(api_key=KEY, api_base=recorder.url, retry=policy) as client:
        result = await client.run(CORE, prompt="p")
    assert len(recorder.posts) == 3
    assert result.warnings == ("2 earlier attempts may have been charged too (Retry.on_ambiguous)",)


async def test_a_transport_that_posts_twice_is_stopped() -> None:
    class Twice:
        posts = 0

        @hookimpl
        async def send(self, wire: WireRequest) -> WireResponse:
            for _ in range(2):
                with wire.call.sending(paid=True) as evidence:
                    evidence.headers_sent()
                    self.posts += 1
            return WireResponse(status=200, headers={"content-type": "image/png"}, body=IMAGE)

    transport = Twice()
    async with impasto.Client(api_key=KEY, transport=transport) as client:
        with pytest.raises(ChargeUnknown, match="sent the same paid request twice"):
            await client.run(CORE, prompt="p")
    assert transport.posts == 1


async def test_a_task_that_a_middleware_left_running_reaches_no_transport_once_the_call_is_over() -> None:
    """Not even one that forgets to say that it is about to send."""
    sent: list[WireRequest] = []
    left: list[asyncio.Task[WireResponse]] = []
    over = asyncio.Event()

    class Forgets:
        @hookimpl
        async def send(self, wire: WireRequest) -> WireResponse:
            sent.append(wire)
            return WireResponse(status=200, headers={"content-type": "image/png"}, body=IMAGE)

    async def answers_itself(wire: WireRequest, next: Handler) -> WireResponse:
        async def later() -> WireResponse:
            await over.wait()
            return await next(wire)

        left.append(asyncio.create_task(later()))
        return WireResponse(status=200, headers={"content-type": "image/png"}, body=IMAGE)

    async with impasto.Client(api_key=KEY, transport=Forgets(), middleware=[answers_itself]) as client:
        result = await client.run(CORE, prompt="p")
        assert result.cost is not None
        assert result.cost.usd == 0
        over.set()
        with pytest.raises(BrokenPlugin):
            await left[0]
    assert sent == []


@pytest.mark.parametrize(
    ("policy", "earlier", "may_send"),
    [
        (impasto.Retry(on_ambiguous=False, max_charges=3), 0, False),
        (impasto.Retry(on_ambiguous=True, max_charges=1), 0, False),
        (impasto.Retry(on_ambiguous=True, max_charges=2), 0, True),
        (impasto.Retry(on_ambiguous=True, max_charges=2), 1, False),
    ],
)
def test_a_request_that_was_sent_is_sent_again_only_within_what_was_opted_in(
    policy: impasto.Retry, earlier: int, may_send: bool
) -> None:
    call = cast("Call", SimpleNamespace(retry=policy, sent=True, unknown_attempts=earlier))
    with nullcontext() if may_send else pytest.raises(BrokenPlugin, match="but the request was"):
        Permission(call).renew()
