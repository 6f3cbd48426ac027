"""Work of botocore's that many wait for, and what its failures are in words. Over sockets: bedrock/."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    UnauthorizedSSOTokenError,
)

from impasto import ConfigError, NotSent
from impasto_plugins import transports
from impasto_plugins.transports import aws
from impasto_plugins.transports.aws import Identity, Once, explicit_identity, to_identity_error

PAIR = {"access_key_id": "AKIA", "secret_access_key": "secret"}
PLACE = {"region": "us-west-2", "endpoint": "https://bedrock.example"}


@pytest.mark.parametrize(
    ("settings", "is_whole"),
    [
        ({**PLACE, **PAIR}, True),
        ({**PLACE, "bearer": "token"}, True),
        ({**PLACE}, False),
        ({"region": "us-west-2", **PAIR}, False),
        ({"endpoint": "https://bedrock.example", **PAIR}, False),
        ({"region": "us-west-2", "bearer": "token"}, False),
    ],
)
async def test_an_identity_is_searched_unless_its_settings_are_complete(
    settings: dict[str, str], is_whole: bool
) -> None:
    identity = explicit_identity(settings)
    assert (identity is not None) is is_whole
    if identity is not None:
        keys = await identity.keys()
        assert keys == (ReadOnlyCredentials("AKIA", "secret", None, None) if "bearer" not in settings else None)


async def test_running_work_is_shared_and_finished_work_starts_again() -> None:
    start, go = 0, asyncio.Event()
    loop = asyncio.get_running_loop()

    async def work() -> int:
        nonlocal start
        start += 1
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
        return start

    once = Once(work)
    asking = [asyncio.create_task(once()) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    go.set()
    assert await asyncio.gather(*asking[1:]) == [1, 1], "it goes on though one who waited was cancelled"
    assert await once() == 2


async def test_a_failure_without_a_waiting_caller_is_not_reported_by_asyncio() -> None:
    async def work() -> None:
        raise NoRegionError

    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    once = Once(work)
    running = once.start()
    await asyncio.wait([running])
    with pytest.raises(ConfigError, match="no AWS region"):
        await once()
    del running, once
    gc.collect()
    assert reports == []


class Source:
    """Credentials as botocore finds them: ``left`` seconds before they end."""

    def __init__(self, left: float) -> None:
        self.left, self.fetched, self.searches = left, 0, 0

    def refresh_needed(self, seconds: float = 900) -> bool:
        return self.left <= seconds

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.fetched += 1
        return ReadOnlyCredentials(f"AKIA{self.fetched}", "secret", "token", None)


async def request(source: Any) -> Identity:
    async def find() -> Any:
        source.searches = getattr(source, "searches", 0) + 1
        return source

    return Identity("us-west-2", "https://bedrock.example", source=find)


async def test_valid_credentials_are_fetched_once() -> None:
    source = Source(3600)
    identity = await request(source)
    for _ in range(3):
        keys = await identity.keys()
        assert keys is not None
        assert keys.access_key == "AKIA1"


async def test_credentials_that_expire_soon_are_fetched_in_the_background_and_expired_ones_are_waited_for() -> None:
    go_on = threading.Event()

    class Slow(Source):
        async def get_frozen_credentials(self) -> ReadOnlyCredentials:
            if self.fetched == 1:
                await asyncio.to_thread(go_on.wait)
            return await super().get_frozen_credentials()

    source = Slow(3600)
    identity = await request(source)
    await identity.keys()
    source.left = 600
    keys = await identity.keys()
    assert keys is not None
    assert keys.access_key == "AKIA1", "nobody waits while they hold"
    joined = asyncio.ensure_future(identity._fetch())
    await asyncio.sleep(0)  # it waits for the same fetch
    go_on.set()
    await joined
    assert source.fetched == 2
    source.left = 0
    keys = await identity.keys()
    assert keys is not None
    assert keys.access_key == "AKIA3"
    assert source.searches == 1, "what was found once is asked again, files and servers are not"


async def test_credentials_that_do_not_expire_are_never_fetched_again() -> None:
    plain = SimpleNamespace(get_frozen_credentials=Source(0).get_frozen_credentials)
    identity = await request(plain)
    first = await identity.keys()
    assert await identity.keys() is first


@pytest.mark.parametrize("field", ["access_key", "secret_key", "token"])
async def test_a_key_that_is_invalid_in_a_header_is_named_and_not_shown(field: str) -> None:
    class Damaged(Source):
        async def get_frozen_credentials(self) -> ReadOnlyCredentials:
            return (await super().get_frozen_credentials())._replace(**{field: "a-secret\n"})

    with pytest.raises(ConfigError, match="that was found") as caught:
        await (await request(Damaged(3600))).keys()
    assert "a-secret" not in str(caught.value)


REFUSED = ClientError({"Error": {"Code": "AccessDenied", "Message": "a-secret"}}, "AssumeRole")
TIMED_OUT = ConnectTimeoutError(endpoint_url="https://a-secret", error="a-secret")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoRegionError(), "no AWS region found in aws_region"),
        (InvalidRegionError(region_name="a-secret"), "invalid AWS region"),
        (NoCredentialsError(), "no AWS credentials found in api_key"),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY is missing"),
        (ProfileNotFound(profile="a-secret"), "the AWS profile is not in the configuration files"),
        (ConfigParseError(path="/a-secret"), "invalid AWS configuration"),
        (UnauthorizedSSOTokenError(), "run aws sso login"),
        (REFUSED, r"AssumeRole was refused \(AccessDenied\)"),
        (ClientError({}, "AssumeRole"), r"AssumeRole was refused \(no code\)"),
        (CredentialRetrievalError(provider="process", error_msg="a-secret"), r"their source failed \(process\)"),
        (RuntimeError("a-secret"), "can't get AWS credentials: RuntimeError"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_error_of_botocore_names_the_problem_and_no_secret(error: Exception, message: str) -> None:
    failure = to_identity_error(error)
    assert isinstance(failure, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise failure
    assert "a-secret" not in str(failure)


@pytest.mark.parametrize(
    ("error", "retryable"), [(TIMED_OUT, True), (SSLError(endpoint_url="https://a-secret", error="a-secret"), False)]
)
def test_credentials_that_can_not_be_fetched_may_be_fetched_later(error: Exception, retryable: bool) -> None:
    failure = to_identity_error(error)
    assert isinstance(failure, NotSent)
    assert (failure.retryable, "a-secret" in str(failure)) == (retryable, False)


def test_each_waiting_caller_raises_its_own_error() -> None:
    error = ConfigError("x")
    assert to_identity_error(error) is not error
    assert str(to_identity_error(error)) == "x"


def test_a_signed_request_shows_no_secret_and_a_bearer_token_needs_no_signature() -> None:
    keys = ReadOnlyCredentials("AKIA", "a-secret", None, None)
    identity = Identity("eu-west-1", "https://bedrock.example", bearer="token")
    signed = {
        name.lower(): value
        for name, value in identity.sign("https://bedrock.example/x", {"a": "b"}, b"{}", keys).items()
    }
    assert signed["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/")
    assert "/eu-west-1/bedrock/aws4_request" in signed["authorization"]
    assert (signed["a"], "a-secret" in str(signed)) == ("b", False)
    assert identity.sign("https://bedrock.example/x", {"a": "b"}, b"{}", None) == {
        "a": "b",
        "authorization": "Bearer token",
    }


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All lines that reach the root logger. botocore writes canonical requests and signatures at DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "botocore.auth", "botocore.created_later"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def sign_as_a_user_would() -> None:
    SigV4Auth(ReadOnlyCredentials("AKIA", "a-secret", None, None), "s3", "eu-west-1").add_auth(
        AWSRequest("POST", "https://s3.example/x", data=b"")
    )


def test_a_signature_is_not_logged_and_the_users_own_are(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("botocore", "botocore.auth"):  # as in a process that imports the module now
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    monkeypatch.delitem(sys.modules, "impasto_plugins.transports.aws")
    monkeypatch.setattr(transports, "aws", aws)  # restored at the end
    fresh = importlib.import_module("impasto_plugins.transports.aws")
    identity = fresh.Identity("eu-west-1", "https://bedrock.example")
    keys = ReadOnlyCredentials("AKIA", "a-secret", "a-token", None)
    for _ in range(2):
        identity.sign("https://bedrock.example/x", {}, b"{}", keys)
        assert logged.records == []
    sign_as_a_user_would()
    assert "AWS4-HMAC-SHA256" in logged.text


async def test_botocores_log_has_warnings_only_and_no_output_of_a_program_while_it_works_for_us(
    logged: pytest.LogCaptureFixture,
) -> None:
    later = logging.getLogger("botocore.created_later")

    async def work() -> None:
        later.debug("a token")
        later.info("a token")
        try:
            raise RuntimeError("a program's output")
        except RuntimeError:
            later.warning("credentials could not be refreshed", exc_info=True)

    await Once(work)()
    assert [record.getMessage() for record in logged.records if record.name == later.name] == [
        "credentials could not be refreshed"
    ]
    assert "a program's output" not in logged.text
    later.debug("the user's own")
    assert logged.records[-1].getMessage() == "the user's own"


def test_looking_for_a_ca_leaves_the_users_own_log_lines_as_they_are(logged: pytest.LogCaptureFixture) -> None:
    aws.ca_bundle(None)
    sign_as_a_user_would()
    assert "AWS4-HMAC-SHA256" in logged.text
