"""Faults of one exchange (rows F5 to F18, F22, F28 of the promise): what was sent, what is said, what is kept."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable

import aiohttp
import pytest

import impasto
from tests.reliability.conftest import CORE, JOB_MODEL, KEY, MakeClient, failure, is_unknown
from tests.reliability.servers import (
    PICTURE,
    PICTURE_HEADERS,
    ServedRequest,
    Server,
    Wire,
    accepted_job,
    head,
    http,
    in_json,
    page,
    picture,
    raw,
    refused,
    silence,
)


async def test_f5_reset_before_headers_left_is_not_sent(server: Server, client: impasto.Client) -> None:
    """A server that resets at once: whatever the moment, no more than the policy's attempts, and the evidence rules."""

    async def reset(wire: Wire) -> None:
        wire.reset()

    server.on_connect = reset
    error = await failure(client)
    assert isinstance(error, impasto.NotSent | impasto.ChargeUnknown)
    assert server.paid == []
    if isinstance(error, impasto.NotSent):
        assert (error.billed, server.connections) == ("no", 4)
    else:
        assert (error.billed, server.connections) == ("unknown", 1)


async def test_f5_reset_after_the_request_arrived(server: Server, client: impasto.Client) -> None:
    server.posts = [raw(end="reset")]
    is_unknown(await failure(client))
    assert len(server.paid) == 1


async def too_late(
    server: Server, make_client: MakeClient, came: Callable[[impasto.ChargeUnknown], bool] = lambda _: True
) -> impasto.ChargeUnknown:
    """What a call says whose time ended when its request had left: with more time where the machine is busy."""
    for timeout in (0.3, 3.0, 30.0):
        server.requests.clear()
        began = time.monotonic()
        error = await failure(make_client(server.url, timeout=timeout))
        assert timeout * 0.9 < time.monotonic() - began < timeout + 30
        if server.paid and isinstance(error, impasto.ChargeUnknown) and came(error):
            break
        assert isinstance(error, impasto.NotSent | impasto.ChargeUnknown)
    assert f"{timeout:g} s" in str(error)
    return is_unknown(error)


async def test_f6_headers_before_the_deadline(server: Server, make_client: MakeClient) -> None:
    server.posts = [raw(0.25, head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}) + PICTURE)]
    result = await make_client(server.url, timeout=60.0).run(CORE, prompt="p")
    assert result.artifacts[0].data == PICTURE
    assert len(server.paid) == 1


async def test_f6_headers_after_the_deadline(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    error = await too_late(server, make_client)
    assert len(server.paid) == 1
    assert "no result within " in str(error)


async def test_f8_slow_body_is_waited_for(server: Server, client: impasto.Client) -> None:
    quarter = len(PICTURE) // 4 + 1
    pieces = [PICTURE[i : i + quarter] for i in range(0, len(PICTURE), quarter)]
    slow = [each for piece in pieces for each in (0.05, piece)]
    server.posts = [raw(head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}), *slow)]
    result = await client.run(CORE, prompt="p")
    assert result.artifacts[0].data == PICTURE


async def test_f9_a_dribbling_body_ends_at_the_total_deadline_and_is_kept(
    server: Server, make_client: MakeClient
) -> None:
    drops = [each for byte in PICTURE[:-1] for each in (bytes([byte]), 0.02)]
    server.posts = [raw(head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}), *drops, 60.0)]
    error = await too_late(server, make_client, lambda error: len(error.raw) >= 3)
    assert len(error.raw) < len(PICTURE)
    assert PICTURE.startswith(error.raw)
    assert (error.request_id, error.status) == ("req-1", 200)
    assert len(server.paid) == 1


@pytest.mark.parametrize("most", [2**20, 4], ids=["deadline", "cap"])
async def test_the_connection_of_an_answer_that_is_not_read_to_its_end_is_closed(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    closed = asyncio.Event()

    async def endless(request: ServedRequest, wire: Wire) -> None:
        await wire.send(head(200, {"content-type": "image/png", "content-length": "99"}) + b"some of it")
        await silence(request, wire)
        closed.set()

    monkeypatch.setattr("impasto_plugins.transports.https.MAX_BYTES", most)
    server.posts = [endless]
    error = is_unknown(await failure(make_client(server.url, timeout=0.3)))
    await asyncio.wait_for(closed.wait(), 10)
    assert error.raw == b"some of it"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_f10_f12_a_truncated_body_is_unknown_and_kept(server: Server, client: impasto.Client, end: str) -> None:
    start = head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))})
    server.posts = [raw(start + PICTURE[:50], 0.05, end=end)]
    error = is_unknown(await failure(client))
    assert error.raw == PICTURE[:50]
    assert (error.request_id, error.status) == ("req-1", 200)
    assert len(server.paid) == 1


