"""Who a Bedrock call is from: every source of credentials that boto3 has."""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

import impasto
from tests.bedrock import ACCESS_KEY, KEYS, SESSION_TOKEN, pictured
from tests.plugins.transports.bedrock.wire import GENERATOR, ROLE, called, error_text, in_xml, signer
from tests.recorder import Answer, ReceivedRequest, Recorder
from tests.reliability.servers import Server, http, serving
from tests.reliability.test_proxies import proxying

# credentials


async def test_explicit_keys_are_used(wire: Recorder) -> None:
    request = await called(wire, **KEYS, aws_session_token=SESSION_TOKEN)
    assert signer(request) == ACCESS_KEY
    assert request.header("x-amz-security-token") == SESSION_TOKEN


@pytest.mark.usefixtures("env_keys")
async def test_keys_of_the_environment_are_used(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    request = await called(wire)
    assert (signer(request), request.header("x-amz-security-token")) == ("AKIAENVIRONMENT", None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T1")
    assert (await called(wire)).header("x-amz-security-token") == "T1"


@pytest.mark.usefixtures("env_keys")
async def test_a_sibling_client_sees_a_changed_environment(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    async with impasto.Client() as client:
        await client.run(GENERATOR, prompt="p")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
        await client.run(GENERATOR, prompt="p")
        await client.with_options().run(GENERATOR, prompt="p")
    assert [signer(request) for request in wire.requests] == ["AKIAENVIRONMENT", "AKIAENVIRONMENT", "AKIANEW"]


def keys(name: str, *more: str) -> str:
    lines = [
        f"[{name}]",
        f"aws_access_key_id=AKIA{name.rsplit(maxsplit=1)[-1].upper()}",
        "aws_secret_access_key=s",
        *more,
    ]
    return "\n".join(lines) + "\n"


async def test_keys_of_the_files_are_used(
    wire: Recorder, credentials: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.write_text(keys("default") + keys("work") + keys("home", "aws_session_token=T2"))
    config.write_text(keys("profile elsewhere"))
    assert signer(await called(wire)) == "AKIADEFAULT"
    assert signer(await called(wire, aws_profile="work")) == "AKIAWORK"
    assert signer(await called(wire, aws_profile="elsewhere")) == "AKIAELSEWHERE"
    monkeypatch.setenv("AWS_PROFILE", "home")
    request = await called(wire)
    assert (signer(request), request.header("x-amz-security-token")) == ("AKIAHOME", "T2")
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "work")
    assert signer(await called(wire)) == "AKIAWORK"


@pytest.mark.usefixtures("env_keys")
async def test_sources_are_used_in_the_documented_order(
    wire: Recorder, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Explicit keys, an explicit profile, the bearer token, the environment's keys, its profile."""
    credentials.write_text(keys("work"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert signer(await called(wire)) == "AKIAENVIRONMENT"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key")
    request = await called(wire)
    assert signer(request) == "Bearer bedrock-key"
    assert not [name for name, _ in request.headers if name.lower().startswith("x-amz-")]
    assert signer(await called(wire, aws_profile="work")) == "AKIAWORK"
    assert signer(await called(wire, **KEYS)) == ACCESS_KEY
    assert signer(await called(wire, **KEYS, aws_profile="work")) == ACCESS_KEY


async def test_a_credential_process_is_used(wire: Recorder, config: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    answer = {"Version": 1, "AccessKeyId": "AKIAPROGRAM", "SecretAccessKey": "s", "SessionToken": "T3"}
    program.write_text(f"print({json.dumps(json.dumps(answer))})")
    config.write_text(f'[default]\ncredential_process="{sys.executable}" "{program}"\n')
    request = await called(wire)
    assert (signer(request), request.header("x-amz-security-token")) == ("AKIAPROGRAM", "T3")


async def test_the_output_of_a_failed_credential_process_is_not_shown(
    wire: Recorder, config: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit('the password is hunter2')")
    config.write_text(f'[default]\ncredential_process="{sys.executable}" "{program}"\n')
    assert await error_text() == "can't get AWS credentials: their source failed (custom-process)"


async def test_a_role_is_assumed(wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    wire.answer = lambda request: pictured() if request.path.startswith("/model/") else in_xml(IN_AN_HOUR)
    request = await called(wire)
    assert (signer(request), request.header("x-amz-security-token")) == ("ASIAROLE", "role-token-canary")
    assert b"painter" in wire.requests[0].body


IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)


async def test_a_web_identity_is_used(wire: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("web-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/painter")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    answer = in_xml(IN_AN_HOUR, "AssumeRoleWithWebIdentity")
    wire.answer = lambda request: pictured() if request.path.startswith("/model/") else answer
    assert signer(await called(wire)) == "ASIAROLE"
    assert b"WebIdentityToken=web-token" in wire.requests[0].body


async def test_instance_metadata_are_used(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", wire.url)
    role = "/latest/meta-data/iam/security-credentials/"
    keys = {"AccessKeyId": "ASIAIMDS", "SecretAccessKey": "s", "Token": "T4", "Expiration": f"{IN_AN_HOUR:%FT%TZ}"}

    def answer(request: ReceivedRequest) -> Answer:
        if request.path.startswith("/model/"):
            return pictured()
        payload = {
            "/latest/api/token": "a-token",
            role: "painter",
            role + "painter": json.dumps({**keys, "Code": "Success"}),
        }
        return Answer(body=payload[request.path].encode())

    wire.answer = answer
    request = await called(wire)
    assert (signer(request), request.header("x-amz-security-token")) == ("ASIAIMDS", "T4")
    assert wire.requests[-2].header("x-aws-ec2-metadata-token") == "a-token"


SSO = """
[default]
sso_session=login
sso_account_id=123456789012
sso_role_name=painter
[profile old]
sso_start_url=https://example.com/start
sso_region=us-east-1
sso_account_id=123456789012
sso_role_name=painter
[sso-session login]
sso_start_url=https://example.com/start
sso_region=us-east-1
"""


@pytest.fixture
def sso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Signs in until then. botocore reads where its cache is when it is imported."""
    for place in ("botocore.credentials.SSOProvider", "botocore.tokens.SSOTokenProvider"):
        monkeypatch.setattr(f"{place}._SSO_TOKEN_CACHE_DIR", str(tmp_path))

    def sign_in(until: datetime) -> None:
        for name in ("login", "https://example.com/start"):
            token = {"accessToken": "sso-token", "expiresAt": f"{until:%FT%TZ}"}
            (tmp_path / f"{hashlib.sha1(name.encode()).hexdigest()}.json").write_text(json.dumps(token))

    return sign_in


async def test_single_sign_on_is_used(
    wire: Recorder, config: Path, sso: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(SSO)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", wire.url)
    keys = {"accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "T5"}
    body = json.dumps({"roleCredentials": {**keys, "expiration": int(IN_AN_HOUR.timestamp() * 1000)}}).encode()
    wire.answer = lambda request: pictured() if request.path.startswith("/model/") else Answer(body=body)
    assert "run aws sso login" in await error_text()
    sso(datetime.now(UTC) - timedelta(hours=1))
    assert "run aws sso login" in await error_text(aws_profile="old")
    sso(IN_AN_HOUR)
    for profile in (None, "old"):
        assert signer(await called(wire, aws_profile=profile)) == "ASIASSO"
        assert wire.requests[-2].header("x-amz-sso_bearer_token") == "sso-token"


@pytest.mark.parametrize(
    ("lines", "variables", "message"),
    [
        ("credential_process=echo no json", {}, "can't get AWS credentials: JSONDecodeError"),
        ("credential_process=/no/such/program", {}, "can't get AWS credentials: FileNotFoundError"),
        ("credential_process=echo '{}'", {}, "can't get AWS credentials: their source failed (custom-process)"),
        ("role_arn=r\nsource_profile=nobody", {}, 'The source_profile "nobody" referenced in the profile "default"'),
        ("role_arn=r\nsource_profile=a\n[profile a]\nrole_arn=r\nsource_profile=default", {}, "Infinite loop"),
        (
            "aws_access_key_id=AKIAHALF",
            {},
            "incomplete AWS credentials (config-file): aws_secret_access_key is missing",
        ),
        ("[", {}, "invalid AWS configuration or credentials file"),
        ("", {"AWS_ACCESS_KEY_ID": "A"}, "incomplete AWS credentials (env): AWS_SECRET_ACCESS_KEY is missing"),
        ("", {"AWS_RETRY_MODE": "never"}, "InvalidRetryModeError"),
        (
            "",
            {"AWS_ROLE_ARN": "r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/file"},
            "can't get AWS credentials: FileNotFoundError",
        ),
        (
            "",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/"},
            "can't get AWS credentials: ValueError",
        ),
    ],
)
async def test_a_wrong_configuration_is_reported(
    wire: Recorder,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lines: str,
    variables: dict[str, str],
    message: str,
) -> None:
    config.write_text(f"[default]\n{lines}\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert message in await error_text()
    assert wire.requests == []


@pytest.mark.parametrize("wrong", ["A\nB", "A\r\nx-evil: 1", "A B", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.usefixtures("env_keys")
async def test_keys_that_are_invalid_in_a_header_are_refused_before_a_request(
    wire: Recorder, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    monkeypatch.setenv(name, wrong)
    message = await error_text()
    assert "that was found contains a space" in message
    assert wrong not in message
    assert wire.requests == []


async def test_nothing_is_sent_if_the_source_of_credentials_is_unreachable(
    wire: Recorder, config: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    async with impasto.Client(retry=impasto.Retry(attempts=2, base=0.001)) as client:
        with pytest.raises(impasto.NotSent) as caught:
            await client.run(GENERATOR, prompt="p")
    assert (caught.value.billed, caught.value.retryable, wire.requests) == ("no", True, [])


async def test_an_explicit_proxy_is_used_for_sts_too(
    wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://sts.example.com")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refuse = b"HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n"
    once = impasto.Retry(attempts=1)
    async with proxying(refuse=refuse) as proxy, impasto.Client(proxy=proxy.url, retry=once) as client:
        with pytest.raises(impasto.NotSent):
            await client.run(GENERATOR, prompt="p")
    assert proxy.tunnels == ["sts.example.com:443"]
    assert wire.requests == []


async def test_an_explicit_ca_is_trusted_for_sts_too(
    wire: Recorder, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(ROLE)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    answer = in_xml(IN_AN_HOUR)
    async with serving(Server(posts=[http(200, answer.body, **answer.headers)]), tls=context) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        assert signer(await called(wire, ssl=tmp_path / "ca.pem")) == "ASIAROLE"
        assert len(sts.paid) == 1


async def test_a_refused_role_is_reported(wire: Recorder, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>base-secret</Message></Error></ErrorResponse>"
    wire.answer = lambda request: Answer(status=403, headers={"content-type": "text/xml"}, body=body)
    assert await error_text() == "can't get AWS credentials: AssumeRole was refused (AccessDenied)"
