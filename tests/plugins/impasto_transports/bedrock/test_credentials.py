"""Who a Bedrock call is from: every source of credentials that boto3 has."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError

import impasto
from impasto import ConfigError
from impasto_transports.aws import Identity
from tests.bedrock import ACCESS_KEY, KEYS, SESSION_TOKEN, pictured
from tests.plugins.impasto_transports.bedrock.wire import (
    GENERATOR,
    PUBLIC,
    ROLE,
    called,
    in_xml,
    signer,
    told,
)
from tests.recorder import Answer, Recorder, Seen

# credentials


async def test_explicit_keys(wire: Recorder) -> None:
    seen = await called(wire, **KEYS, aws_session_token=SESSION_TOKEN)
    assert signer(seen) == ACCESS_KEY
    assert seen.header("x-amz-security-token") == SESSION_TOKEN


@pytest.mark.usefixtures("env_keys")
async def test_the_environment(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await called(wire)
    assert (signer(seen), seen.header("x-amz-security-token")) == ("AKIAENVIRONMENT", None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T1")
    assert (await called(wire)).header("x-amz-security-token") == "T1"


@pytest.mark.usefixtures("env_keys")
async def test_a_sibling_client_sees_a_changed_environment(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
        await client.run(GENERATOR, prompt="p")
        await client.with_options().run(GENERATOR, prompt="p")
    assert [signer(seen) for seen in wire.seen] == ["AKIAENVIRONMENT", "AKIAENVIRONMENT", "AKIANEW"]


def keys(name: str, *more: str) -> str:
    lines = [
        f"[{name}]",
        f"aws_access_key_id=AKIA{name.rsplit(maxsplit=1)[-1].upper()}",
        "aws_secret_access_key=s",
        *more,
    ]
    return "\n".join(lines) + "\n"


async def test_files(wire: Recorder, credentials: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.write_text(keys("default") + keys("work") + keys("home", "aws_session_token=T2"))
    config.write_text(keys("profile elsewhere"))
    assert signer(await called(wire)) == "AKIADEFAULT"
    assert signer(await called(wire, aws_profile="work")) == "AKIAWORK"
    assert signer(await called(wire, aws_profile="elsewhere")) == "AKIAELSEWHERE"
    monkeypatch.setenv("AWS_PROFILE", "home")
    seen = await called(wire)
    assert (signer(seen), seen.header("x-amz-security-token")) == ("AKIAHOME", "T2")
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "work")
    assert signer(await called(wire)) == "AKIAWORK"


@pytest.mark.usefixtures("env_keys")
async def test_who_wins(wire: Recorder, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Explicit keys, an explicit profile, the bearer token, the environment's keys, its profile."""
    credentials.write_text(keys("work"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert signer(await called(wire)) == "AKIAENVIRONMENT"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key")
    seen = await called(wire)
    assert signer(seen) == "Bearer bedrock-key"
    assert not [name for name, _ in seen.headers if name.lower().startswith("x-amz-")]
    assert signer(await called(wire, aws_profile="work")) == "AKIAWORK"
    assert signer(await called(wire, **KEYS)) == ACCESS_KEY
    assert signer(await called(wire, **KEYS, aws_profile="work")) == ACCESS_KEY


async def test_a_program(wire: Recorder, config: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    answer = {"Version": 1, "AccessKeyId": "AKIAPROGRAM", "SecretAccessKey": "s", "SessionToken": "T3"}
    program.write_text(f"print({json.dumps(json.dumps(answer))})")
    config.write_text(f"[default]\ncredential_process={sys.executable} {program}\n")
    seen = await called(wire)
    assert (signer(seen), seen.header("x-amz-security-token")) == ("AKIAPROGRAM", "T3")


async def test_a_program_that_fails_says_no_more_than_that(wire: Recorder, config: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit('the password is hunter2')")
    config.write_text(f"[default]\ncredential_process={sys.executable} {program}\n")
    assert await told() == "AWS credentials can't be had: their source failed"


async def test_a_role(wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    in_an_hour = in_xml(datetime.now(UTC) + timedelta(hours=1))
    wire.answer = lambda seen: pictured() if seen.path.startswith("/model/") else in_an_hour
    seen = await called(wire)
    assert (signer(seen), seen.header("x-amz-security-token")) == ("ASIAROLE", "role-token-canary")
    assert b"painter" in wire.seen[0].body


async def test_a_role_that_is_refused(wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>base-secret</Message></Error></ErrorResponse>"
    wire.answer = lambda seen: Answer(status=403, headers={"content-type": "text/xml"}, body=body)
    assert await told() == "AWS credentials can't be had: AssumeRole was refused (AccessDenied)"


# a container's endpoint, whose credentials expire


@attrs.define
class Container:
    """Hands out credentials that are due for renewal at once or only later."""

    recorder: Recorder
    minutes: float = 60.0
    seconds: float = 0.0
    given: int = 0
    broken: bool = False

    def answer(self, seen: Seen) -> Answer:
        if seen.path.startswith("/model/"):
            return pictured()
        assert seen.header("authorization") == "container-token"
        if self.broken:
            return Answer(status=500)
        self.given += 1
        time.sleep(self.seconds)  # in the recorder's own thread
        expires = datetime.now(UTC) + timedelta(minutes=self.minutes)
        told = {
            "AccessKeyId": f"ASIA{self.given}",
            "SecretAccessKey": "s",
            "Token": "T",
            "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }
        return Answer(headers={"content-type": "application/json"}, body=json.dumps(told).encode())


@pytest.fixture
def container(threaded: Recorder, monkeypatch: pytest.MonkeyPatch) -> Container:
    made = Container(threaded)
    threaded.answer = made.answer
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", threaded.url + "/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", threaded.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    return made


def signers(container: Container) -> list[str]:
    return [signer(seen) for seen in container.recorder.seen if seen.path.startswith("/model/")]


async def test_a_container_is_asked_once(container: Container) -> None:
    async with impasto.Client() as client:
        for _ in range(3):
            await client.run(GENERATOR, prompt="p")
    assert (signers(container), container.given) == (["ASIA1"] * 3, 1)


async def test_many_first_calls_ask_once(container: Container) -> None:
    async with impasto.Client() as client:
        await asyncio.gather(*(client.run(GENERATOR, prompt="p") for _ in range(20)))
    assert (signers(container), container.given) == (["ASIA1"] * 20, 1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_what_is_due_is_fetched_anew(container: Container) -> None:
    """While what there is still holds, no call waits for it."""
    container.minutes = 12  # botocore renews 15 minutes before the end, and must 10 minutes before
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        await until(lambda: container.given > 1)
        before = container.given
        container.seconds = 0.3
        began = time.monotonic()
        await asyncio.gather(*(client.run(GENERATOR, prompt="p") for _ in range(5)))
        assert time.monotonic() - began < 0.3
        await until(lambda: container.given == before + 1)
        await asyncio.sleep(0.4)
        container.minutes = 60
        await client.run(GENERATOR, prompt="p")
        await until(lambda: container.given == before + 2)
    assert len(set(signers(container))) > 1


async def test_a_renewal_that_fails_leaves_what_still_holds(container: Container) -> None:
    container.minutes = 12
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        container.broken = True
        for _ in range(3):
            await client.run(GENERATOR, prompt="p")
    assert len(signers(container)) == 4


class Expired:
    """botocore's credentials when they no longer hold: slow to fetch, in whatever loop."""

    def __init__(self) -> None:
        self.fetched = 0
        self.failure: Exception | None = None

    def refresh_needed(self, refresh_in: float = 900) -> bool:
        return self.fetched == 0 or self.failure is not None

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        time.sleep(0.2)  # blocks: nobody but its own thread may be held up
        if self.failure is not None:
            raise self.failure
        self.fetched += 1
        return ReadOnlyCredentials("ASIANEW", "s", "T", None)


async def test_what_no_longer_holds_is_waited_for_and_the_loop_runs_on() -> None:
    found = Expired()
    identity = Identity("us-west-2", PUBLIC, credentials=found)
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


async def test_a_fetch_that_fails_is_said_to_all_who_wait_and_tried_again_by_the_next() -> None:
    found = Expired()
    found.failure = CredentialRetrievalError(provider="x", error_msg="hunter2")
    identity = Identity("us-west-2", PUBLIC, credentials=found)
    outcomes = await asyncio.gather(*(identity.keys() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConfigError] * 3
    assert "hunter2" not in str(outcomes)
    found.failure = None
    keys = await identity.keys()
    assert keys is not None
    assert found.fetched == 1


async def test_a_source_that_can_not_be_reached(
    container: Container, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{unused_port}/credentials")
    assert await told() == "AWS credentials can't be had: their source failed"
    assert container.recorder.seen == []
