"""Jobs that are polled for (rows F25 to F27, F60 of the promise) and taken up again."""

from __future__ import annotations

import itertools
import time

import pytest

import impasto
from tests.reliability.conftest import JOB_MODEL, KEY, MakeClient
from tests.reliability.servers import (
    JOB,
    PICTURE,
    Answer,
    ServedRequest,
    Server,
    Wire,
    accepted_job,
    http,
    in_json,
    page,
    pending,
    picture,
    raw,
    refused,
    silence,
)


async def run(client: impasto.Client) -> impasto.Result:
    return await client.run(JOB_MODEL, prompt="p", image=PICTURE)


async def failure(client: impasto.Client) -> impasto.ImpastoError:
    with pytest.raises(impasto.ImpastoError) as caught:
        await run(client)
    assert caught.value.id == JOB
    assert not caught.value.retryable
    return caught.value


async def test_a_job_is_polled_to_its_end(server: Server, make_client: MakeClient) -> None:
    server.posts, server.polls = [accepted_job()], [pending(), pending(), picture()]
    result = await run(make_client(server.url, poll_interval=0.05))
    assert result.artifacts[0].data == PICTURE
    assert [request.path for request in server.polled] == [f"/v2beta/results/{JOB}"] * 3
    times = [request.at for request in server.requests]
    assert all(later - sooner >= 0.049 for sooner, later in itertools.pairwise(times))


async def test_f25_a_job_that_never_ends_ends_at_the_deadline(server: Server, make_client: MakeClient) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    began = time.monotonic()
    error = await failure(make_client(server.url, timeout=0.4, poll_interval=0.1))
    assert time.monotonic() - began < 20
    assert isinstance(error, impasto.ChargeUnknown)
    assert (error.billed, error.raw) == ("unknown", b"")
    assert "client.resume" in str(error)
    assert len(server.paid) == 1
    assert 1 <= len(server.polled) <= 3


async def test_f26_a_result_that_is_gone_early_is_unknown(server: Server, client: impasto.Client) -> None:
    server.posts, server.polls = [accepted_job()], [pending(), refused(404, "generation_not_found")]
    error = await failure(client)
    assert isinstance(error, impasto.ChargeUnknown)
    assert len(server.paid) == 1


