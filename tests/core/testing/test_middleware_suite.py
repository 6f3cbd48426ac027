"""The suite of middleware: a sound one passes, and each of many defects is caught by the check for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import attrs
import pytest
from blockbuster import BlockBuster

from impasto import (
    ChargeUnknown,
    ConfigError,
    Handler,
    ImpastoError,
    NotSent,
    RateLimited,
    Registry,
    ResponseError,
    WireRequest,
    WireResponse,
)
from impasto.ext import Options
from impasto.testing import MiddlewareSuite


async def passes_on(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(wire)


class TestSound(MiddlewareSuite):
    middleware = staticmethod(passes_on)


async def sends_twice(wire: WireRequest, next: Handler) -> WireResponse:
    await next(wire)
    return await next(wire)


async def swallows_errors(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except ImpastoError:
        return WireResponse(status=200, headers={"content-type": "image/png"}, body=b"\x89PNG")


async def replaces_errors(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except NotSent:
        raise ChargeUnknown("something went wrong") from None


async def forgets_retry_after(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except RateLimited as error:
        error.retry_after = None
        raise


async def loses_the_call(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(
        attrs.evolve(wire, call=type(wire.call)(wire.call.request, wire.call.account, timeout=1, retry=wire.call.retry))
    )


async def changes_the_key(wire: WireRequest, next: Handler) -> WireResponse:
    wire.call.account.headers["x-key"] = "another"  # type: ignore[index]  # a defect
    return await next(wire)


async def changes_the_fields(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(attrs.evolve(wire, fields={**wire.fields, "prompt": f"{wire.fields['prompt']}, oil"}))


async def changes_the_body(wire: WireRequest, next: Handler) -> WireResponse:
    response = await next(wire)
    return attrs.evolve(response, body=response.body[:100])


async def drops_headers(wire: WireRequest, next: Handler) -> WireResponse:
    response = await next(wire)
    return attrs.evolve(response, headers={"content-type": response.media_type})


HELD: list[WireResponse] = []


async def holds_answers(wire: WireRequest, next: Handler) -> WireResponse:
    HELD.append(await next(wire))
    return HELD[-1]


BODIES: list[bytes] = []


async def holds_bodies(wire: WireRequest, next: Handler) -> WireResponse:
    response = await next(wire)
    BODIES.append(response.body)
    return response


REQUESTS: list[WireRequest] = []


async def holds_requests(wire: WireRequest, next: Handler) -> WireResponse:
    REQUESTS.append(wire)
    return await next(wire)


STORED: dict[str, WireResponse] = {}


async def stores_by_prompt(wire: WireRequest, next: Handler) -> WireResponse:
    key = str(wire.fields)
    if key not in STORED:
        STORED[key] = await next(wire)
    return STORED[key]


async def stores_by_account_and_prompt(wire: WireRequest, next: Handler) -> WireResponse:
    key = f"{wire.call.account.fingerprint} {wire.fields}"
    if key not in STORED:
        STORED[key] = await next(wire)
    return STORED[key]


async def replaces_on_end(wire: WireRequest, next: Handler) -> WireResponse:
    wire.call.on_end = (lambda _: None,)
    return await next(wire)


async def drops_max_bytes(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(attrs.evolve(wire, max_bytes=None))


async def changes_the_media_type(wire: WireRequest, next: Handler) -> WireResponse:
    response = await next(wire)
    return attrs.evolve(response, headers={**response.headers, "content-type": "image/jpeg"})


async def drops_the_status(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except ResponseError as error:
        vars(error)["status"] = None
        raise


async def drops_streams(wire: WireRequest, next: Handler) -> WireResponse:
    response = await next(wire)
    return WireResponse(status=response.status, headers={"content-type": "image/png"}, body=response.body)


async def sleeps_for_a_refusal(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except ImpastoError:
        time.sleep(0.001)
        raise


async def mixes_answers(wire: WireRequest, next: Handler) -> WireResponse:
    HELD.append(await next(wire))
    await asyncio.sleep(0.01)
    return HELD[-1]


async def swallows_cancellation(wire: WireRequest, next: Handler) -> WireResponse:
    try:
        return await next(wire)
    except asyncio.CancelledError:
        raise ChargeUnknown("cancelled") from None


async def leaves_a_task(wire: WireRequest, next: Handler) -> WireResponse:
    vars(asyncio.get_running_loop())["task"] = asyncio.ensure_future(asyncio.sleep(60))
    return await next(wire)


async def sleeps(wire: WireRequest, next: Handler) -> WireResponse:
    time.sleep(0.001)
    return await next(wire)


async def blocks(wire: WireRequest, next: Handler) -> WireResponse:
    until = time.thread_time() + 0.06
    while time.thread_time() < until:
        pass
    return await next(wire)


async def logs_the_key(wire: WireRequest, next: Handler) -> WireResponse:
    logging.getLogger("impasto.acme").info("%s", dict(wire.call.account.headers))
    return await next(wire)


async def hangs(wire: WireRequest, next: Handler) -> WireResponse:
    await asyncio.Event().wait()
    return await next(wire)


async def answers_itself(wire: WireRequest, next: Handler) -> WireResponse:
    return WireResponse(status=200, headers={"content-type": "image/png"}, body=b"\x89PNG")


async def misplaced(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(wire)


async def changes_the_encoding(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(attrs.evolve(wire, encoding="json"))


async def drops_files(wire: WireRequest, next: Handler) -> WireResponse:
    return await next(attrs.evolve(wire, files=()))


POLLS: dict[str, WireResponse] = {}


async def caches_polls(wire: WireRequest, next: Handler) -> WireResponse:
    if wire.method == "GET" and wire.target in POLLS:
        return POLLS[wire.target]
    response = await next(wire)
    if wire.method == "GET":
        POLLS[wire.target] = response
    return response


async def knows_posts_only(wire: WireRequest, next: Handler) -> WireResponse:
    if wire.method != "POST":
        raise ValueError(wire.method)
    return await next(wire)


async def releases_nothing(wire: WireRequest, next: Handler) -> WireResponse:
    lock = vars(asyncio.get_running_loop()).setdefault("lock", asyncio.Lock())
    await lock.acquire()
    response = await next(wire)
    lock.release()
    return response


misplaced.position = "first"  # type: ignore[attr-defined]  # as a middleware states its position

SUITE = MiddlewareSuite
CHECKS = [getattr(SUITE, name) for name in dir(SUITE) if name.startswith("test_")]
DEFECTS: list[tuple[Any, Callable[[MiddlewareSuite], None], str]] = [
    (sends_twice, SUITE.test_a_result_passes_unchanged, "sent the same paid request twice"),
    (swallows_errors, SUITE.test_errors_pass_unchanged, "a refusal ended in Result"),
    (replaces_errors, SUITE.test_errors_pass_unchanged, "NotSent ended in ChargeUnknown"),
    (forgets_retry_after, SUITE.test_errors_pass_unchanged, "too many requests: retry_after is None, not 7.0"),
    (loses_the_call, SUITE.test_a_result_passes_unchanged, "the request of another call"),
    (changes_the_key, SUITE.test_the_request_keeps_its_key_and_its_call, "the key changed on its way"),
    (changes_the_fields, SUITE.test_the_request_keeps_its_key_and_its_call, "the fields changed on their way"),
    (changes_the_body, SUITE.test_a_result_passes_unchanged, "the body changed on its way"),
    (drops_headers, SUITE.test_a_result_passes_unchanged, "a header of the answer was lost"),
    (holds_answers, SUITE.test_an_answer_is_not_held, "the middleware holds .* bytes of three requests and answers"),
    (holds_bodies, SUITE.test_an_answer_is_not_held, "the middleware holds .* bytes of three requests and answers"),
    (holds_requests, SUITE.test_an_answer_is_not_held, "the middleware holds .* bytes of three requests and answers"),
    (stores_by_prompt, SUITE.test_equal_prompts_of_others_have_their_own_answers, "equal one with another account"),
    (
        stores_by_account_and_prompt,
        SUITE.test_equal_prompts_of_others_have_their_own_answers,
        "equal one with another file",
    ),
    (replaces_on_end, SUITE.test_the_request_keeps_its_key_and_its_call, "the call's on_end was replaced"),
    (drops_max_bytes, SUITE.test_the_request_keeps_its_key_and_its_call, "the request changed on its way"),
    (changes_the_media_type, SUITE.test_a_result_passes_unchanged, "the media type changed"),
    (drops_the_status, SUITE.test_errors_pass_unchanged, "a refusal: status is None, not 400"),
    (drops_streams, SUITE.test_a_stream_passes, "a stream with a partial image and a result"),
    (sleeps_for_a_refusal, SUITE.test_the_loop_is_not_blocked, "it sleeps on the loop's thread"),
    (mixes_answers, SUITE.test_calls_at_once_do_not_mix, "a call got the answer to another one"),
    (swallows_cancellation, SUITE.test_a_call_can_be_cancelled, "not in CancelledError"),
    (leaves_a_task, SUITE.test_an_answer_is_not_held, "it left tasks"),
    (sleeps, SUITE.test_the_loop_is_not_blocked, "it sleeps on the loop's thread"),
    (blocks, SUITE.test_the_loop_is_not_blocked, r"blocks the loop for \d+ ms"),
    (logs_the_key, SUITE.test_no_log_holds_the_key, "the key is in a log line"),
    (hangs, SUITE.test_a_result_passes_unchanged, r"did not end within[^$]*in hangs"),
    (answers_itself, SUITE.test_each_call_is_sent_once, "one call made 0 requests and ended in Result"),
    (
        answers_itself,
        SUITE.test_the_request_keeps_its_key_and_its_call,
        "nothing was requested: the call ended in Result",
    ),
    (answers_itself, SUITE.test_a_call_can_be_cancelled, "nothing was requested: the call ended in Result"),
    (changes_the_encoding, SUITE.test_a_form_with_a_file_passes_unchanged, "the encoding became json"),
    (drops_files, SUITE.test_a_form_with_a_file_passes_unchanged, "the files changed on their way"),
    (caches_polls, SUITE.test_polls_pass, "each of which has its own answer"),
    (knows_posts_only, SUITE.test_polls_pass, "a middleware gets GETs too"),
    (releases_nothing, SUITE.test_a_call_can_be_cancelled, "the next waits for ever: release in finally"),
    (misplaced, SUITE.test_its_position_is_one_of_the_four, "position must be one of outer, retry, limit, inner"),
]


@pytest.fixture
def blocking_is_possible(nothing_blocks_the_loop: BlockBuster) -> Iterator[None]:
    """Other people's tests have no guard of ours."""
    nothing_blocks_the_loop.deactivate()
    yield
    nothing_blocks_the_loop.activate()


