"""Bedrock's exchange over real sockets: one POST a call whatever fails, proofs, cancellation, proxies, uploads."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import ssl
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import trustme

import impasto
from tests.bedrock import ACCESS_KEY, REQUEST_ID, pictured
from tests.images import padded, png
from tests.plugins.transports.bedrock.wire import BODY, ERASE, GENERATOR, GOOD, HEADERS, MakeClient, coded, failure
from tests.recorder import Recorder
from tests.reliability.servers import Answer, ServedRequest, Server, Wire, head, http, raw, serving, silence
from tests.reliability.test_proxies import proxying

# one POST a call


@pytest.fixture(params=["as it is", "AWS_MAX_ATTEMPTS", "adaptive"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's own retries can't be brought back."""
    if request.param != "as it is":
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
        monkeypatch.setenv("AWS_RETRY_MODE", "adaptive" if request.param == "adaptive" else "legacy")


CUT = head(200, {**HEADERS, "content-length": str(len(BODY))}) + BODY[:60]
AMBIGUOUS: dict[str, Answer] = {
    "reset": raw(end="reset"),
    "closed without an answer": raw(end="close"),
    "reset in the body": raw(CUT, 0.02, end="reset"),
    "cut in the body": raw(CUT, end="close"),
    "408": coded(408, "ModelTimeoutException"),
    "408 without a code": http(408, b"{}", **HEADERS),
    "424": coded(424, "ModelErrorException"),
    "429 without a code": http(429, b'{"message":"slow"}', **HEADERS),
    "500 without a code": http(500, b'{"message":"no"}', **HEADERS),
    "502 page": http(502, b"<html>", content_type="text/html"),
    "503 page": http(503, b"<html>", content_type="text/html"),
    "504": http(504, b"", **HEADERS),
    "529": coded(529, "overloaded_error"),
    "302": http(302, b"", location="/elsewhere"),
    "307": http(307, b"", location="/elsewhere"),
    "not HTTP": raw(b"SSH-2.0-x\r\n\r\n", end="close"),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}", end="close"),
}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_one_request_is_sent_for_any_answer(server: Server, client: impasto.Client, name: str) -> None:
    server.posts = [AMBIGUOUS[name]]
    error = await failure(client)
    assert type(error) is impasto.ChargeUnknown
    assert (error.billed, error.retryable) == ("unknown", False)
    assert len(server.paid) == 1


@pytest.mark.usefixtures("environment")
async def test_one_request_is_sent_if_no_answer_comes(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    error = await failure(make_client(server.url, timeout=0.3))
    assert type(error) is impasto.ChargeUnknown
    assert "no result within 0.3 s" in error.message
    assert len(server.paid) == 1


async def test_one_request_is_sent_if_the_body_stalls(server: Server, make_client: MakeClient) -> None:
    server.posts = [raw(CUT, 10.0)]
    error = await failure(make_client(server.url, timeout=0.3))
    assert isinstance(error, impasto.ChargeUnknown)
    assert error.raw == BODY[:60]
    assert (error.request_id, len(server.paid)) == (REQUEST_ID, 1)


async def test_the_bytes_of_a_truncated_body_are_in_the_error(server: Server, client: impasto.Client) -> None:
    server.posts = [AMBIGUOUS["cut in the body"]]
    error = await failure(client)
    assert isinstance(error, impasto.ChargeUnknown)
    assert (error.raw, error.request_id) == (BODY[:60], REQUEST_ID)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "InternalServerException"), (503, "ServiceUnavailableException")],
)
async def test_a_fault_with_a_code_is_sent_at_most_three_times(
    server: Server, client: impasto.Client, status: int, code: str
) -> None:
    server.posts = [coded(status, code)]
    error = await failure(client)
    assert type(error) is impasto.ProviderFault
    assert (error.billed, len(server.paid)) == ("no", 3)
    server.requests.clear()
    server.posts = [coded(status, code), GOOD]
    assert (await client.run(GENERATOR, prompt="p")).artifacts
    assert len(server.paid) == 2


