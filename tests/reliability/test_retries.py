"""What is tried again, how often and when (rows F19 to F21, F30, F54, F59 of the promise)."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time

import pytest

import impasto
from tests.reliability.conftest import CORE, FAST, KEY, MakeClient
from tests.reliability.servers import PICTURE, Answer, ServedRequest, Server, Wire, page, picture, raw, refused

BUSY = {"name": "rate_limit_exceeded", "said": "slow down"}


def limited(**headers: str) -> Answer:
    return refused(429, **BUSY, **headers)


async def failure(client: impasto.Client, **settings: object) -> impasto.ImpastoError:
    with pytest.raises(impasto.ImpastoError) as caught:
        await client.run(CORE, prompt="p", **settings)  # type: ignore[arg-type]
    return caught.value


async def test_f21_a_refused_fault_is_tried_again(server: Server, client: impasto.Client) -> None:
    server.posts = [refused(500, "internal_error"), picture()]
    assert (await client.run(CORE, prompt="p")).artifacts[0].data == PICTURE
    assert len(server.paid) == 2


@pytest.mark.parametrize("status", [500, 503])
async def test_f21_at_most_twice_more(server: Server, client: impasto.Client, status: int) -> None:
    server.posts = [refused(status, "internal_error", x_request_id="req-5")]
    error = await failure(client)
    assert isinstance(error, impasto.ProviderFault)
    assert (error.billed, error.retryable, error.request_id) == ("no", True, "req-5")
    assert len(server.paid) == 3


async def test_each_attempt_sends_the_whole_request(server: Server, client: impasto.Client) -> None:
    server.posts = [refused(500), picture()]
    await client.run("stability/erase", image=PICTURE, mask=PICTURE)
    first, second = server.paid
    assert first.body.count(PICTURE) == second.body.count(PICTURE) == 2
    assert len(first.body) == len(second.body)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("0", 0.0, 0.28),
        ("0.2", 0.19, 1.2),
        ("1.5", 0.29, 1.2),
        ("1000000000", 0.29, 1.2),
        ("-1", 0.29, 1.2),
        ("garbage", 0.29, 1.2),
        ("1e9", 0.29, 1.2),
        ("", 0.29, 1.2),
        ("Wed, 99 Foo 2026 99:99:99 GMT", 0.29, 1.2),
    ],
)
async def test_f19_the_key_waits_as_asked_and_no_longer_than_the_cap(
    server: Server, client: impasto.Client, text: str, least: float, most: float
) -> None:
    server.posts = [limited(retry_after=text), picture()]
    await client.run(CORE, prompt="p")
    first, second = server.paid
    assert least <= second.at - first.at < most


async def test_f19_f54_a_date_is_read_by_the_servers_clock(server: Server, client: impasto.Client) -> None:
    """The server's clock is an hour off: one second from its now, not an hour."""
    for drift in (3600, -3600):
        now = time.time() + drift
        dates = {
            "retry_after": email.utils.formatdate(now + 1, usegmt=True),
            "date": email.utils.formatdate(now, usegmt=True),
        }
        server.posts = [limited(**dates)]
        error = await failure(client, retry=impasto.Retry(attempts=1, max_wait=0.0))
        assert isinstance(error, impasto.RateLimited)
        assert error.retry_after == 1.0


@pytest.mark.parametrize(
    "text",
    ["1000000000", "999999999999.999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359",
     "Mon, 01 Jan 0001 00:00:00 +2359"],
)  # fmt: skip
async def test_f19_a_wait_that_makes_no_sense_is_passed_on_to_nobody(
    server: Server, client: impasto.Client, text: str
) -> None:
    server.posts = [limited(retry_after=text)]
    error = await failure(client, retry=impasto.Retry(attempts=1, max_wait=0.0))
    assert isinstance(error, impasto.RateLimited)
    assert error.retry_after is None or 0 <= error.retry_after <= 3600


