"""A throttle of Bedrock's: the model that met it backs off, and no other of the account waits."""

from __future__ import annotations

import asyncio

import pytest

import impasto
from impasto_plugins.middleware.gate import model_pauses
from tests.images import png
from tests.plugins.transports.bedrock.wire import ERASE, GENERATOR, GOOD, HEADERS, MakeClient, coded
from tests.reliability.servers import Answer, ServedRequest, Server, Wire, http

CODES = ["ThrottlingException", "ModelNotReadyException", "TooManyRequestsException"]
AS_SHIPPED = impasto.Retry()


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The bounds within which waits are drawn; each comes to a thousandth of its most."""
    bounds: list[tuple[float, float]] = []

    def uniform(minimum: float, maximum: float) -> float:
        bounds.append((minimum, maximum))
        return maximum / 1000

    monkeypatch.setattr("random.uniform", uniform)
    return bounds


@pytest.mark.parametrize("code", CODES)
async def test_a_throttled_call_is_retried_after_about_a_second(
    server: Server, make_client: MakeClient, jitter: list[tuple[float, float]], code: str
) -> None:
    server.posts = [coded(429, code), GOOD]
    result = await make_client(server.url, retry=AS_SHIPPED, timeout=8.0).run(GENERATOR, prompt="p")
    assert len(result.artifacts) == 1
    assert len(server.paid) == 2
    assert jitter == [(0, 1.0)]


async def test_throttled_retries_double_with_full_jitter_and_end_after_four_attempts(
    server: Server, make_client: MakeClient, jitter: list[tuple[float, float]]
) -> None:
    server.posts = [coded(429, "ThrottlingException")]
    with pytest.raises(impasto.RateLimited) as caught:
        await make_client(server.url, retry=AS_SHIPPED, timeout=60.0).run(GENERATOR, prompt="p")
    assert jitter == [(0, 1.0), (0, 2.0), (0, 4.0)]
    assert (len(server.paid), caught.value.billed, caught.value.retry_after) == (4, "no", None)


def slow(seconds: str) -> Answer:
    """A throttle that says how long."""
    headers = {**HEADERS, "x-amzn-errortype": "ThrottlingException", "retry-after": seconds}
    return http(429, b'{"message":"no"}', **headers)


def of_model(throttled: Answer) -> Answer:
    async def answer(request: ServedRequest, wire: Wire) -> None:
        await (throttled if "core" in request.path else GOOD)(request, wire)

    return answer


async def test_the_accounts_other_models_are_not_throttled(server: Server, make_client: MakeClient) -> None:
    """One model is throttled, and asks for a minute; another of the same key is answered meanwhile."""
    server.posts = [of_model(slow("60"))]
    client = make_client(server.url, retry=AS_SHIPPED, timeout=100.0)
    waiting = [asyncio.create_task(client.run(GENERATOR, prompt="p"))]
    while not model_pauses._ends:  # the answer has come
        await asyncio.sleep(0.001)
    waiting.append(asyncio.create_task(client.run(GENERATOR, prompt="p")))
    for _ in range(3):
        assert (await client.run(ERASE, image=png(64, 64), timeout=30.0)).artifacts
    assert len([request for request in server.paid if "core" in request.path]) == 1
    for each in waiting:
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each


async def test_a_throttle_without_a_time_delays_no_other_call(server: Server, make_client: MakeClient) -> None:
    """The next call of the same model goes out at once, too: no lock-out is known of AWS."""
    server.posts = [coded(429, "ThrottlingException"), GOOD]
    client = make_client(server.url, retry=impasto.Retry(base=600, cap=600), timeout=2_000.0)
    waiting = asyncio.create_task(client.run(GENERATOR, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.001)
    assert (await client.run(GENERATOR, prompt="p")).artifacts
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_another_region_is_another_quota(server: Server, make_client: MakeClient) -> None:
    server.posts = [slow("60"), GOOD]
    one = make_client(server.url, retry=impasto.Retry(attempts=1), aws_region="us-east-1")
    other = make_client(server.url, retry=impasto.Retry(attempts=1), aws_region="us-east-2")
    with pytest.raises(impasto.RateLimited):
        await one.run(ERASE, image=png(64, 64))
    assert (await other.run(ERASE, image=png(64, 64))).artifacts


@pytest.mark.parametrize("retry_after", ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_an_unreasonable_wait_is_limited_to_an_hour(
    server: Server, make_client: MakeClient, retry_after: str
) -> None:
    slow = http(
        429, b'{"message":"no"}', **{**HEADERS, "x-amzn-errortype": "ThrottlingException", "retry-after": retry_after}
    )
    server.posts = [slow]
    with pytest.raises(impasto.RateLimited) as caught:
        await make_client(server.url, retry=impasto.Retry(attempts=1)).run(GENERATOR, prompt="p")
    assert caught.value.retry_after == 3600.0
