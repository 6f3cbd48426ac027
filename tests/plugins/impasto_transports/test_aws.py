"""Who a Bedrock call is from and where it goes: every source of credentials, regions and endpoints that boto3 has."""

from __future__ import annotations

import asyncio
import json
import logging
import re
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
from impasto_stability.bedrock_provider import bedrock
from impasto_transports.aws import Identity, identify
from tests.bedrock import ACCESS_KEY, KEYS, SECRET_KEY, SESSION_TOKEN, failed, pictured
from tests.pictures import png
from tests.recorder import Answer, Recorder, Seen

SERVICE = "bedrock/stability.stable-fast-upscale-v1:0"
GENERATOR = "bedrock/stability.stable-image-core-v1:1"
PUBLIC = "https://bedrock-runtime.us-west-2.amazonaws.com"


@pytest.fixture(autouse=True)
def nothing_of_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No instance metadata is asked for, no file of the developer's is read."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


@pytest.fixture
def env_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment-secret")


@pytest.fixture
def wire(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Bedrock at an endpoint of the environment's, in a region of it."""
    recorder.answer = lambda seen: pictured()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", recorder.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    return recorder


def signer(seen: Seen) -> str:
    """The access key id or the bearer token that a request goes out with."""
    header = seen.header("authorization") or ""
    found = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/|(Bearer .*)", header)
    assert found is not None, header
    return found[1] or found[2]


async def called(wire: Recorder, **settings: object) -> Seen:
    """The request of one call with these settings."""
    async with impasto.Client(**settings) as client:  # type: ignore[arg-type]  # the settings of a test
        await client.run(GENERATOR, prompt="p")
    return [seen for seen in wire.seen if seen.path.startswith("/model/")][-1]


async def told(**settings: object) -> str:
    """What is said of settings that do not do."""
    async with impasto.Client(**settings) as client:  # type: ignore[arg-type]  # the settings of a test
        with pytest.raises(ConfigError) as caught:
            await client.run(GENERATOR, prompt="p")
    assert caught.value.billed == "no"
    return caught.value.message


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


ROLE = """
[default]
role_arn=arn:aws:iam::123456789012:role/painter
source_profile=base
[profile base]
aws_access_key_id=AKIABASE
aws_secret_access_key=base-secret
"""


def in_xml(expires: datetime) -> Answer:
    body = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
    <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role-secret-canary</SecretAccessKey>
    <SessionToken>role-token-canary</SessionToken><Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>
    </AssumeRoleResult></AssumeRoleResponse>"""
    return Answer(headers={"content-type": "text/xml"}, body=body.encode())


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


# what is missing or wrong


async def test_no_credentials_says_where_was_looked(wire: Recorder) -> None:
    said = await told()
    for place in ("aws_access_key_id", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "profile", "SSO", "container"):
        assert place in said
    assert wire.seen == []


@pytest.mark.usefixtures("env_keys")
async def test_no_region_says_where_was_looked() -> None:
    said = await told()
    for place in ("aws_region", "the ARN", "AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION", "profile"):
        assert place in said


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_a_bearer_token_that_is_none(wire: Recorder, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", token)
    said = await told()
    assert "AWS_BEARER_TOKEN_BEDROCK" in said
    assert wire.seen == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aws_access_key_id": "AKIA"}, "half an AWS key pair"),
        ({"aws_secret_access_key": "s"}, "half an AWS key pair"),
        ({"aws_session_token": "T"}, "aws_session_token goes with"),
        ({"aws_access_key_id": "A\nB", "aws_secret_access_key": "s"}, "aws_access_key_id: the API key holds"),
        ({"aws_access_key_id": "A", "aws_secret_access_key": ""}, "secret_access_key must be text and not empty"),
        ({"aws_region": ""}, "region must be text and not empty"),
        ({**KEYS, "aws_region": "us west 2"}, "no region's name"),
        ({**KEYS, "aws_region": "x/../y.example.com#"}, "no region's name"),
        ({"aws_profile": "nobody"}, "the AWS profile is not in the configuration files"),
        ({**KEYS, "bedrock_endpoint": "ftp://example.com"}, "bedrock_endpoint must begin with https://"),
        ({**KEYS, "bedrock_endpoint": "http://example.com"}, "only loopback may be"),
        ({"providers": {"bedrock": {"regoin": "us-west-2"}}}, "takes no setting 'regoin'"),
    ],
)
async def test_settings_that_do_not_do(wire: Recorder, settings: dict[str, object], said: str) -> None:
    assert said in await told(**settings)
    assert wire.seen == []


async def test_half_a_pair_in_the_environment(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    assert "half an AWS key pair" in await told()


# regions


async def region_of(**settings: object) -> str:
    """The region that settings, as a client hands them on, come to."""
    return (await identify(bedrock.account({"access_key_id": "a", "secret_access_key": "s", **settings}))).region


async def test_regions_in_their_order(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[default]\nregion=eu-west-1\n[profile work]\nregion=eu-west-2\n")
    assert await region_of() == "eu-west-1"
    assert await region_of(profile="work") == "eu-west-2"
    for name, region in (
        ("AWS_DEFAULT_REGION", "eu-north-1"),
        ("AWS_REGION", "eu-west-3"),
        ("AWS_REGION_NAME", "us-east-2"),
    ):
        monkeypatch.setenv(name, region)
        assert await region_of() == region
    assert await region_of(arn_region="us-east-1") == "us-east-1"
    assert await region_of(arn_region="us-east-1", region="us-west-2") == "us-west-2"


async def test_the_region_is_in_what_is_signed(wire: Recorder) -> None:
    arn = "arn:aws:bedrock:us-east-2:123456789012:application-inference-profile/abc"
    async with impasto.Client(aws_access_key_id="a", aws_secret_access_key="b") as client:
        await client.run(GENERATOR, prompt="p")
        await client.run(f"bedrock/{arn}", base_model=GENERATOR, prompt="p")
    scopes = [(seen.header("authorization") or "").split("/")[2] for seen in wire.seen]
    assert scopes == ["us-west-2", "us-east-2"]


async def test_a_region_that_does_not_serve_the_model(wire: Recorder) -> None:
    said = await told(**{**KEYS, "aws_region": "us-east-1"})
    assert said == "stability.stable-image-core-v1:1 is served from us-west-2, not us-east-1: set aws_region"
    async with impasto.Client(**{**KEYS, "aws_region": "eu-west-1"}) as client:  # type: ignore[arg-type]  # all are text
        with pytest.raises(ConfigError, match="is served from us-east-1, us-east-2, us-west-2, not eu-west-1"):
            await client.run(SERVICE, image=png(96, 96))
    assert wire.seen == []


# endpoints


async def endpoint_of(**settings: object) -> str:
    given = {"access_key_id": "a", "secret_access_key": "s", "region": "us-west-2", **settings}
    return (await identify(bedrock.account(given))).endpoint


async def test_endpoints_in_their_order(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await endpoint_of() == PUBLIC
    config.write_text(
        "[default]\nendpoint_url=http://127.0.0.1:1\nservices=mine\n"
        "[services mine]\nbedrock_runtime=\n  endpoint_url=http://127.0.0.1:2/prefix/\n"
        "[profile global]\nendpoint_url=http://127.0.0.1:1\n"
    )
    assert await endpoint_of(profile="global") == "http://127.0.0.1:1"
    assert await endpoint_of() == "http://127.0.0.1:2/prefix"
    for number, name in (
        (3, "AWS_ENDPOINT_URL"),
        (4, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        (5, "AWS_BEDROCK_RUNTIME_ENDPOINT"),
    ):
        monkeypatch.setenv(name, f"http://127.0.0.1:{number}")
        assert await endpoint_of() == f"http://127.0.0.1:{number}"
    assert await endpoint_of(endpoint="http://127.0.0.1:6") == "http://127.0.0.1:6"


async def test_configured_endpoints_can_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:3")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert await endpoint_of() == PUBLIC


async def test_other_public_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await endpoint_of(region="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert await endpoint_of() == PUBLIC.replace("runtime", "runtime-fips")


async def test_an_endpoint_of_the_control_plane_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:7")
    assert await endpoint_of() == PUBLIC


@pytest.mark.parametrize("url", ["http://example.com", "http://user:hunter2@127.0.0.1:1", "nonsense", "http://"])
async def test_a_configured_endpoint_that_can_not_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(ConfigError) as caught:
        await endpoint_of()
    assert "endpoint" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("env_keys")
async def test_a_path_before_the_models(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder.answer = lambda seen: pictured()
    monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url + "/a/b")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert (await called_any(recorder)).path == "/a/b/model/stability.stable-image-core-v1%3A1/invoke"


async def called_any(recorder: Recorder) -> Seen:
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
    return recorder.seen[-1]


# secrets


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "aiobotocore", "aiohttp", "impasto", "asyncio", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


async def test_nothing_secret_is_logged(
    wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch, all_logs: pytest.LogCaptureFixture
) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    in_an_hour = in_xml(datetime.now(UTC) + timedelta(hours=1))
    wire.answer = lambda seen: pictured() if seen.path.startswith("/model/") else in_an_hour
    await called(wire)
    await called(wire, **KEYS, aws_session_token=SESSION_TOKEN)
    wire.answer = lambda seen: failed("InvalidSignatureException", 403, f"{SESSION_TOKEN} {SECRET_KEY}")
    async with impasto.Client(**KEYS, aws_session_token=SESSION_TOKEN) as client:
        with pytest.raises(impasto.Unauthorized) as caught:
            await client.run(GENERATOR, prompt="a secret prompt")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-canary-token")
    wire.answer = lambda seen: pictured()
    await called(wire)
    shown = all_logs.text + repr(caught.value) + repr(client._options) + repr(client._accounts)
    for secret in (
        "role-secret-canary",
        "role-token-canary",
        "base-secret",
        SECRET_KEY,
        SESSION_TOKEN[:20],
        "bearer-canary",
        "a secret prompt",
        "Signature=",
    ):
        assert secret not in shown


async def test_what_others_do_with_botocore_is_logged_as_ever(
    wire: Recorder, all_logs: pytest.LogCaptureFixture
) -> None:
    await called(wire, **KEYS)
    logging.getLogger("botocore.auth").debug("of somebody else")
    assert "of somebody else" in all_logs.text


def test_an_identity_shows_nothing() -> None:
    assert "secret" not in repr(Identity("us-west-2", PUBLIC, bearer="secret"))
