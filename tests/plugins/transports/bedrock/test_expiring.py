"""Credentials that many calls wait for, and those that expire: fetched once, off the loop, and renewed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError

import impasto
from impasto import ConfigError
from impasto_plugins.transports.aws import Identity
from tests.bedrock import failed
from tests.plugins.transports.bedrock.wire import GENERATOR, PUBLIC, error_text, signer
from tests.recorder import Answer, ReceivedRequest, Recorder


@attrs.define
class Container:
    """Hands out credentials that hold for so long, from a thread of its own, when ``open`` lets it."""

    minutes: float = 60.0
    issues: int = 0
    questions: int = 0
    broken: bool = False
    open: threading.Event = attrs.field(factory=threading.Event)

    def answer(self, request: ReceivedRequest) -> Answer:
        assert request.header("authorization") == "container-token"
        self.questions += 1
        assert self.open.wait(60)
        if self.broken:
            return Answer(status=404, body=b"a-secret-answer")
        self.issues += 1
        expires = datetime.now(UTC) + timedelta(minutes=self.minutes)
        payload = {
            "AccessKeyId": f"ASIA{self.issues}",
            "SecretAccessKey": "container-secret",
            "Token": "container-session",
            "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }
        return Answer(headers={"content-type": "application/json"}, body=json.dumps(payload).encode())


@pytest.fixture
def container(wire: Recorder, threaded: Recorder, monkeypatch: pytest.MonkeyPatch) -> Container:
    result = Container()
    result.open.set()
    threaded.answer = result.answer
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", threaded.url + "/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)  # between its tries
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.TIMEOUT_SECONDS", 60)  # for each
    return result


async def calls(client: impasto.Client, n: int) -> list[impasto.Result | BaseException]:
    return await asyncio.gather(*(client.run(GENERATOR, prompt="p") for _ in range(n)), return_exceptions=True)


def signers(wire: Recorder) -> list[str]:
    return [signer(request) for request in wire.requests]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_container_is_asked_once(wire: Recorder, container: Container) -> None:
    async with impasto.Client() as client:
        for _ in range(3):
            await client.run(GENERATOR, prompt="p")
    assert (signers(wire), container.issues) == (["ASIA1"] * 3, 1)


async def test_many_first_calls_ask_once(wire: Recorder, container: Container) -> None:
    async with impasto.Client() as client:
        await calls(client, 64)
    assert (signers(wire), container.issues) == (["ASIA1"] * 64, 1)


async def test_many_first_calls_without_credentials_ask_once(wire: Recorder, container: Container) -> None:
    """botocore asks three times itself. The next call asks anew."""
    container.broken = True
    container.open.clear()
    async with impasto.Client() as client:
        waiting = asyncio.ensure_future(calls(client, 64))
        await until(lambda: container.questions > 0)
        container.open.set()
        outcomes = await waiting
        assert {str(outcome) for outcome in outcomes} == {
            f"{GENERATOR}: can't get AWS credentials: their source failed (container-role)"
        }
        assert len({id(outcome) for outcome in outcomes}) == 64
        assert container.questions <= 3
        assert wire.requests == []
        container.broken = False
        assert (await client.run(GENERATOR, prompt="p")).artifacts


async def test_credentials_that_are_due_are_fetched_once_in_the_background(
    wire: Recorder, container: Container
) -> None:
    container.minutes = 12  # botocore renews 15 minutes before the end, and must 10 minutes before
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        before = container.questions
        container.minutes = 60
        container.open.clear()
        await client.run(GENERATOR, prompt="p")
        await until(lambda: container.questions > before)
        await calls(client, 64)  # while the container keeps its answer back
        old = signers(wire)[0]
        assert signers(wire) == [old] * 66
        container.open.set()
        async with asyncio.timeout(60):
            while signers(wire)[-1] == old:
                await client.run(GENERATOR, prompt="p")
    assert container.questions == before + 1


async def test_expired_credentials_are_fetched_once_and_waited_for(wire: Recorder, container: Container) -> None:
    container.minutes = 0.04
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        before = container.issues
        await asyncio.sleep(2.5)
        container.minutes = 60
        await calls(client, 64)
    assert (container.issues, set(signers(wire)[1:])) == (before + 1, {f"ASIA{before + 1}"})


async def test_a_failed_renewal_keeps_valid_credentials(
    wire: Recorder, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    container.minutes = 12
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        container.broken = True
        await client.run(GENERATOR, prompt="p")
        await until(lambda: "failed during advisory refresh period" in caplog.text)
        await client.run(GENERATOR, prompt="p")
    assert len(set(signers(wire))) == 1
    assert "a-secret-answer" not in caplog.text


async def test_credentials_are_in_no_error(wire: Recorder, container: Container) -> None:
    wire.answer = lambda request: failed("ValidationException", 400, " ".join(value for _, value in request.headers))
    async with impasto.Client() as client:
        with pytest.raises(impasto.BadRequest) as caught:
            await client.run(GENERATOR, prompt="p")
    for secret in ("container-se", "ASIA1"):
        assert secret not in f"{caught.value} {caught.value.messages}"


class Expired:
    """botocore's credentials when they no longer hold: slow to fetch, in whatever loop."""

    def __init__(self) -> None:
        self.fetched = 0
        self.failure: Exception | None = None

    async def source(self) -> Expired:
        return self

    def refresh_needed(self, refresh_in: float = 900) -> bool:
        return self.fetched == 0 or self.failure is not None

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        time.sleep(0.2)  # blocks: nobody but its own thread may be held up
        if self.failure is not None:
            raise self.failure
        self.fetched += 1
        return ReadOnlyCredentials("ASIANEW", "s", "T", None)


async def test_the_loop_is_not_blocked_while_credentials_are_fetched() -> None:
    found = Expired()
    identity = Identity("us-west-2", PUBLIC, source=found.source)
    calls = [asyncio.ensure_future(identity.keys()) for _ in range(5)]
    ticks = 0
    while not all(call.done() for call in calls):
        await asyncio.sleep(0.005)
        ticks += 1
        if ticks == 3:
            calls[0].cancel()
    assert calls[0].cancelled()
    assert {keys.access_key for call in calls[1:] if (keys := call.result()) is not None} == {"ASIANEW"}
    assert found.fetched == 1
    assert ticks > 5


async def test_a_failed_fetch_is_raised_for_all_waiting_calls_and_retried_by_the_next() -> None:
    found = Expired()
    found.failure = CredentialRetrievalError(provider="x", error_msg="hunter2")
    identity = Identity("us-west-2", PUBLIC, source=found.source)
    outcomes = await asyncio.gather(*(identity.keys() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConfigError] * 3
    assert "hunter2" not in str(outcomes)
    found.failure = None
    keys = await identity.keys()
    assert keys is not None
    assert found.fetched == 1


async def test_nothing_is_sent_if_the_container_is_unreachable(
    wire: Recorder, container: Container, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{unused_port}/credentials")
    assert await error_text() == "can't get AWS credentials: their source failed (container-role)"
    assert (container.questions, wire.requests) == (0, [])