async def test_each_attempt_is_signed_again_and_has_the_whole_body(server: Server, client: impasto.Client) -> None:
    server.posts = [coded(500, "InternalServerException"), GOOD]
    await client.run(ERASE, image=padded(300_000))
    first, second = server.paid
    assert first.body == second.body
    assert base64.b64decode(json.loads(second.body)["image"]) == padded(300_000)


# what is proved not to have left


async def test_nothing_is_sent_to_a_closed_port(make_client: MakeClient, unused_port: int) -> None:
    error = await failure(make_client(f"http://127.0.0.1:{unused_port}"))
    assert type(error) is impasto.NotSent
    assert (error.billed, error.retryable) == ("no", True)


async def test_nothing_is_sent_to_an_unknown_host(make_client: MakeClient) -> None:
    error = await failure(make_client("https://bedrock.invalid", retry=impasto.Retry(attempts=1)))
    assert type(error) is impasto.NotSent


async def test_a_port_that_opens_later_is_retried(make_client: MakeClient, unused_port: int) -> None:
    client = make_client(f"http://127.0.0.1:{unused_port}", retry=impasto.Retry(base=0.2, attempts=20))
    call = asyncio.ensure_future(client.run(GENERATOR, prompt="p"))
    await asyncio.sleep(0.05)
    async with serving(Server(posts=[GOOD], port=unused_port)) as server:
        assert (await call).artifacts
        assert len(server.paid) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_nothing_is_sent_if_the_certificate_is_unknown(make_client: MakeClient, authority: trustme.CA) -> None:
    async with serving(Server(posts=[GOOD]), tls=tls(authority)) as server:
        error = await failure(make_client(server.url))
        assert type(error) is impasto.NotSent
        assert (error.retryable, server.paid, bytes(server.received)) == (False, [], b"")


async def test_an_own_ca_is_trusted_from_an_argument_or_the_environment(
    make_client: MakeClient, authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(Server(posts=[GOOD]), tls=tls(authority)) as server:
        assert (await make_client(server.url, ssl=str(ca_file)).run(GENERATOR, prompt="p")).artifacts
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_file))
        assert (await make_client(server.url).run(GENERATOR, prompt="p")).artifacts
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_file) + ".missing")
        error = await failure(make_client(server.url))
        assert type(error) is impasto.ConfigError


async def test_an_own_ca_is_found_as_boto3_finds_it(
    make_client: MakeClient, authority: trustme.CA, ca_file: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is boto3's: AWS_CA_BUNDLE, ``ca_bundle`` of the profile, REQUESTS_CA_BUNDLE."""
    other = ca_file.with_name("other.pem")
    trustme.CA().cert_pem.write_to_path(str(other))
    async with serving(Server(posts=[GOOD]), tls=tls(authority)) as server:

        async def trusts(**settings: Any) -> bool:
            try:
                return bool((await make_client(server.url, **settings).run(GENERATOR, prompt="p")).artifacts)
            except impasto.NotSent as error:
                return "certificate" not in str(error)

        profile: dict[str, Any] = {"aws_access_key_id": None, "aws_secret_access_key": None, "aws_profile": "studio"}
        config.write_text(
            f"[default]\nca_bundle={ca_file}\n"
            f"[profile studio]\nca_bundle={other}\naws_access_key_id=a\naws_secret_access_key=s\n"
        )
        assert await trusts()
        assert not await trusts(**profile)
        client = make_client(server.url)
        assert (await client.run(GENERATOR, prompt="p")).artifacts
        with pytest.raises(impasto.NotSent, match="certificate"):
            await client.with_options(**profile).run(GENERATOR, prompt="p")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
        assert await trusts(), "the profile's goes first"
        config.write_text("")
        assert not await trusts()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
        assert await trusts()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(other))
        assert not await trusts()
        assert await trusts(ssl=str(ca_file)), "what is given goes first of all"