@pytest.mark.usefixtures("blocking_is_possible")
@pytest.mark.parametrize(
    ("layer", "check", "says"), DEFECTS, ids=[f"{layer.__name__}-{check.__name__}" for layer, check, _ in DEFECTS]
)
def test_a_defect_is_caught(layer: Any, check: Callable[[MiddlewareSuite], None], says: str) -> None:
    class Suite(MiddlewareSuite):
        __test__ = False
        middleware = staticmethod(layer)
        seconds = 1.0 if layer is hangs else 8.0 if layer in (caches_polls, releases_nothing) else 60.0

    for each in (HELD, BODIES, REQUESTS, STORED):
        each.clear()
    with pytest.raises(AssertionError, match=says):
        check(Suite())
    HELD.clear()


class NeedsSettings:
    """Needs settings that its suite does not declare."""

    def __init__(self, options: Options) -> None:
        raise ConfigError('needs providers={"ledger": {"path": "calls.jsonl"}}')


@pytest.mark.usefixtures("blocking_is_possible")
@pytest.mark.parametrize("check", CHECKS, ids=[each.__name__ for each in CHECKS])
def test_each_check_reports_why_a_middleware_is_not_opened(check: Callable[[MiddlewareSuite], None]) -> None:
    class Suite(MiddlewareSuite):
        __test__ = False
        middleware = "ledger"

        def prepare(self) -> None:
            with patch.object(Registry, "load", lambda *args: NeedsSettings if args[2] == "ledger" else load(*args)):
                super().prepare()

    load = Registry.load
    with pytest.raises(AssertionError, match=r"can't be opened: ConfigError: needs providers=[^$]*provider_settings"):
        check(Suite())
