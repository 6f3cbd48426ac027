"""Where a Bedrock call goes: regions and endpoints as boto3 finds them, and what is missing or wrong."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import impasto
from impasto import ConfigError
from impasto_plugins.emulator.providers import sigv4
from impasto_plugins.transports.aws import Identity
from tests.bedrock import ACCESS_KEY, KEYS, SECRET_KEY, SESSION_TOKEN, failed, pictured
from tests.images import png
from tests.plugins.transports.bedrock.wire import (
    GENERATOR,
    PUBLIC,
    ROLE,
    SERVICE,
    called,
    error_text,
    identified,
    in_xml,
)
from tests.recorder import Recorder

# what is missing or wrong


async def test_missing_credentials_name_the_searched_places(wire: Recorder) -> None:
    message = await error_text()
    for place in ("aws_access_key_id", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "profile", "SSO", "container"):
        assert place in message
    assert wire.requests == []


@pytest.mark.usefixtures("env_keys")
async def test_a_missing_region_names_the_searched_places() -> None:
    message = await error_text()
    for place in ("aws_region", "the ARN", "AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION", "profile"):
        assert place in message


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_an_empty_bearer_token_is_refused(wire: Recorder, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", token)
    message = await error_text()
    assert "AWS_BEARER_TOKEN_BEDROCK" in message
    assert wire.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aws_access_key_id": "AKIA"}, "incomplete AWS credentials"),
        ({"aws_secret_access_key": "s"}, "incomplete AWS credentials"),
        ({"aws_session_token": "T"}, "aws_session_token needs"),
        ({"aws_access_key_id": "A\nB", "aws_secret_access_key": "s"}, "aws_access_key_id contains a space"),
        ({"aws_access_key_id": "A", "aws_secret_access_key": ""}, "secret_access_key must be text and not empty"),
        ({"aws_region": ""}, "region must be text and not empty"),
        ({**KEYS, "aws_region": "us west 2"}, "invalid AWS region"),
        ({**KEYS, "aws_region": "x/../y.example.com#"}, "invalid AWS region"),
        ({"aws_profile": "nobody"}, "the AWS profile is not in the configuration files"),
        (
            {**KEYS, "aws_region": "us-west-2\r\nx-evil: 1", "bedrock_endpoint": "http://127.0.0.1:9"},
            "invalid AWS region",
        ),
        ({**KEYS, "bedrock_endpoint": "ftp://example.com"}, "bedrock_endpoint must begin with https://"),
        ({**KEYS, "bedrock_endpoint": "http://example.com"}, "is plain http"),
        ({"providers": {"bedrock": {"regoin": "us-west-2"}}}, "unknown setting 'regoin' of"),
    ],
)
async def test_incomplete_settings_are_refused(wire: Recorder, settings: dict[str, object], message: str) -> None:
    assert message in await error_text(**settings)
    assert wire.requests == []


# regions


async def region_of(**settings: object) -> str:
    """The region that settings, as a client hands them on, come to."""
    return (await identified(**settings)).region


async def test_regions_are_used_in_the_documented_order(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_the_region_is_in_the_signature(wire: Recorder) -> None:
    arn = "arn:aws:bedrock:us-east-2:123456789012:application-inference-profile/abc"
    async with impasto.Client(aws_access_key_id="a", aws_secret_access_key="b") as client:
        await client.run(GENERATOR, prompt="p")
        await client.run(f"bedrock/{arn}", base_model=GENERATOR, prompt="p")
    scopes = [(request.header("authorization") or "").split("/")[2] for request in wire.requests]
    assert scopes == ["us-west-2", "us-east-2"]


async def test_a_region_without_the_model_is_refused_with_those_that_have_it(wire: Recorder) -> None:
    message = await error_text(**{**KEYS, "aws_region": "us-east-1"})
    assert message == "stability.stable-image-core-v1:1 is available in us-west-2, not in us-east-1: set aws_region"
    async with impasto.Client(**{**KEYS, "aws_region": "eu-west-1"}) as client:  # type: ignore[arg-type]  # all are text
        with pytest.raises(ConfigError, match="is available in us-east-1, us-east-2, us-west-2, not in eu-west-1"):
            await client.run(SERVICE, image=png(96, 96))
    assert wire.requests == []


async def test_a_wrong_region_is_reported_before_credentials_are_fetched(
    wire: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", wire.url)
    assert "is available in us-west-2, not in us-east-1" in await error_text(aws_region="us-east-1")
    assert wire.requests == []


@pytest.mark.parametrize("region", ["us west 2", "us-west-2\r\nx-evil: 1", "example.com#", "US-WEST-2", "a" * 64])
async def test_an_arn_with_an_invalid_region_is_refused(wire: Recorder, region: str) -> None:
    arn = f"arn:aws:bedrock:{region}:123456789012:application-inference-profile/abc"
    async with impasto.Client(aws_access_key_id="a", aws_secret_access_key="b", bedrock_endpoint=wire.url) as client:
        with pytest.raises(ConfigError, match="invalid AWS region"):
            await client.run(f"bedrock/{arn}", base_model=GENERATOR, prompt="p")
    assert wire.requests == []


# endpoints


async def endpoint_of(**settings: object) -> str:
    return (await identified(**{"region": "us-west-2", **settings})).endpoint


async def test_endpoints_are_used_in_the_documented_order(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_other_public_hosts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await endpoint_of(region="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert await endpoint_of() == PUBLIC.replace("runtime", "runtime-fips")


async def test_the_control_planes_endpoint_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:7")
    assert await endpoint_of() == PUBLIC


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://user:hunter2@127.0.0.1:1",
        "nonsense",
        "http://",
        "http://127.0.0.1:1/a?b",
        "http://127.0.0.1:1/a#b",
        "http://127.0.0.1:1/a/../b",
        "http://127.0.0.1:1/a//b",
        "http://127.0.0.1:1/a b",
        "http://127.0.0.1:1/\\b",
    ],
)
async def test_an_invalid_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError) as arguments:
        await endpoint_of(endpoint=url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(ConfigError) as configured:
        await endpoint_of()
    for caught in (arguments, configured):
        assert "endpoint" in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("how", ["bedrock_endpoint", "AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ENDPOINT_URL"])
async def test_an_endpoints_path_is_sent_and_signed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    recorder.answer = lambda request: pictured()
    settings: dict[str, object] = {**KEYS}
    if how == "bedrock_endpoint":
        settings[how] = recorder.url + "/team/a%20b/"
    else:
        monkeypatch.setenv(how, recorder.url + "/team/a%20b/")
    request = await called(recorder, **settings)
    assert request.path == "/team/a%20b/model/stability.stable-image-core-v1%3A1/invoke"
    headers = {name.lower(): value for name, value in request.headers}
    signed = sigv4.SignedRequest(path=request.path, headers=headers, body_hash=hashlib.sha256(request.body).hexdigest())
    sigv4.verify_signature(signed, {ACCESS_KEY: SECRET_KEY}, service="bedrock", now=datetime.now(UTC))


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
    wire.answer = lambda request: pictured() if request.path.startswith("/model/") else in_an_hour
    await called(wire)
    await called(wire, **KEYS, aws_session_token=SESSION_TOKEN)
    wire.answer = lambda request: failed("InvalidSignatureException", 403, f"{SESSION_TOKEN} {SECRET_KEY}")
    async with impasto.Client(**KEYS, aws_session_token=SESSION_TOKEN) as client:
        with pytest.raises(impasto.Unauthorized) as caught:
            await client.run(GENERATOR, prompt="a secret prompt")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-canary-token")
    wire.answer = lambda request: pictured()
    await called(wire)
    text = all_logs.text + repr(caught.value) + repr(client._options) + repr(client._accounts)
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
        assert secret not in text


async def test_the_users_own_use_of_botocore_is_logged(wire: Recorder, all_logs: pytest.LogCaptureFixture) -> None:
    await called(wire, **KEYS)
    logging.getLogger("botocore.auth").debug("of somebody else")
    assert "of somebody else" in all_logs.text


def test_the_repr_of_an_identity_has_no_secret() -> None:
    assert "secret" not in repr(Identity("us-west-2", PUBLIC, bearer="secret"))
