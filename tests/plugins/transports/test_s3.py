"""Requests of an S3 bucket: what is tried again, how long each pause is, and where an object is. Over sockets:
tests/plugins/gateway/storage/test_s3.py.
"""

from __future__ import annotations

import aiohttp
import pytest

from impasto import ConfigError, NotSent
from impasto_plugins.transports import aws, s3
from impasto_plugins.transports.s3 import NotStored
from tests.sleep import replace_sleep


@pytest.mark.parametrize(
    ("status", "code", "is_transient"),
    [
        (0, "ClientOSError", True),
        (400, "", False),
        (400, "RequestTimeout", True),
        (403, "AccessDenied", False),
        (404, "NoSuchBucket", False),
        (408, "", True),
        (409, "ConditionalRequestConflict", True),
        (409, "BucketAlreadyExists", False),
        (412, "PreconditionFailed", False),
        (429, "", True),
        (499, "", False),
        (500, "", True),
        (503, "SlowDown", True),
    ],
)
def test_transient_failures_are_recognized(status: int, code: str, is_transient: bool) -> None:
    assert NotStored(status, code).is_transient is is_transient


def test_the_message_of_a_failure_has_status_and_code() -> None:
    assert str(NotStored(503, "SlowDown")) == "HTTP 503 SlowDown"
    assert str(NotStored(503, "")) == "HTTP 503"
    assert str(NotStored(0, "ClientOSError")) == "ClientOSError"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    replace_sleep(monkeypatch, sleep)
    return taken


async def test_each_pause_is_twice_the_last_up_to_twenty_seconds(pauses: list[float]) -> None:
    tries = 0

    async def fails() -> None:
        nonlocal tries
        tries += 1
        raise NotStored(503, "")

    with pytest.raises(NotStored):
        await s3._with_retries(10, fails)
    assert tries == 10
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0, 20.0]


async def test_a_permanent_failure_is_not_retried_and_a_transient_one_is(pauses: list[float]) -> None:
    outcomes: list[NotStored | str] = [NotStored(403, "AccessDenied"), "kept", NotStored(503, ""), NotStored(503, "")]

    async def request() -> str:
        outcome = outcomes.pop()
        if isinstance(outcome, NotStored):
            raise outcome
        return outcome

    assert await s3._with_retries(3, request) == "kept"
    assert len(pauses) == 2
    with pytest.raises(NotStored, match="AccessDenied"):
        await s3._with_retries(3, request)
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("bucket", "prefix", "endpoint", "address"),
    [
        ("own", "", "https://s3.us-west-2.amazonaws.com", "https://own.s3.us-west-2.amazonaws.com/"),
        ("own", "/a/b c/", "https://s3.us-west-2.amazonaws.com", "https://own.s3.us-west-2.amazonaws.com/a/b%20c/"),
        ("own", "a", "https://s3.cn-north-1.amazonaws.com.cn", "https://own.s3.cn-north-1.amazonaws.com.cn/a/"),
        ("own.dots", "a", "https://s3.us-west-2.amazonaws.com", "https://s3.us-west-2.amazonaws.com/own.dots/a/"),
        ("own", "a", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/own/a/"),
        ("own", "/", "https://storage.example/s3", "https://storage.example/s3/own/"),
    ],
)
def test_the_address_of_a_bucket(bucket: str, prefix: str, endpoint: str, address: str) -> None:
    assert s3._address(bucket, prefix, endpoint) == address


async def test_keys_that_can_not_be_fetched_are_reported_as_a_bucket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any image is paid for that would go there."""

    class Unreachable:
        async def keys(self) -> None:
            raise NotSent("AWS credentials can't be fetched; nothing was sent")

    monkeypatch.setattr(aws, "explicit_identity", lambda settings: Unreachable())
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigError, match="AWS credentials can't be fetched"):
            await s3.Objects.open("bucket", "", {}, session)


async def test_an_object_that_nobody_answers_for_does_not_exist(unused_port: int) -> None:
    async with aiohttp.ClientSession() as session:
        bucket = await s3.Objects.open("bucket", "", complete(f"http://127.0.0.1:{unused_port}"), session)
        assert await bucket.exists("image.png") is False


def complete(endpoint: str) -> dict[str, str | None]:
    return {
        "region": "us-east-1",
        "endpoint": endpoint,
        "access_key_id": "AKIA" + "A" * 16,
        "secret_access_key": "s" * 40,
    }


async def test_an_account_that_is_given_whole_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_: object, **__: object) -> None:
        raise AssertionError("looked for")

    monkeypatch.setattr(aws, "find_identity", find)
    async with aiohttp.ClientSession() as session:
        bucket = await s3.Objects.open("bucket", "a/b", complete("http://127.0.0.1:1"), session)
    assert bucket.address == "http://127.0.0.1:1/bucket/a/b/"