async def test_f10_truncated_chunked_body(server: Server, client: impasto.Client) -> None:
    start = head(200, {**PICTURE_HEADERS, "transfer-encoding": "chunked"})
    server.posts = [raw(start + b"20\r\n" + PICTURE[:32] + b"\r\n", 0.05, end="close")]
    assert is_unknown(await failure(client)).raw == PICTURE[:32]


async def test_f10_a_close_delimited_picture_cut_short_is_found_out(server: Server, client: impasto.Client) -> None:
    server.posts = [raw(head(200, {**PICTURE_HEADERS, "connection": "close"}) + PICTURE[:-9], end="close")]
    error = await failure(client)
    assert isinstance(error, impasto.UnusableResult)
    assert (error.billed, error.retryable, error.raw) == ("yes", False, PICTURE[:-9])
    assert error.request_id == "req-1"


async def test_a_whole_close_delimited_picture_is_delivered(server: Server, client: impasto.Client) -> None:
    server.posts = [raw(head(200, {**PICTURE_HEADERS, "connection": "close"}) + PICTURE, end="close")]
    assert (await client.run(CORE, prompt="p")).artifacts[0].data == PICTURE


@pytest.mark.parametrize("body", [b"{not json", b"[]", b"null", b"[" * 100_000, b'{"image": "%%%"}', b'{"image": 5}'])
async def test_f15_malformed_json_is_unusable_and_kept(server: Server, client: impasto.Client, body: bytes) -> None:
    server.posts = [http(200, body, content_type="application/json", x_request_id="req-1")]
    error = await failure(client)
    assert isinstance(error, impasto.UnusableResult)
    assert (error.billed, error.retryable, error.raw, error.request_id) == ("yes", False, body, "req-1")
    assert len(server.paid) == 1


async def test_f15_no_picture_in_a_picture_answer(server: Server, client: impasto.Client) -> None:
    for body in (b"", b"no picture", PICTURE[:40]):
        server.posts = [http(200, body, content_type="image/png")]
        error = await failure(client)
        assert isinstance(error, impasto.UnusableResult)
        assert error.raw == body


@pytest.mark.parametrize("status", [200, 502])
async def test_f18_a_page_is_no_answer_and_is_not_echoed(server: Server, client: impasto.Client, status: int) -> None:
    server.posts = [page(status)]
    error = is_unknown(await failure(client))
    assert "secret" not in str(error) + repr(error)
    assert error.raw == b"<html>secret page</html>"
    assert error.status == status
    assert len(server.paid) == 1


@pytest.mark.parametrize(
    "status", [204, 206, 300, 301, 302, 303, 307, 308, 408, 418, 424, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529]
)
async def test_f22_a_status_that_is_not_the_providers_own_is_unknown(
    server: Server, client: impasto.Client, status: int
) -> None:
    location = {"location": f"{server.url}/elsewhere"} if status // 100 == 3 else {}
    body = b"" if status == 204 else b"<html/>"
    server.posts = [http(status, body, content_type="text/html", x_request_id="req-1", **location)]
    error = is_unknown(await failure(client))
    assert (error.status, error.request_id) == (status, "req-1")
    assert len(server.requests) == 1


async def test_f22_the_providers_shape_under_a_proxys_status(server: Server, client: impasto.Client) -> None:
    for status in (408, 502, 504, 529):
        server.posts = [refused(status, "bad_gateway")]
        is_unknown(await failure(client))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, impasto.BadRequest),
        (401, impasto.Unauthorized),
        (402, impasto.PaymentRequired),
        (403, impasto.PermissionDenied),
        (404, impasto.NotFound),
        (413, impasto.TooLarge),
        (422, impasto.Unprocessable),
    ],
)
async def test_a_refusal_is_final_and_free(
    server: Server, client: impasto.Client, status: int, kind: type[impasto.ResponseError]
) -> None:
    server.posts = [refused(status, "some_name", message="some reason", x_request_id="req-9")]
    error = await failure(client)
    assert type(error) is kind
    assert isinstance(error, impasto.ResponseError)
    assert (error.billed, error.retryable, error.request_id, error.status) == ("no", False, "req-9", status)
    assert error.name == "some_name"
    assert len(server.paid) == 1


async def test_f28_moderation_is_free_and_final(server: Server, client: impasto.Client) -> None:
    server.posts = [refused(403, "content_moderation", message="flagged")]
    error = await failure(client)
    assert isinstance(error, impasto.ContentFiltered)
    assert (error.billed, error.retryable, error.artifacts) == ("no", False, ())
    assert len(server.paid) == 1


async def test_f28_a_filtered_picture_is_kept(server: Server, client: impasto.Client) -> None:
    server.posts = [picture(**{"finish-reason": "CONTENT_FILTERED"})]
    error = await failure(client)
    assert isinstance(error, impasto.ContentFiltered)
    assert (error.billed, error.retryable, error.request_id) == ("unknown", False, "req-1")
    assert [artifact.data for artifact in error.artifacts] == [PICTURE]
    assert len(server.paid) == 1