async def test_f26_a_result_that_is_gone_late_has_expired(
    server: Server, client: impasto.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.stability.direct.RESULT_SECONDS", 0.03)
    server.posts, server.polls = [accepted_job()], [pending(), pending(), refused(404, "generation_not_found")]
    error = await failure(client)
    assert isinstance(error, impasto.PollExpired)
    assert error.billed == "unknown"


async def test_f26_another_keys_job_is_not_found(server: Server, client: impasto.Client) -> None:
    server.polls = [refused(404, "generation_not_found", x_request_id="req-4")]
    with pytest.raises(impasto.NotFound, match="another key") as caught:
        await client.resume(JOB_MODEL, JOB)
    error = caught.value
    assert (error.billed, error.retryable, error.id, error.request_id) == ("unknown", False, JOB, "req-4")
    assert (len(server.paid), len(server.polled)) == (0, 1)


FAULTS: dict[str, Answer] = {
    "500": refused(500, "internal_error"),
    "page 500": page(500),
    "page 200": page(200),
    "page 404": page(404),
    "502": page(502),
    "redirect": http(302, location="http://127.0.0.1:9/"),
    "reset": raw(end="reset"),
    "closed": raw(end="close"),
    "cut": raw(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 999\r\n\r\n" + PICTURE[:9], end="close"),
    "cut without a length": raw(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n" + PICTURE[:9], end="close"),
    "nonsense": raw(b"nonsense\r\n\r\n", end="close"),
    "damaged json": http(200, b"{", content_type="application/json"),
    "429": refused(429, "rate_limit_exceeded", retry_after="0.01"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_f27_a_poll_that_fails_is_followed_by_another(server: Server, client: impasto.Client, fault: str) -> None:
    server.posts, server.polls = [accepted_job()], [FAULTS[fault], FAULTS[fault], pending(), picture()]
    assert (await run(client)).artifacts[0].data == PICTURE
    assert len(server.paid) == 1
    assert 4 <= len(server.polled) <= 6  # aiohttp itself repeats a GET on a connection that was closed


async def goes_on_and_is_silent(request: ServedRequest, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await silence(request, wire)


@pytest.mark.parametrize("hangs", [silence, goes_on_and_is_silent])
async def test_f27_a_poll_that_hangs_is_given_up_and_repeated(
    server: Server, client: impasto.Client, monkeypatch: pytest.MonkeyPatch, hangs: Answer
) -> None:
    monkeypatch.setattr("impasto_plugins.transports.https.POLL_SECONDS", 0.1)
    server.posts, server.polls = [accepted_job()], [hangs, picture()]
    assert (await run(client)).artifacts[0].data == PICTURE
    assert (len(server.paid), len(server.polled)) == (1, 2)


async def test_a_damaged_result_is_fetched_again_and_then_kept(server: Server, client: impasto.Client) -> None:
    server.posts, server.polls = (
        [accepted_job()],
        [http(200, b"broken", content_type="image/png", x_request_id="req-6")],
    )
    error = await failure(client)
    assert isinstance(error, impasto.UnusableResult)
    assert (error.billed, error.raw, error.request_id) == ("yes", b"broken", "req-6")
    assert (len(server.paid), len(server.polled)) == (1, 3)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 422])
async def test_a_poll_that_is_refused_says_that_the_job_may_have_been_charged(
    server: Server, client: impasto.Client, status: int
) -> None:
    server.posts, server.polls = [accepted_job()], [refused(status, "no")]
    error = await failure(client)
    assert isinstance(error, impasto.ResponseError)
    assert (error.billed, error.status) == ("unknown", status)
    assert (len(server.paid), len(server.polled)) == (1, 1)


async def test_a_filtered_result_keeps_its_picture(server: Server, client: impasto.Client) -> None:
    server.posts, server.polls = [accepted_job()], [picture(**{"finish-reason": "CONTENT_FILTERED"})]
    error = await failure(client)
    assert isinstance(error, impasto.ContentFiltered)
    assert [artifact.data for artifact in error.artifacts] == [PICTURE]
    assert error.billed == "unknown"


async def test_f60_polls_keep_the_key_that_started_the_job(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", "sk-old-0123456789")

    async def rotate(request: ServedRequest, wire: Wire) -> None:
        monkeypatch.setenv("STABILITY_API_KEY", "sk-new-0123456789")
        await accepted_job()(request, wire)

    server.posts, server.polls = [rotate], [pending(), picture()]
    await run(make_client(server.url, api_key=None))
    assert {request.header("authorization") for request in server.requests} == {"Bearer sk-old-0123456789"}


async def test_resume_fetches_without_paying(server: Server, client: impasto.Client) -> None:
    server.polls = [pending(), picture()]
    result = await client.resume(JOB_MODEL, JOB)
    assert result.artifacts[0].data == PICTURE
    assert result.cost is None
    assert (len(server.paid), len(server.polled)) == (0, 2)


@pytest.mark.parametrize("job", ["", "a" * 63, "a" * 65, "../" + "a" * 61, "é" * 64, "a" * 63 + "\n", "a" * 63 + "?"])
async def test_b61_an_id_that_can_not_be_is_refused(server: Server, client: impasto.Client, job: str) -> None:
    with pytest.raises(impasto.InvalidRequest, match="id"):
        await client.resume(JOB_MODEL, job)
    assert server.connections == 0


async def test_a_202_where_no_job_can_be_is_unknown(server: Server, client: impasto.Client) -> None:
    server.posts = [pending()]
    with pytest.raises(impasto.ChargeUnknown):
        await client.run("stability/stable-image-core", prompt="p")


async def test_the_job_may_be_accepted_with_202(server: Server, client: impasto.Client) -> None:
    server.posts = [in_json({"id": JOB}, 202)]
    assert (await run(client)).artifacts[0].data == PICTURE


async def test_the_vendors_own_host_is_polled_no_faster_than_it_allows() -> None:
    async with impasto.Client(api_key=KEY, poll_interval=9.9) as client:
        with pytest.raises(impasto.ConfigError, match="poll_interval"):
            await client.resume(JOB_MODEL, JOB)
