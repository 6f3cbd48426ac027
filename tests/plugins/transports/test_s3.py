"""Objects of an S3 bucket: tries, pauses, addresses, owners, checksums, cancellations. Over real sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from impasto import ConfigError, File
from impasto_plugins.transports import s3
from impasto_plugins.transports.s3 import NotStored, S3Clients
from tests.s3 import BUCKET, SECRETS, FakeS3, pretending
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


ACCOUNT = {
    "region": "us-west-2",
    "access_key_id": "AKIATEST",
    "secret_access_key": SECRETS["AKIATEST"],
}


@asynccontextmanager
async def open_objects(endpoint: str | None = None, prefix: str = "", **account: str) -> AsyncIterator[s3.Objects]:
    async with S3Clients() as clients:
        yield await s3.Objects.open(BUCKET, prefix, {**ACCOUNT, "endpoint": endpoint, **account}, clients)


async def on_disk(path: Path) -> File:
    return await asyncio.to_thread(File.of, path)


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    monkeypatch.setattr(s3, "_PAUSE", 0.001)
    async with pretending() as fake:
        yield fake


@pytest.mark.parametrize(
    ("bucket", "prefix", "region", "endpoint", "address"),
    [
        ("own", "", "us-west-2", None, "https://own.s3.us-west-2.amazonaws.com/"),
        ("own", "/a/b c/", "us-west-2", None, "https://own.s3.us-west-2.amazonaws.com/a/b%20c/"),
        ("own", "a", "cn-north-1", None, "https://own.s3.cn-north-1.amazonaws.com.cn/a/"),
        ("own.dots", "a", "us-west-2", None, "https://s3.us-west-2.amazonaws.com/own.dots/a/"),
        ("own", "", "us-east-1", None, "https://own.s3.amazonaws.com/"),
        ("own", "a", "us-west-2", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/own/a/"),
        ("own", "a", "us-west-2", "http://minio:9000", "http://minio:9000/own/a/"),
        ("own", "/", "us-west-2", "https://storage.example/s3", "https://storage.example/s3/own/"),
    ],
)
async def test_the_address_of_a_bucket(
    bucket: str, prefix: str, region: str, endpoint: str | None, address: str
) -> None:
    """Amazon's buckets have hosts of their own, in their region; no certificate covers one with a dot."""
    async with S3Clients() as clients:
        account = {**ACCOUNT, "region": region, "endpoint": endpoint}
        objects = await s3.Objects.open(bucket, prefix, account, clients)
        assert (await objects.presign("image.png", 60)).startswith(f"{address}image.png?X-Amz-Algorithm=AWS4-HMAC")


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("endpoint_url = http://minio:9000\nregion = eu-west-3", "http://minio:9000/pictures/image.png"),
        ("services = local\n[services local]\ns3 =\n  endpoint_url = http://l:1", "http://l:1/pictures/image.png"),
        ("region = eu-west-3", "https://pictures.s3.eu-west-3.amazonaws.com/image.png"),
        (
            "region = eu-west-3\ns3 =\n  addressing_style = path",
            "https://s3.eu-west-3.amazonaws.com/pictures/image.png",
        ),
        (
            "region = eu-west-3\ns3 =\n  use_dualstack_endpoint = true",
            "https://pictures.s3.dualstack.eu-west-3.amazonaws.com/image.png",
        ),
    ],
    ids=["endpoint", "service", "region", "path style", "dual stack"],
)
async def test_a_profile_has_the_settings_that_it_has_for_boto3(
    lines: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        f"[profile studio]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n{lines}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with S3Clients() as clients:
        objects = await s3.Objects.open(BUCKET, "", {"profile": "studio"}, clients)
        url = await objects.presign("image.png", 60)
    assert url.startswith(f"{address}?")
    assert "AKIATEST" in url


async def test_credentials_that_can_not_be_fetched_are_reported_as_a_bucket_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_port: int
) -> None:
    """Before any image is paid for that would go there."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{unused_port}/keys")
    async with S3Clients() as clients:
        with pytest.raises(ConfigError, match="can't get AWS credentials"):
            await s3.Objects.open("bucket", "", {}, clients)


async def test_an_endpoint_that_is_not_a_url_is_reported_as_a_bucket_is_opened() -> None:
    with pytest.raises(ConfigError, match="the AWS endpoint is not a URL"):
        async with open_objects("no url"):
            pass


async def test_an_object_that_nobody_answers_for_does_not_exist(unused_port: int) -> None:
    async with open_objects(f"http://127.0.0.1:{unused_port}") as objects:
        assert await objects.exists("image.png") is False


async def test_an_object_is_what_was_uploaded(fake: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(large := bytes(range(256)) * 4000)
    async with open_objects(fake.url, "a/b") as objects:
        assert await objects.exists("small é~(1).png") is False
        assert await objects.put("small é~(1).png", File.of(b"small"), "image/png") is True
        assert await objects.put("large.png", await on_disk(tmp_path / "large"), "image/png") is True
        assert await objects.exists("small é~(1).png") is True
        assert await objects.get("large.png") == large
        assert await objects.get("other.png") is None
    assert fake.objects("a/b/") == {"small é~(1).png": b"small", "large.png": large}
    assert fake.stored["/pictures/a/b/large.png"][1] == "image/png"


async def test_an_upload_has_a_checksum_unless_the_user_wants_none(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    for content in (File.of(b"small"), await on_disk(tmp_path / "file")):
        async with open_objects(fake.url) as objects:
            await objects.put("a", content, "image/png")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        async with open_objects(fake.url) as objects:
            await objects.put("a", content, "image/png")
        monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    assert fake.checksums == ["header", "nowhere"] * 2


async def test_an_upload_over_tls_has_its_checksum_at_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read once then, while it is sent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    (tmp_path / "file").write_bytes(large := bytes(range(256)) * 4000)
    async with pretending(tls) as fake, open_objects(fake.url) as objects:
        await objects.put("a", File.of(b"small"), "image/png", only_new=True)
        await objects.put("b", await on_disk(tmp_path / "file"), "image/png")
        assert fake.objects() == {"a": b"small", "b": large}
        assert fake.checksums == ["trailer"] * 2


@pytest.mark.parametrize("failure", ["reset", "time-out"])
async def test_an_upload_whose_answer_is_lost_owns_its_object(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """The next try is answered 412: the name exists, by the first try."""
    if failure == "reset":
        fake.loses_answers = 1
    else:
        fake.delays_answers = 1
        monkeypatch.setattr(s3, "REQUEST_SECONDS", 1.0)
    async with open_objects(fake.url) as objects:
        assert await objects.put("a", File.of(b"ours"), "image/png", only_new=True) is True
        assert fake.methods == ["PUT", "PUT", "HEAD"]
        assert await objects.put("a", File.of(b"ours"), "image/png", only_new=True) is False
    assert fake.objects() == {"a": b"ours"}


async def test_an_object_of_somebody_else_is_left_also_if_an_answer_is_lost(fake: FakeS3) -> None:
    fake.stored["/pictures/a"], fake.metadata["/pictures/a"] = (b"theirs", "image/png"), {}
    fake.statuses = [0, (409, "ConditionalRequestConflict"), (503, "SlowDown")]
    async with open_objects(fake.url) as objects:
        assert await objects.put("a", File.of(b"ours"), "image/png", only_new=True, tries=4) is False
    assert fake.objects() == {"a": b"theirs"}


async def test_an_upload_that_is_cancelled_ends_and_others_do_not(fake: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    async with open_objects(fake.url) as objects:
        fake.pause = 60
        upload = asyncio.create_task(objects.put("a", await on_disk(tmp_path / "file"), "image/png"))
        while not fake.methods:
            await asyncio.sleep(0.01)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        fake.pause = 0
        assert await objects.put("b", File.of(b"other"), "image/png") is True
    assert fake.objects() == {"b": b"other"}


async def test_clients_that_are_closed_during_an_upload_end_it(fake: FakeS3) -> None:
    fake.pause = 60
    async with open_objects(fake.url) as objects:
        upload = asyncio.create_task(objects.put("a", File.of(b"a"), "image/png"))
        while not fake.methods:
            await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await upload


async def test_a_file_that_changed_is_not_uploaded(fake: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    content = await on_disk(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"afterwards")
    async with open_objects(fake.url) as objects:
        with pytest.raises(NotStored, match="ValueError"):
            await objects.put("a", content, "image/png")
    assert fake.methods == []


async def test_no_signature_is_logged(fake: FakeS3, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_objects(fake.url) as objects:
        assert await objects.put("a", File.of(b"a"), "image/png") is True
        await objects.presign("a", 60)
    assert {record.name for record in caplog.records} <= {"asyncio", "aiohttp.access"}
    assert "Signature" not in caplog.text


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, fake: FakeS3) -> None:
    monkeypatch.setenv("http_proxy", fake.url)
    async with open_objects("http://minio.example:9000") as objects:
        assert await objects.put("a", File.of(b"a"), "image/png") is True
    assert fake.objects() == {"a": b"a"}
