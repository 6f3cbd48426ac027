"""A provider that answers more than it may, without end or in another form: one clear error, one paid request.

What it costs this process is bounded: each test that could take memory without end runs with a limit of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
import zlib
from base64 import b64encode

import pytest

import impasto
from impasto import ChargeUnknown, UnusableResult
from tests.images import png
from tests.reliability.hostile import (
    IMAGE,
    KEY,
    MODEL,
    PICTURE,
    attacked,
    by_path,
    event,
    images,
    job,
)
from tests.reliability.servers import Answer, ServedRequest, Wire, head, http, in_json, raw
from tests.streams import chunk

PNG = {"content-type": "image/png"}
EVENTS = {"content-type": "text/event-stream"}
CHUNKED = {**PNG, "transfer-encoding": "chunked"}
LENGTH = str(len(IMAGE))


def without_end(first: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    """Send a beginning, and then the same piece until the other side has had enough."""

    async def answer(request: ServedRequest, wire: Wire) -> None:
        await wire.send(first)
        while not wire.writer.is_closing():
            await wire.send(piece)
            await asyncio.sleep(pause)

    return answer


def bomb(size: int) -> bytes:
    """Return gzip of zeros, a thousandth of their size, without its end."""
    packer = zlib.compressobj(9, wbits=31)
    first, other = (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + other * ((size >> 20) - 1)


def redirect(status: int, location: str = "/elsewhere", **headers: str) -> Answer:
    return http(status, b"", location=location, **headers)


UNKNOWN: dict[str, Answer] = {
    **{f"redirect {status}": redirect(status) for status in (300, 301, 302, 303, 307, 308)},
    "redirect to another host": redirect(307, "http://localhost:1/"),
    "redirect with an image": raw(head(302, {**PNG, "location": "/x", "content-length": LENGTH}) + IMAGE),
    "longer length": raw(head(200, {**PNG, "content-length": "999"}) + IMAGE, end="close"),
    "shorter length": raw(head(200, {**PNG, "content-length": "9"}) + IMAGE),
    "negative length": raw(head(200, {**PNG, "content-length": "-5"}) + IMAGE),
    "length of a number that no machine has": raw(head(200, {**PNG, "content-length": "9" * 40}) + IMAGE),
    "signed length": raw(head(200, {**PNG, "content-length": f"+{LENGTH}"}) + IMAGE),
    "two lengths": raw(head(200, {**PNG, "content-length": LENGTH, "Content-Length": "9"}) + IMAGE),
    "length and chunks": raw(head(200, {**CHUNKED, "content-length": LENGTH}) + chunk(IMAGE) + b"0\r\n\r\n"),
    "chunk of a negative size": raw(head(200, CHUNKED) + b"-5\r\n" + IMAGE),
    "no HTTP": raw(IMAGE, end="close"),
    "HTTP/2": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "another protocol": raw(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + IMAGE),
    "no content": raw(head(204, {})),
    "not modified": raw(head(304, {})),
    "status 999": raw(head(999, {"content-length": "0"})),
    "headers without end": without_end(b"HTTP/1.1 200 OK\r\n", b"a: " + b"b" * 4_000 + b"\r\n"),
    "header without end": without_end(b"HTTP/1.1 200 OK\r\na: ", b"b" * 65_536),
    "reason without end": without_end(b"HTTP/1.1 200 ", b"b" * 65_536),
    "trailers without end": without_end(head(200, CHUNKED) + chunk(IMAGE) + b"0\r\n", b"a: b\r\n" * 1_000),
    "free by a cut answer": raw(
        head(200, {"content-type": "application/json", "content-length": "99"}) + b'{"failed": "no"}', end="close"
    ),
    "a refusal that is cut": raw(
        head(400, {"content-type": "application/json", "content-length": "99"}) + b'{"error": {"message": "m"}}',
        end="close",
    ),
    "JSON of millions of lists": in_json([[]] * 2_000_000),
    "a refusal of millions of texts": in_json({"error": {"message": "m", "more": [""] * 2_000_000}}, 400),
    "a stream of no events": http(200, json.dumps(images()).encode(), content_type="text/event-stream"),
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_answer_that_proves_nothing_is_one_error_and_one_paid_request(name: str) -> None:
    async with attacked(UNKNOWN[name], timeout=30.0) as (client, server):
        with pytest.raises(ChargeUnknown) as caught:
            await client.run(MODEL, prompt="a kite")
        assert (caught.value.billed, caught.value.retryable) == ("unknown", False)
        assert [request.path for request in server.requests] == ["/submit"]
    assert len(str(caught.value)) < 400


SLOW: dict[str, Answer] = {
    "a length that never comes": raw(head(200, {**PNG, "content-length": "1099511627776"}) + IMAGE, 60.0),
    "a byte now and then": without_end(head(200, {**PNG, "content-length": "999999"}), b"x", 0.05),
    "a chunk's extension without end": without_end(head(200, CHUNKED) + b"5;", b"x" * 4_096),
    "100 Continue without end": without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints without end": without_end(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
    "blank lines of a stream": without_end(head(200, EVENTS), b"\n" * 65_536),
    "comments of a stream": without_end(head(200, EVENTS), b": x\n" * 8_000),
    "partial images without end": without_end(head(200, EVENTS), event({"partial": 0}) * 500),
}


@pytest.mark.parametrize("streams", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("name", SLOW)
async def test_an_answer_without_end_is_ended_by_the_deadline(name: str, streams: bool) -> None:
    async with attacked(SLOW[name], timeout=0.7) as (client, server):
        with pytest.raises(ChargeUnknown, match=r"no result within 0\.7 s; the request was sent") as caught:
            await (last_of(client) if streams else client.run(MODEL, prompt="a kite"))
        assert len(server.requests) == 1
    assert caught.value.billed == "unknown"


async def last_of(client: impasto.Client) -> impasto.Partial | impasto.Result:
    *_, last = [each async for each in client.stream(MODEL, prompt="a kite")]
    return last


LARGE: dict[str, tuple[Answer, str]] = {
    "chunks without end": (without_end(head(200, CHUNKED), chunk(bytes(2**20))), "larger than 268,435,456 bytes"),
    "a body without end": (without_end(head(200, PNG), bytes(2**20)), "larger than 268,435,456 bytes"),
    "a bomb of gzip": (
        raw(head(200, {**PNG, "content-encoding": "gzip", "connection": "close"}) + bomb(2**29), end="close"),
        "larger than 268,435,456 bytes",
    ),
    "an event without end": (without_end(head(200, EVENTS) + b"data: ", b"x" * 2**20), "larger than 67,108,864"),
    "an event's name without end": (without_end(head(200, EVENTS) + b"event: ", b"x" * 2**20), "larger than 67,108"),
    "an event of CRs": (without_end(head(200, EVENTS), b"data: " + b"x" * 2**20 + b"\r"), "larger than 67,108,864"),
}


@pytest.mark.parametrize("name", LARGE)
async def test_memory_is_bounded_whatever_comes(name: str) -> None:
    answer, message = LARGE[name]
    async with attacked(answer, timeout=60.0) as (client, server):
        await client.warm(MODEL)
        tracemalloc.start()
        try:
            with pytest.raises(ChargeUnknown, match=message):
                await client.run(MODEL, prompt="a kite")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(server.requests) == 1
    assert peak < 600 * 2**20, "an answer is held twice at most"


async def test_an_answer_with_more_images_than_any_has_is_read_no_further() -> None:
    """Each of a million invalid texts would be an error of its own."""
    answer = in_json({"images": [""] * 300_000})
    async with attacked(answer, timeout=30.0) as (client, server):
        await client.warm(MODEL)
        began = time.process_time()
        with pytest.raises(UnusableResult, match="has more than 64 images") as caught:
            await client.run(MODEL, prompt="a kite")
        assert time.process_time() - began < 1.0, "a second of the CPU for an answer of a megabyte"
        assert len(server.requests) == 1
    assert caught.value.raw.startswith(b'{"images": [')


FORMS: dict[str, tuple[Answer, bytes]] = {
    "events for a call without a stream": (http(200, event(images()), content_type="text/event-stream"), IMAGE),
    "JSON for a stream": (in_json(images()), IMAGE),
    "an image for a stream": (PICTURE, IMAGE),
    "events that end with CR": (
        http(200, event(images()).replace(b"\n", b"\r"), content_type="text/event-stream"),
        IMAGE,
    ),
    "a result and an error": (
        http(200, event(images()) + event({"failed": "no"}), content_type="text/event-stream"),
        IMAGE,
    ),
    "an error and a result": (
        http(200, event({"failed": "no"}) + event(images()), content_type="text/event-stream"),
        IMAGE,
    ),
    "an unusable event and a result": (
        http(200, b"data: {\n\n" + event(images()), content_type="text/event-stream"),
        IMAGE,
    ),
    "a result of nothing and a result": (
        http(200, event({"images": []}) + event(images()), content_type="text/event-stream"),
        IMAGE,
    ),
    "a result and events without end": (
        without_end(head(200, EVENTS) + event(images()), event({"partial": 1})),
        IMAGE,
    ),
    "results without end": (without_end(head(200, EVENTS), event(images())), IMAGE),
}


@pytest.mark.parametrize("streams", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("name", FORMS)
async def test_a_paid_image_is_not_lost_whatever_form_it_comes_in(name: str, streams: bool) -> None:
    answer, data = FORMS[name]
    async with attacked(answer, timeout=2.0) as (client, server):
        result = await (last_of(client) if streams else client.run(MODEL, prompt="a kite"))
        assert len(server.requests) == 1
    assert isinstance(result, impasto.Result)
    assert result.artifacts[-1].data == data
    assert len(result.artifacts) == (2 if name == "two results" else 1)


async def test_an_event_of_millions_of_values_is_not_parsed_and_loses_no_image_after_it() -> None:
    bomb = event([[]] * 1_200_000)
    for pieces, count in (([bomb], 0), ([bomb, event(images())], 1)):
        async with attacked(http(200, b"".join(pieces), content_type="text/event-stream"), timeout=20.0) as (client, _):
            if count:
                assert (await client.run(MODEL, prompt="a kite")).artifacts[0].data == IMAGE
                continue
            with pytest.raises(UnusableResult, match="an event of the answer has more values than are read") as caught:
                await client.run(MODEL, prompt="a kite")
            assert caught.value.raw == bomb


@pytest.mark.parametrize("streams", [False, True], ids=["run", "stream"])
async def test_two_results_are_both_delivered_and_reported(streams: bool) -> None:
    both = http(200, event(images()) + event(images(png(8, 8))), content_type="text/event-stream")
    async with attacked(both, timeout=5.0) as (client, server):
        result = await (last_of(client) if streams else client.run(MODEL, prompt="a kite"))
        assert len(server.requests) == 1
    assert isinstance(result, impasto.Result)
    assert [each.data for each in result.artifacts] == [IMAGE, png(8, 8)]
    assert "2 artifacts" in " ".join(result.warnings)


@pytest.mark.parametrize("end", [b"", event({"partial": 0})], ids=["silence", "partial images"])
async def test_an_error_event_ends_a_stream_that_stays_open(end: bytes) -> None:
    free = without_end(head(200, EVENTS) + event({"filtered": "no"}), end, 0.01)
    async with attacked(free, timeout=2.0) as (client, server):
        with pytest.raises(impasto.ContentFiltered) as caught:
            await last_of(client)
        assert len(server.requests) == 1
    assert caught.value.billed == "no"


async def test_a_loop_is_not_held_up_by_thousands_of_lines() -> None:
    late = 0.0

    async def look() -> None:
        nonlocal late
        while True:
            began = time.perf_counter()
            cpu = time.process_time()
            await asyncio.sleep(0)
            late = max(late, min(time.perf_counter() - began, time.process_time() - cpu))

    flood = without_end(head(200, EVENTS), b"\n" * 2**20)
    async with attacked(flood, timeout=1.0) as (client, _):
        await client.warm(MODEL)
        watch = asyncio.create_task(look())
        with pytest.raises(ChargeUnknown):
            await last_of(client)
        watch.cancel()
    assert late < 0.1


async def test_a_redirect_of_a_poll_or_of_a_cancel_is_not_followed() -> None:
    answers = by_path(status=redirect(302), cancel=redirect(307), elsewhere=PICTURE)
    async with attacked(job(cancel="/cancel"), answers, timeout=0.5) as (client, server):
        with pytest.raises(ChargeUnknown, match=r"job j1 could not be cancelled \(ChargeUnknown\)"):
            await client.run(MODEL, prompt="a kite")
        assert {request.path for request in server.requests} == {"/submit", "/status", "/cancel"}
        assert [request.path for request in server.requests].count("/cancel") == 1


async def test_a_refresh_header_leads_nowhere() -> None:
    async with attacked(http(200, IMAGE, content_type="image/png", refresh="0; url=/elsewhere")) as (client, server):
        assert (await client.run(MODEL, prompt="a kite")).artifacts[0].data == IMAGE
        assert len(server.requests) == 1


async def test_the_key_is_in_no_text_of_an_answer_that_repeats_it() -> None:
    """In an event, in a job's id, in a partial image's event: none of them reaches a message."""
    echo = {"failed": "no", "message": KEY}
    broken = http(200, f"data: {KEY}\n\n".encode() + event(echo), content_type="text/event-stream")
    async with attacked(broken) as (client, _):
        with pytest.raises(impasto.JobFailed) as caught:
            await last_of(client)
    assert KEY not in repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)
    async with attacked(job(id=f"job-{KEY}"), job(), timeout=0.2) as (client, _):
        with pytest.raises(ChargeUnknown, match="job job-") as unknown:
            await client.run(MODEL, prompt="a kite")
        task = asyncio.create_task(client.with_options(timeout=5.0).run(MODEL, prompt="a kite"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
    assert KEY not in str(unknown.value)
    assert "may be charged" in cancelled.value.__notes__[0]
    assert KEY not in cancelled.value.__notes__[0]


def test_a_bomb_is_small() -> None:
    assert len(bomb(2**24)) < 2**15
    assert zlib.decompressobj(wbits=31).decompress(bomb(2**24)) == bytes(2**24)
    assert b64encode(IMAGE).decode() in str(images())
