"""Pictures kept in S3: uploads and downloads that its own rules check, over real sockets."""

from __future__ import annotations

import base64
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import trustme

from impasto import ConfigError, MissingExtra
from impasto_plugins import transports
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.model import S3Config
from impasto_plugins.gateway.storage.s3 import S3Store
from impasto_plugins.transports import s3 as s3_module
from impasto_plugins.transports.s3 import S3Clients
from tests.images import padded
from tests.plugins.gateway.conftest import Answer, Running, Start, config
from tests.reliability.servers import PICTURE_HEADERS, head, raw, serving
from tests.s3 import SECRETS, FakeS3, pretending


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    monkeypatch.setattr(s3_module, "_PAUSE", 0.01)
    async with pretending() as fake:
        yield fake


def kept_in(s3: FakeS3, more: str = "", secret: str = SECRETS["AKIATEST"]) -> str:
    keys = f"aws_region_name: eu-central-1, aws_access_key_id: AKIATEST, aws_secret_access_key: {secret}"
    return f"files:\n  s3: {{bucket: pictures, endpoint_url: '{s3.url}', {keys}{more}}}\n"


@pytest.fixture
async def gateway(start: Start, impasto_emulator: Emulator, s3: FakeS3) -> Running:
    return await start(config(impasto_emulator.url, more=kept_in(s3, ", prefix: made/here/")))


