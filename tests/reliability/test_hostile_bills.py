"""Answers that contradict each other about the bill: nothing is paid twice, no possible charge counts as free."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

import impasto
from impasto import Account, ChargeUnknown, File, InvalidRequest, JobFailed, Provider, Retry, Unauthorized, hookimpl
from tests.reliability.hostile import IMAGE, MODEL, PICTURE, attacked, event, images, job, operation
from tests.reliability.servers import Answer, ServedRequest, Server, Wire, http, in_json, raw

RESET = raw(end="reset")
REFUSED = in_json({"error": {"message": "token expired"}}, 401)
FREE = in_json({"failed": "no"})
BUSY = in_json({"error": {"message": "overloaded"}}, 503)
OPTED_IN = Retry(attempts=5, refused=3, on_ambiguous=True, max_charges=2, base=0.001, cap=0.002, floor=99)
STRICT = Retry(attempts=5, refused=3, base=0.001, cap=0.002, floor=99)


@attrs.frozen(kw_only=True, eq=False)
class Cloud(Provider):
    @hookimpl
    async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
        return {"authorization": "Bearer second" if refused else "Bearer first"}


CLOUD = operation(provider=Cloud(name="villain", base_url="https://api.villain.example", key_variable="VILLAIN_KEY"))


def in_turn(*answers: Answer) -> Answer:
    left = [*answers]

    async def answer(request: ServedRequest, wire: Wire) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, wire)

    return answer


@asynccontextmanager
async def answers(
    *posts: Answer, other: Answer = PICTURE, retry: Retry = STRICT, **settings: Any
) -> AsyncIterator[tuple[impasto.Client, Server]]:
    async with attacked(in_turn(*posts), other, retry=retry, **settings) as (client, server):
        yield client, server


@pytest.mark.parametrize("streams", [False, True], ids=["run", "stream"])
async def test_an_attempt_that_may_have_been_charged_is_not_sent_again_for_another_token(streams: bool) -> None:
    async with answers(RESET, PICTURE, model=CLOUD) as (client, server):
        with pytest.raises(ChargeUnknown):
            if streams:
                _ = [each async for each in client.stream(MODEL, prompt="a kite")]
            else:
                await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == 1


@pytest.mark.parametrize(
    ("posts", "count", "error", "billed"),
    [
        ((REFUSED,), 2, Unauthorized, "no"),
        ((REFUSED, RESET), 2, ChargeUnknown, "unknown"),
        ((REFUSED, BUSY, RESET), 3, ChargeUnknown, "unknown"),
        ((REFUSED, BUSY, REFUSED), 3, Unauthorized, "no"),
        ((BUSY, REFUSED, FREE), 3, JobFailed, "no"),
    ],
)
async def test_a_refused_token_is_replaced_once(
    posts: tuple[Answer, ...], count: int, error: type[impasto.ImpastoError], billed: str
) -> None:
    async with answers(*posts, model=CLOUD) as (client, server):
        with pytest.raises(error) as caught:
            await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == count
    assert caught.value.billed == billed


@pytest.mark.parametrize(
    ("posts", "count"),
    [
        ((RESET, REFUSED, RESET, PICTURE), 3),
        ((RESET, BUSY, RESET, PICTURE), 3),
        ((RESET, RESET, PICTURE), 2),
    ],
)
async def test_charges_that_were_opted_into_are_counted_through_refusals(posts: tuple[Answer, ...], count: int) -> None:
    async with answers(*posts, model=CLOUD, retry=OPTED_IN) as (client, server):
        with pytest.raises(ChargeUnknown):
            await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == count, "two of them may have been charged"


@pytest.mark.parametrize(
    "last",
    [
        FREE,
        in_json({"error": {"message": "no"}}, 400),
        http(200, event({"failed": "no"}), content_type="text/event-stream"),
    ],
)
async def test_a_free_failure_says_nothing_of_the_attempt_before_it(last: Answer) -> None:
    async with answers(RESET, last, retry=OPTED_IN) as (client, server):
        with pytest.raises(impasto.ResponseError) as caught:
            await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == 2
    assert (caught.value.billed, caught.value.retryable) == ("unknown", False)


async def test_a_job_that_failed_for_free_says_nothing_of_the_attempt_before_it() -> None:
    async with answers(RESET, job(), other=FREE, retry=OPTED_IN) as (client, server):
        with pytest.raises(JobFailed) as caught:
            await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == 2
    assert caught.value.billed == "unknown"


async def test_a_result_after_an_attempt_that_may_have_been_charged_says_so() -> None:
    async with answers(RESET, PICTURE, retry=OPTED_IN) as (client, server):
        result = await client.run(MODEL, prompt="a kite")
        assert len(server.paid) == 2
    assert "1 earlier attempts may have been charged too" in result.warnings[0]


async def test_a_free_error_event_that_an_image_follows_is_not_sent_again() -> None:
    both = http(200, event({"failed": "no"}) + event(images()), content_type="text/event-stream")
    async with answers(both) as (client, server):
        assert (await client.run(MODEL, prompt="a kite")).artifacts[0].data == IMAGE
        assert len(server.paid) == 1


@pytest.mark.parametrize("content", [b"", IMAGE[:-1], IMAGE + b"x"], ids=["empty", "shorter", "longer"])
async def test_a_file_that_changes_while_it_is_read_is_not_sent(content: bytes) -> None:
    whole = iter([IMAGE])  # it is read once for the check

    def reopen() -> io.BytesIO:
        return io.BytesIO(next(whole, content))

    file = File(label="kite.png", size=len(IMAGE), media_type="image/png", opener=reopen)
    async with answers(PICTURE) as (client, server):
        with pytest.raises(InvalidRequest, match="image: can't be read again: it has"):
            await client.run(MODEL, prompt="a kite", image=file)
        assert server.requests == []


async def test_closing_the_client_in_a_retry_sends_nothing_more() -> None:
    slow = Retry(attempts=5, refused=3, base=60.0, cap=60.0, floor=99)
    async with answers(BUSY, PICTURE, retry=slow, timeout=300.0) as (client, server):
        task = asyncio.create_task(client.run(MODEL, prompt="a kite"))
        while not server.paid:
            await asyncio.sleep(0.001)
        await client.aclose()
        with pytest.raises(impasto.ImpastoError):
            await task
        assert len(server.paid) == 1