async def test_f19_the_whole_key_waits_and_no_other(server: Server, make_client: MakeClient) -> None:
    """During the pause nothing goes out for the key, from any client; another key is not held up."""
    server.posts = [limited(retry_after="1.5"), picture()]
    patient = impasto.Retry(base=0.002, cap=0.01, max_wait=2.0)
    one, two = make_client(server.url, retry=patient), make_client(server.url, retry=patient)
    other = make_client(server.url, api_key="sk-another-key-0123456789")
    first = asyncio.ensure_future(one.run(CORE, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    began = time.monotonic()
    await other.run(CORE, prompt="p")
    assert time.monotonic() - began < 1.4
    await asyncio.gather(first, *(two.run(CORE, prompt="p") for _ in range(5)), one.run(CORE, prompt="p"))
    ours = [request for request in server.paid if request.header("authorization") == f"Bearer {KEY}"]
    assert len(ours) == 8
    assert min(request.at for request in ours[1:]) - ours[0].at >= 1.49


async def test_a_429_counts_as_an_attempt(server: Server, client: impasto.Client) -> None:
    server.posts = [limited(retry_after="0.01")]
    error = await failure(client)
    assert isinstance(error, impasto.RateLimited)
    assert (error.billed, error.retryable, error.retry_after, error.status) == ("no", True, 0.01, 429)
    assert len(server.paid) == FAST.attempts


async def test_a_429_wait_longer_than_what_is_left_raises_at_once(server: Server, make_client: MakeClient) -> None:
    server.posts = [limited(retry_after="20", x_request_id="req-2"), picture()]
    client = make_client(server.url, timeout=15.0, retry=impasto.Retry())
    began = time.monotonic()
    error = await failure(client)
    assert time.monotonic() - began < 10
    assert isinstance(error, impasto.RateLimited)
    assert (error.retry_after, error.request_id, error.retryable, error.billed) == (20.0, "req-2", True, "no")
    assert len(server.paid) == 1


async def test_a_pages_429_is_unknown_and_pauses_the_key_all_the_same(server: Server, make_client: MakeClient) -> None:
    server.posts = [page(429), picture()]
    client = make_client(server.url)
    error = await failure(client)
    assert isinstance(error, impasto.ChargeUnknown)
    await client.run(CORE, prompt="p")
    assert server.paid[1].at - server.paid[0].at >= 0.29


async def test_f30_retries_stay_within_their_budget(server: Server, make_client: MakeClient) -> None:
    """Half of the answers are faults; retries are at most a tenth of the calls, and the floor."""
    dice = random.Random(7)

    async def perhaps(request: ServedRequest, wire: Wire) -> None:
        await (refused(500) if dice.random() < 0.5 else picture())(request, wire)

    server.posts = [perhaps]
    policy = impasto.Retry(base=0.001, cap=0.002, budget=0.1, floor=5)
    client = make_client(server.url, retry=policy, max_concurrency=20)
    outcomes = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(200)), return_exceptions=True)
    failed = [each for each in outcomes if not isinstance(each, impasto.Result)]
    assert {type(each) for each in failed} == {impasto.ProviderFault}
    assert 205 <= len(server.paid) <= 200 + 5 + 20


async def test_a_budget_counts_the_requests_before_the_first_failure(server: Server, make_client: MakeClient) -> None:
    policy = impasto.Retry(base=0.001, cap=0.001, budget=0.1, floor=0)
    client = make_client(server.url, retry=policy)
    for _ in range(20):
        await client.run(CORE, prompt="p")
    server.posts = [refused(500), picture()]
    server.requests.clear()
    await client.run(CORE, prompt="p")
    assert len(server.paid) == 2


async def test_the_deadline_covers_retries(server: Server, make_client: MakeClient) -> None:
    server.posts = [refused(500)]
    client = make_client(server.url, timeout=0.3, retry=impasto.Retry(refused=1000, base=0.05, cap=0.05, floor=1000))
    began = time.monotonic()
    error = await failure(client)
    assert time.monotonic() - began < 20
    assert len(server.paid) < 1000
    if isinstance(error, impasto.ChargeUnknown):  # it came as an attempt was on its way
        return
    assert error.billed == "no"
    assert isinstance(error, impasto.ProviderFault | impasto.NotSent)