async def fetched(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as anyone, anyone.get(url) as answer:
        return answer.status, await answer.read()


async def test_a_picture_goes_up_and_is_shown(gateway: Running, s3: FakeS3) -> None:
    response = await gateway.sdk.images.generate(model="sd3", prompt="p", n=2, response_format="url")
    urls = [each.url or "" for each in response.data or []]
    assert len(set(urls)) == 2
    for url in urls:
        assert url.startswith(f"{s3.url}/pictures/made/here/")
        assert SECRETS["AKIATEST"] not in url
        status, data = await fetched(url)
        assert (status, data[:4], data[-8:-4]) == (200, b"\x89PNG", b"IEND")
        assert s3.stored[url.removeprefix(s3.url).partition("?")[0]] == (data, "image/png")
        assert (await fetched(url.replace("made/here", "other")))[0] == 403


async def test_a_repeated_request_is_shown_the_same_picture(
    gateway: Running, s3: FakeS3, impasto_emulator: Emulator
) -> None:
    async def again() -> bytes:
        payload = {"model": "sd3", "prompt": "p", "response_format": "url"}
        key = {"idempotency-key": "the same"}
        answer = await gateway.ask("POST", "/v1/images/generations", json=payload, headers=key)
        status, data = await fetched(answer.json["data"][0]["url"])
        assert status == 200
        return data

    first = await again()
    assert await again() == first
    assert len(s3.stored) == 1
    s3.stored.clear()  # as a bucket's own rules do
    assert await again() == first
    assert len(s3.stored) == 1
    assert len(impasto_emulator.charges) == 1


async def test_a_url_expires(start: Start, impasto_emulator: Emulator, s3: FakeS3) -> None:
    gateway = await start(config(impasto_emulator.url, more=kept_in(s3) + "  seconds: 90\n"))
    answer = await gateway.generate(response_format="url")
    url = answer.json["data"][0]["url"]
    s3.now = datetime.now(UTC) + timedelta(seconds=80)
    assert (await fetched(url))[0] == 200
    s3.now = datetime.now(UTC) + timedelta(seconds=100)
    assert (await fetched(url))[0] == 403


async def test_a_large_one_goes_up_from_disk(start: Start, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.calls.streamed_answers.IMAGE_BYTES", 1 << 18)
    monkeypatch.setattr("impasto_plugins.gateway.calls.streamed_answers.MAX_MEMORY_BYTES", 1 << 18)
    picture = padded(1 << 20)
    async with serving() as provider:
        provider.posts = [raw(head(200, {**PICTURE_HEADERS, "content-length": str(len(picture))}), picture)]
        gateway = await start(config(provider.url, more=kept_in(s3)))
        answer = await gateway.generate(response_format="url")
    assert (await fetched(answer.json["data"][0]["url"])) == (200, picture)


async def test_a_transient_failure_is_tried_again(gateway: Running, s3: FakeS3, impasto_emulator: Emulator) -> None:
    s3.statuses = [(409, "ConditionalRequestConflict"), (400, "RequestTimeout")]
    answer = await gateway.generate(response_format="url")
    assert (await fetched(answer.json["data"][0]["url"]))[0] == 200
    assert s3.methods[1:4] == ["PUT"] * 3, "after the check at the start"
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("failure", [503, 500, 0, (429, "SlowDown"), (409, "OperationAborted")], ids=str)
async def test_a_failure_of_the_bucket_that_passes_reaches_nobody(
    gateway: Running, s3: FakeS3, failure: int | tuple[int, str]
) -> None:
    s3.statuses = [failure]
    answer = await gateway.generate(response_format="url")
    assert answer.status == 200
    assert (await fetched(answer.json["data"][0]["url"]))[0] == 200
    assert "warnings" not in answer.json


def delivered(answer: Answer, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of a picture that could not be kept, and was delivered all the same."""
    assert answer.status == 200
    assert base64.b64decode(answer.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert "could not be stored for a URL" in answer.json["warnings"][0]
    (message,) = [record.message for record in caplog.records if record.name == "impasto.gateway"]
    assert not {"AKIATEST", SECRETS["AKIATEST"], "Signature"} & set(message.split())
    return message


async def test_a_key_that_is_refused_later_is_in_the_log(
    gateway: Running, s3: FakeS3, impasto_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    s3.statuses = [(403, "SignatureDoesNotMatch")]
    message = delivered(await gateway.generate(response_format="url"), caplog)
    assert "files.s3: the service refused the credentials or their rights (HTTP 403 SignatureDoesNotMatch)" in message
    assert s3.methods == ["GET", "PUT"]
    assert len(impasto_emulator.charges) == 1


async def test_an_s3_that_is_down(gateway: Running, s3: FakeS3, caplog: pytest.LogCaptureFixture) -> None:
    s3.statuses = [503] * 9
    message = delivered(await gateway.generate(response_format="url"), caplog)
    assert message.endswith("files.s3: HTTP 503 SlowDown")
    assert s3.methods.count("PUT") == s3_module.TRIES


async def test_an_s3_that_does_not_answer(
    gateway: Running, s3: FakeS3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "REQUEST_SECONDS", 0.1)
    s3.pause = 5
    message = delivered(await gateway.generate(response_format="url"), caplog)
    assert message.endswith("TimeoutError")


async def test_the_settings_of_the_configuration_lead_to_its_bucket() -> None:
    s3 = S3Config(
        bucket="b-1",
        prefix="p/q",
        endpoint_url="https://minio.example:9000",
        aws_region_name="eu-central-1",
        aws_access_key_id="AKIATEST",
        aws_secret_access_key=SECRETS["AKIATEST"],
    )
    async with S3Clients() as clients:
        url = urlsplit(await (await S3Store.open(s3, 90.5, clients)).url_for("image.png", "http://gateway"))
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://minio.example:9000/b-1/p/q/image.png"
    query = parse_qs(url.query)
    assert query["X-Amz-Expires"] == ["90"]
    assert query["X-Amz-Credential"][0].startswith("AKIATEST/")
    assert query["X-Amz-Credential"][0].endswith("/eu-central-1/s3/aws4_request")


async def test_region_and_keys_are_found_as_boto3_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    async with S3Clients() as clients:
        with pytest.raises(ConfigError, match=r"files\.s3: no AWS credentials"):
            await S3Store.open(S3Config(bucket="pictures"), 60, clients)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["AKIATEST"])
        store = await S3Store.open(S3Config(bucket="pictures"), 60, clients)
        url = await store.url_for("image.png", "http://gateway")
    assert url.startswith("https://pictures.s3.eu-west-1.amazonaws.com/image.png?")


def test_a_mistake_is_told_with_its_line() -> None:
    from impasto_plugins.gateway.config.loader import parse

    def problems(s3: str, more: str = "") -> str:
        with pytest.raises(ConfigError) as caught:
            parse(config("http://127.0.0.1:9", more=f"files:\n  s3: {s3}\n{more}").encode())
        return str(caught.value)

    assert "files.s3.bucket: required" in problems("{}")
    assert "files.s3.bucket: must be a bucket's name" in problems("{bucket: My_Pictures}")
    assert "files.s3.prefix: must have letters" in problems("{bucket: pictures, prefix: 'a b'}")
    assert "together" in problems("{bucket: pictures, aws_access_key_id: AKIA}")
    assert "endpoint_url: must begin" in problems("{bucket: pictures, endpoint_url: minio.example}")
    assert "give folder or s3" in problems("{bucket: pictures}", "  folder: x\n")
    assert "files.seconds: may be at most 604,800 with s3" in problems("{bucket: pictures}", "  seconds: 604801\n")
    assert "did you mean aws_region_name?" in problems("{bucket: pictures, aws_region: x}")


async def test_a_missing_extra_is_reported_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aws", "s3_client"):
        monkeypatch.delitem(sys.modules, f"impasto_plugins.transports.{name}", raising=False)
        monkeypatch.delattr(transports, name, raising=False)
    monkeypatch.setitem(sys.modules, "aiobotocore.config", None)
    async with S3Clients() as clients:
        with pytest.raises(MissingExtra, match=r"pip install 'impasto\[s3\]'"):
            await S3Store.open(S3Config(bucket="pictures"), 60, clients)


@pytest.mark.parametrize("place", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "profile"])
async def test_an_own_ca_is_found_as_boto3_finds_it(
    start: Start, impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Many companies have a proxy or a storage of their own, whose certificates nobody else knows."""
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    (tmp_path / "config").write_text(f"[default]\nca_bundle={ca_file}\n" if place == "profile" else "")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    if place != "profile":
        monkeypatch.setenv(place, str(ca_file))
    async with pretending(tls) as fake:
        gateway = await start(config(impasto_emulator.url, more=kept_in(fake)))
        answer = await gateway.generate(response_format="url")
        assert answer.status == 200, answer.body
        assert answer.json["data"][0]["url"].startswith(f"{fake.url}/pictures/"), answer.body
        assert len(fake.stored) == 1