async def test_a_proxy_is_used_from_the_environment_or_an_argument(
    make_client: MakeClient, authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(Server(posts=[GOOD]), tls=tls(authority)) as server, proxying() as proxy:
        await make_client(server.url, ssl=str(ca_file), proxy=proxy.url).run(GENERATOR, prompt="p")
        assert proxy.tunnels == [f"localhost:{server.port}"]
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await make_client(server.url, ssl=str(ca_file)).run(GENERATOR, prompt="p")
        assert len(proxy.tunnels) == 2
        monkeypatch.setenv("NO_PROXY", "localhost")
        await make_client(server.url, ssl=str(ca_file)).run(GENERATOR, prompt="p")
        assert len(proxy.tunnels) == 2
        assert ACCESS_KEY.encode() not in proxy.received
        assert len(server.paid) == 3


# what goes out


async def test_a_request_has_exactly_the_documented_headers(recorder: Recorder, make_client: MakeClient) -> None:
    recorder.answer = lambda request: pictured()
    await make_client(recorder.url).run(ERASE, image=padded(2**21))
    [request] = recorder.requests
    names = [name.lower() for name, _ in request.headers]
    assert sorted(names) == sorted(set(names))
    assert not {"expect", "content-encoding", "transfer-encoding", "cookie", "x-amz-content-sha256"} & set(names)
    assert not [name for name in names if name.startswith("amz-sdk")]
    assert request.header("user-agent") == "impasto"
    assert request.header("accept-encoding") == "identity"
    assert request.header("content-length") == str(len(request.body))


async def test_files_of_every_kind_are_encoded_as_they_are(
    recorder: Recorder, make_client: MakeClient, tmp_path: Path
) -> None:
    recorder.answer = lambda request: pictured()
    data = padded(3 * 2**18 + 1)
    path = tmp_path / "picture.png"
    path.write_bytes(b"before" + data)
    client = make_client(recorder.url)
    with open(path, "rb") as file:
        file.seek(6)
        await client.run(ERASE, image=file, mask=("mask.png", png(64, 64)))
        assert not file.closed
    await client.run(ERASE, image="data:image/png;base64," + base64.b64encode(data).decode())
    for request in recorder.requests:
        assert base64.b64decode(json.loads(request.body)["image"], validate=True) == data


async def test_a_file_that_changed_is_refused_before_a_socket(
    recorder: Recorder, make_client: MakeClient, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(padded(5000))
    operation = await (client := make_client(recorder.url)).operation(ERASE)
    request = await asyncio.to_thread(operation.request, ERASE, {"image": path})
    path.write_bytes(padded(6000))
    with pytest.raises(impasto.InvalidRequest) as caught:
        await client.invoke(ERASE, request)
    assert [problem.field for problem in caught.value.problems] == ["image"]
    assert recorder.requests == []


async def test_an_upload_is_in_memory_once(server: Server, make_client: MakeClient, tmp_path: Path) -> None:
    """9 MiB of picture are 12 MiB of body: neither the file nor a second body is in memory."""
    path = tmp_path / "picture.png"
    path.write_bytes(padded(9 * 2**20))
    server.reads_bodies = False
    answered = asyncio.Event()

    async def discard(requested: ServedRequest, wire: Wire) -> None:
        left = int(requested.header("content-length") or 0)
        while left and (piece := await wire.reader.read(2**16)):
            left -= len(piece)
        answered.set()
        await GOOD(requested, wire)

    server.posts = [discard]
    client = make_client(server.url)
    await client.run(ERASE, image=path)
    gc.collect()
    tracemalloc.start()
    try:
        await client.run(ERASE, image=path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answered.is_set()
    assert peak < 18 * 2**20


async def test_an_answer_is_in_memory_at_most_twice(server: Server, make_client: MakeClient) -> None:
    """Its pieces and the whole when it has come, the whole and the picture when that is decoded; never all three."""
    body = memoryview(pictured(padded(9 * 2**20)).body)  # 12 MiB

    async def in_pieces(requested: ServedRequest, wire: Wire) -> None:
        await wire.send(head(200, {**HEADERS, "content-length": str(len(body))}))
        for at in range(0, len(body), 2**16):
            await wire.send(bytes(body[at : at + 2**16]))

    client = make_client(server.url)
    await client.run(GENERATOR, prompt="p")
    server.posts = [in_pieces]
    gc.collect()
    tracemalloc.start()
    try:
        await client.run(GENERATOR, prompt="p")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 27 * 2**20