async def test_the_deadline_after_a_refusal_leaves_no_doubt(server: Server, make_client: MakeClient) -> None:
    """The first attempt was refused, the second had sent nothing: nothing is unknown."""
    tries = 0

    async def holds_the_second(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        nonlocal tries
        tries += 1
        if tries == 2:
            await asyncio.sleep(5)
        return await next(wire)

    server.posts = [refused(500)]
    error = await failure(make_client(server.url, timeout=0.2, middleware=[holds_the_second]))
    assert isinstance(error, impasto.NotSent)
    assert (error.billed, error.retryable, tries) == ("no", True, 2)


async def test_ambiguous_is_not_retried_unless_asked(server: Server, make_client: MakeClient) -> None:
    server.posts = [raw(end="close")]
    error = await failure(make_client(server.url, retry=impasto.Retry(max_charges=3)))
    assert isinstance(error, impasto.ChargeUnknown)
    assert len(server.paid) == 1


async def test_on_ambiguous_goes_up_to_max_charges(server: Server, make_client: MakeClient) -> None:
    policy = impasto.Retry(base=0.001, on_ambiguous=True, max_charges=3)
    server.posts = [raw(end="close")]
    error = await failure(make_client(server.url, retry=policy))
    assert isinstance(error, impasto.ChargeUnknown)
    assert len(server.paid) == 3


@pytest.mark.parametrize("last", [refused(402, "payment_required"), refused(429, **BUSY), refused(500)])
async def test_an_earlier_ambiguous_attempt_is_not_forgotten(
    server: Server, make_client: MakeClient, last: Answer
) -> None:
    """The last attempt was refused, free of charge; the first may have been charged, so the call may have been."""
    policy = impasto.Retry(attempts=1, refused=0, base=0.001, on_ambiguous=True, max_charges=2, max_wait=0.01)
    server.posts = [raw(end="close"), last]
    error = await failure(make_client(server.url, retry=policy))
    assert isinstance(error, impasto.ResponseError)
    assert (error.billed, error.retryable) == ("unknown", False)


async def test_f59_a_plugin_that_posts_twice_is_stopped_and_the_first_picture_kept(
    server: Server, make_client: MakeClient
) -> None:
    async def twice(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        await next(wire)
        return await next(wire)

    error = await failure(make_client(server.url, middleware=[twice]))
    assert isinstance(error, impasto.ChargeUnknown)
    assert "twice" in str(error)
    assert (error.raw, error.request_id) == (PICTURE, "req-1")
    assert len(server.paid) == 1


async def test_f59_a_plugin_that_retries_by_itself_is_stopped(server: Server, make_client: MakeClient) -> None:
    async def stubborn(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        while True:
            try:
                return await next(wire)
            except impasto.ChargeUnknown:
                continue

    server.posts = [raw(end="close")]
    error = await failure(make_client(server.url, middleware=[stubborn]))
    assert isinstance(error, impasto.ChargeUnknown)
    assert len(server.paid) == 1


@pytest.mark.parametrize("fault", [ValueError("sk"), TimeoutError(), KeyError("x")])
async def test_a_plugin_that_breaks_after_the_answer_loses_nothing(
    server: Server, make_client: MakeClient, fault: Exception
) -> None:
    async def broken(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        await next(wire)
        raise fault

    error = await failure(make_client(server.url, middleware=[broken]))
    assert isinstance(error, impasto.ChargeUnknown)
    assert error.raw == PICTURE
    assert type(fault).__name__ in str(error)
    assert "within" not in str(error)  # it is no deadline


async def test_a_plugin_that_breaks_before_the_request_costs_nothing(server: Server, make_client: MakeClient) -> None:
    async def broken(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        raise TimeoutError

    error = await failure(make_client(server.url, middleware=[broken]))
    assert isinstance(error, impasto.BrokenPlugin)
    assert error.billed == "no"
    assert server.connections == 0


async def test_the_time_before_the_turn_does_not_count(server: Server, make_client: MakeClient) -> None:
    """Three calls of 0.15 s one after the other, each with 0.3 s: none is late."""
    server.posts = [
        raw(0.15),
    ]

    async def slow(request: ServedRequest, wire: Wire) -> None:
        await asyncio.sleep(0.15)
        await picture()(request, wire)

    server.posts = [slow]
    client = make_client(server.url, timeout=0.3, max_concurrency=1)
    results = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(3)))
    assert len(results) == 3
    assert server.most == 1