async def test_a_compressed_answer_is_delivered_though_none_was_asked_for(
    server: Server, client: impasto.Client
) -> None:
    packed = gzip.compress(PICTURE)
    server.posts = [http(200, packed, content_type="image/png", content_encoding="gzip")]
    result = await client.run(CORE, prompt="p")
    assert server.paid[0].header("accept-encoding") == "identity"
    assert result.artifacts[0].data == PICTURE


@pytest.mark.parametrize("attributes", ["", "; Path=/", "; Domain=localhost; Path=/", "; Max-Age=9999; HttpOnly"])
async def test_cookies_are_neither_kept_nor_sent(server: Server, make_client: MakeClient, attributes: str) -> None:
    """At a host with a name, as no client keeps cookies of a bare address."""
    url = server.url.replace("127.0.0.1", "localhost")
    server.posts = [picture(**{"set-cookie": f"track=1{attributes}"}), accepted_job(), picture()]
    server.polls = [picture(**{"set-cookie": "poll=1"})]
    client = make_client(url)
    await client.run(CORE, prompt="p")
    await client.run(JOB_MODEL, prompt="p", image=PICTURE)
    await client.run(CORE, prompt="p")
    assert [request.header("cookie") for request in server.requests] == [None] * 4
    async with aiohttp.ClientSession() as session:  # the server does set them
        server.posts = [picture(**{"set-cookie": f"track=1{attributes}"})]
        for _ in range(2):
            async with session.post(f"{url}/v2beta/stable-image/generate/core", data=b"x"):
                pass
    assert server.requests[-1].header("cookie") == "track=1"


async def test_informational_answers_are_passed_over(server: Server, client: impasto.Client) -> None:
    start = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    server.posts = [raw(start + head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}) + PICTURE)]
    assert (await client.run(CORE, prompt="p")).artifacts[0].data == PICTURE


async def test_headers_that_are_not_utf8_are_text_that_can_be_written(server: Server, client: impasto.Client) -> None:
    server.posts = [picture(**{"x-request-id": "r\xe9q", "finish-reason": "\xc3\xbc\xe9"})]
    result = await client.run(CORE, prompt="p")
    assert (result.request_id, result.artifacts[0].finish_reason) == ("r\ufffdq", "\xfc\ufffd")
    assert str(result).encode()


async def test_an_answer_has_a_cap(server: Server, client: impasto.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto_plugins.transports.https.MAX_BYTES", 100_000)
    server.posts = [http(200, bytes(300_000), content_type="image/png")]
    error = is_unknown(await failure(client))
    assert "larger than 100,000 bytes" in str(error)
    assert 0 < len(error.raw) <= 300_000
    server.posts = [picture()]
    await client.run(CORE, prompt="p")
    assert server.paid[1].connection != server.paid[0].connection


@pytest.mark.parametrize("model", [CORE, JOB_MODEL])
async def test_an_early_refusal_of_a_large_upload_is_read(server: Server, client: impasto.Client, model: str) -> None:
    """413 before the body was read: the refusal arrives, not a broken pipe."""
    from tests.images import padded

    async def early(request: ServedRequest, wire: Wire) -> None:
        body = json.dumps({"id": "e", "name": "payload_too_large", "errors": ["too large"]}).encode()
        await wire.send(head(413, {"content-type": "application/json", "content-length": str(len(body))}) + body)
        await asyncio.sleep(0.05)
        while await wire.reader.read(2**20):
            pass
        wire.close()

    server.reads_bodies = False
    server.posts = [early]
    params: dict[str, object] = {"image": padded(9 * 2**20)} if model == JOB_MODEL else {}
    with pytest.raises(impasto.TooLarge) as caught:
        await client.run(model, prompt="p", **params)  # type: ignore[arg-type]
    assert caught.value.billed == "no"
    assert len(server.paid) == 1


async def test_a_job_that_is_accepted_at_once_is_done_without_a_poll(server: Server, client: impasto.Client) -> None:
    """A picture where an id was expected is delivered, not polled for."""
    server.posts = [picture()]
    result = await client.run(JOB_MODEL, prompt="p", image=PICTURE)
    assert result.artifacts[0].data == PICTURE
    assert server.polled == []


@pytest.mark.parametrize("job", ["../../v1/user/account", "", "é" * 64, "a" * 300, 5, None, "a b", "a\r\nb", "a?b"])
async def test_b61_an_id_that_is_none_is_kept_and_not_asked_for(
    server: Server, client: impasto.Client, job: object
) -> None:
    server.posts = [in_json({"id": job})]
    error = await failure(client, JOB_MODEL)
    assert isinstance(error, impasto.UnusableResult)
    assert json.loads(error.raw) == {"id": job}
    assert server.polled == []


async def test_the_key_goes_out_once_and_as_given(server: Server, client: impasto.Client) -> None:
    server.posts = [accepted_job()]
    await client.run(JOB_MODEL, prompt="p", image=PICTURE)
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {KEY}"] * 2
