"""Answers whose framing is damaged (row F13 of the promise): nothing is taken for whole, and what came is kept."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest

import impasto
from tests.reliability.conftest import CORE, MakeClient, failure, is_unknown
from tests.reliability.servers import (
    PICTURE,
    PICTURE_HEADERS,
    Answer,
    ServedRequest,
    Server,
    Wire,
    head,
    http,
    picture,
    raw,
)

CHUNKED = head(200, {**PICTURE_HEADERS, "transfer-encoding": "chunked"})

FRAMING: dict[str, Answer] = {
    "length too long": raw(
        head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE) + 9)}) + PICTURE, 0.02, end="close"
    ),
    "length too short": raw(head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE) - 9)}) + PICTURE),
    "two lengths": raw(
        head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE)), "Content-Length": "5"}) + PICTURE
    ),
    "length and chunked": raw(
        head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE)), "transfer-encoding": "chunked"})
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)
    ),
    "no number": raw(head(200, {**PICTURE_HEADERS, "content-length": "many"}) + PICTURE),
    "plus": raw(head(200, {**PICTURE_HEADERS, "content-length": f"+{len(PICTURE)}"}) + PICTURE),
    "no status": raw(b"HTTP/1.1 nothing\r\n\r\n" + PICTURE),
    "no http": raw(b"\x89PNG" + PICTURE),
    "no http, nor a line": raw(b"nonsense"),
    "no http after 100": raw(head(100, {}) + b"nonsense"),
    "length too short, later": raw(
        head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE) - 9)}) + PICTURE[:9], 0.02, PICTURE[9:]
    ),
    "chunks, then more": raw(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\nmore" % (len(PICTURE), PICTURE)),
}


LENGTH = head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}) + PICTURE
CHUNKS = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)


@pytest.mark.parametrize("fault", FRAMING)
async def test_f13_broken_framing_is_unknown_and_touches_no_other_call(
    server: Server, client: impasto.Client, fault: str
) -> None:
    server.posts = [FRAMING[fault], picture(seed="8")]
    error = is_unknown(await failure(client))
    assert error.raw
    assert len(server.paid) == 1
    result = await client.run(CORE, prompt="p")
    assert (result.artifacts[0].seed, result.artifacts[0].data) == (8, PICTURE)
    assert server.paid[1].connection != server.paid[0].connection


async def test_f13_an_answer_that_nobody_asked_for_is_not_the_next_calls(
    server: Server, client: impasto.Client
) -> None:
    """A second answer on an idle connection: the next call must not take it for its own."""
    other = b"\x89PNG\r\n\x1a\n of somebody else" + PICTURE[-12:]
    twice = head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}) + PICTURE
    unasked = head(200, {**PICTURE_HEADERS, "content-length": str(len(other))}) + other
    server.posts = [raw(twice, 0.05, unasked), picture(seed="8")]
    await client.run(CORE, prompt="one")
    await asyncio.sleep(0.1)
    result = await client.run(CORE, prompt="two")
    assert (result.artifacts[0].data, result.artifacts[0].seed) == (PICTURE, 8)
    assert server.paid[1].connection != server.paid[0].connection


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("size", [b"zz", b"-5", b"f" * 40])
async def test_a_damaged_chunk_ends_the_call_at_once_with_what_came_before(
    server: Server, make_client: MakeClient, size: bytes, pause: float
) -> None:
    """It came with the head, or later: aiohttp loses the head in the first case and waits for ever in the second."""
    good = b"20\r\n" + PICTURE[:32] + b"\r\n"
    server.posts = [raw(CHUNKED + good, pause, size + b"\r\nrest\r\n", 30.0)]
    began = time.monotonic()
    error = is_unknown(await failure(make_client(server.url, timeout=20.0)))
    assert time.monotonic() - began < 10
    assert (error.raw, error.status, error.request_id) == (PICTURE[:32], 200, "req-1")
    assert len(server.paid) == 1


@pytest.mark.parametrize("at", [3, 20, len(CHUNKED) - 3, len(CHUNKED) - 1])
async def test_a_head_in_two_packets_is_kept_though_its_body_is_damaged(
    server: Server, client: impasto.Client, at: int
) -> None:
    """aiohttp's parsers lose a head whose last bytes come with a damaged body."""
    good = b"20\r\n" + PICTURE[:32] + b"\r\n"
    server.posts = [raw(CHUNKED[:at], 0.05, CHUNKED[at:] + good + b"zz\r\n", 30.0)]
    error = is_unknown(await failure(client))
    assert (error.raw, error.status, error.request_id) == (PICTURE[:32], 200, "req-1")


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("whole", [LENGTH, CHUNKS], ids=["length", "chunks"])
async def test_a_connection_on_which_half_a_head_came_unasked_is_not_used_again(
    server: Server, client: impasto.Client, whole: bytes, pause: float
) -> None:
    """The parser keeps half a head to itself; its other half would be the next call's answer."""
    end = asyncio.Event()

    async def answer(request: ServedRequest, wire: Wire) -> None:
        await raw(whole, pause, b"HTTP/1.1 200 OK\r\nx-other: ")(request, wire)
        end.set()

    server.posts = [answer, picture(seed="8")]
    assert (await client.run(CORE, prompt="one")).artifacts[0].data == PICTURE
    await end.wait()
    assert (await client.run(CORE, prompt="two")).artifacts[0].seed == 8
    assert server.paid[1].connection != server.paid[0].connection


async def test_more_than_the_length_is_unknown_with_all_that_was_announced(
    server: Server, client: impasto.Client
) -> None:
    short = len(PICTURE) - 9
    server.posts = [raw(head(200, {**PICTURE_HEADERS, "content-length": str(short)}) + PICTURE)]
    error = is_unknown(await failure(client))
    assert (error.raw, error.status, error.request_id) == (PICTURE[:short], 200, "req-1")


async def test_a_head_that_can_not_be_read_is_kept_with_what_came_after_it(
    server: Server, client: impasto.Client
) -> None:
    answer = head(200, {**PICTURE_HEADERS, "x": "a\0b", "content-length": str(len(PICTURE))}) + PICTURE
    server.posts = [raw(answer)]
    assert is_unknown(await failure(client)).raw == answer


async def test_many_headers_are_no_reason_to_lose_a_picture(server: Server, client: impasto.Client) -> None:
    server.posts = [picture(**{f"x-{i}": "beside it" for i in range(300)})]
    assert (await client.run(CORE, prompt="p")).artifacts[0].data == PICTURE


async def test_a_body_that_begins_like_a_head_is_a_body(server: Server, client: impasto.Client) -> None:
    body = b"HTTP/1.1 200 OK\r\n\r\nno picture"
    server.posts = [http(200, body, content_type="image/png")]
    error = await failure(client)
    assert isinstance(error, impasto.UnusableResult)
    assert error.raw == body


def test_aiohttps_parser_in_python_shows_the_same_damage() -> None:
    """Not the chunk of 40 digits: a size without limit is no fault to it, so the call waits for its bytes."""
    env = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    check = "from aiohttp import http_parser as p; assert p.HttpResponseParser is p.HttpResponseParserPy"
    subprocess.run([sys.executable, "-c", check], env=env, check=True)
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "not parser_in_python and not ffff"]
    subprocess.run([sys.executable, "-m", "pytest", *options, __file__], env=env, check=True)
