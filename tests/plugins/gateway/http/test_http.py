"""HTTP that is none, or that two readers could take for two things: refused alike by both of aiohttp's parsers."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from hypothesis import given, strategies as st

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.chunked import Chunks
from tests.plugins.gateway.config.test_config import PAGE
from tests.plugins.gateway.conftest import Running, Serve
from tests.plugins.gateway.raw import (
    CALL,
    CHUNKED,
    GET,
    HEADERS,
    JSON,
    KEY,
    LENGTH,
    POST,
    Connection,
    Lag,
    chunks,
    send,
    until,
)

CANARY = b"sk-canary-0123456789"
SENT = HEADERS + JSON + b"X-Canary: " + CANARY + b"\r\n"
SIZE = b"%x" % len(CALL)


def call(headers: bytes, body: bytes) -> bytes:
    return POST + SENT + headers + b"\r\n" + body


def ask(headers: bytes = b"", first: bytes = GET) -> bytes:
    return first + SENT + headers + b"\r\n"


REFUSED = {
    "two ways of length": call(LENGTH + CHUNKED, chunks(CALL)),
    "two ways of length, the other way round": call(CHUNKED + LENGTH, chunks(CALL)),
    "length twice": call(LENGTH * 2, CALL),
    "two lengths": call(LENGTH + b"Content-Length: 3\r\n", CALL),
    "a list of lengths": call(b"Content-Length: 28, 28\r\n", CALL),
    "length +28": call(b"Content-Length: +28\r\n", CALL),
    "length -1": call(b"Content-Length: -1\r\n", CALL),
    "length in hex": call(b"Content-Length: 0x1c\r\n", CALL),
    "length 2_8": call(b"Content-Length: 2_8\r\n", CALL),
    "length in other digits": call("Content-Length: ٢٨\r\n".encode(), CALL),
    "no length": call(b"Content-Length:\r\n", CALL),
    "a length beyond 64 bits": call(b"Content-Length: 99999999999999999999999999\r\n", CALL),
    "CR in a value": ask(b"X: a\rb\r\n"),
    "CR for a line's end": ask(b"X: a\rY: b\r\n"),
    "LF for a line's end": GET[:-2] + b"\n" + SENT.replace(b"\r", b"") + b"\n",
    "NUL in a value": ask(b"X: a\0b\r\n"),
    "NUL in a name": ask(b"X\0Y: a\r\n"),
    "NUL in the target": ask(first=b"GET /v1/mo\0dels HTTP/1.1\r\n"),
    "DEL in a value": ask(b"X: a\x7fb\r\n"),
    "ESC in a value": ask(b"X: a\x1b[2J\r\n"),
    "a folded line": ask(b"X: a\r\n b\r\n"),
    "a line folded with a tab": ask(b"X: a\r\n\tb\r\n"),
    "a first line folded": GET + b" X: a\r\n" + SENT + b"\r\n",
    "a space before the colon": ask(b"X : a\r\n"),
    "no name": ask(b": a\r\n"),
    "no colon": ask(b"x\r\n"),
    "a header of 9 KB": ask(b"X: " + CANARY * 460 + b"\r\n"),
    "a key of 9 KB": GET + b"Host: localhost\r\nAuthorization: Bearer " + CANARY * 460 + b"\r\n\r\n",
    "a target of 9 KB": ask(first=b"GET /" + CANARY * 460 + b" HTTP/1.1\r\n"),
    "a boundary of 100 KB": ask(b"X: multipart/form-data; boundary=" + b"b" * 100_000 + b"\r\n"),
    "too many headers": ask(b"".join(b"X-%d: a\r\n" % i for i in range(200))),
    "Host twice": ask(b"Host: localhost\r\n"),
    "no Host": GET + KEY + b"\r\n",
    "Content-Type twice": call(LENGTH + JSON, CALL),
    "HTTP/0.9": b"GET /v1/models?" + CANARY + b"\r\n\r\n",
    "HTTP/1.2": ask(first=b"GET /v1/models HTTP/1.2\r\n"),
    "HTTP/1.10": ask(first=b"GET /v1/models HTTP/1.10\r\n"),
    "HTTP/2.0": ask(first=b"GET /v1/models HTTP/2.0\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + CANARY * 10,
    "garbage": b"\x00\x01\x02\x03" * 50 + CANARY,
    "no HTTP": b"hello " + CANARY + b"\r\n\r\n",
    "a small method": ask(first=b"get /v1/models HTTP/1.1\r\n"),
    "an unknown method": ask(first=b"BREW /v1/models HTTP/1.1\r\n"),
    "a method that is none": ask(first=b"G@T /v1/models HTTP/1.1\r\n"),
    "a whole URL": ask(first=b"GET http://localhost/v1/models HTTP/1.1\r\n"),
    "another's URL": ask(first=b"GET http://evil.example/v1/models HTTP/1.1\r\n"),
    "CONNECT": ask(first=b"CONNECT localhost:80 HTTP/1.1\r\n"),
    "OPTIONS *": ask(first=b"OPTIONS * HTTP/1.1\r\n"),
    "a target without /": ask(first=b"GET v1/models HTTP/1.1\r\n"),
    "a target with a space": ask(first=b"GET /v1/models x HTTP/1.1\r\n"),
    "a target that is not ASCII": ask(first="GET /v1/modèls HTTP/1.1\r\n".encode()),
    "tabs for spaces": ask(first=b"GET\t/v1/models\tHTTP/1.1\r\n"),
    "xchunked": call(b"Transfer-Encoding: xchunked\r\n", chunks(CALL)),
    "gzip, chunked": call(b"Transfer-Encoding: gzip, chunked\r\n", chunks(CALL)),
    "chunked, gzip": call(b"Transfer-Encoding: chunked, gzip\r\n", chunks(CALL)),
    "chunked, chunked": call(b"Transfer-Encoding: chunked, chunked\r\n", chunks(CALL)),
    "chunked twice": call(CHUNKED * 2, chunks(CALL)),
    "chunked behind a VT": call(b"Transfer-Encoding: \x0bchunked\r\n", chunks(CALL)),
    "identity": call(LENGTH + b"Transfer-Encoding: identity\r\n", CALL),
    "an empty coding": call(LENGTH + b"Transfer-Encoding:\r\n", CALL),
    "a chunk's extension": call(CHUNKED, SIZE + b";a=b\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "a long extension": call(CHUNKED, SIZE + b";" + b"a" * 20_000 + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "LF in an extension": call(CHUNKED, SIZE + b";a\nb\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "CR in an extension": call(CHUNKED, SIZE + b";a\rb\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "the last chunk's extension": call(CHUNKED, SIZE + b"\r\n" + CALL + b"\r\n0;a\r\n\r\n"),
    "LF behind a size": call(CHUNKED, SIZE + b"\n" + CALL + b"\r\n0\r\n\r\n"),
    "a space behind a size": call(CHUNKED, SIZE + b" \r\n" + CALL + b"\r\n0\r\n\r\n"),
    "a space before a size": call(CHUNKED, b" " + SIZE + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "size 0x": call(CHUNKED, b"0x" + SIZE + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "size +": call(CHUNKED, b"+" + SIZE + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "size -1": call(CHUNKED, b"-1\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "size with _": call(CHUNKED, b"1_c\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "no size": call(CHUNKED, b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "a size that is none": call(CHUNKED, b"zz\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "a size beyond 64 bits": call(CHUNKED, b"f" * 17 + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": call(CHUNKED, SIZE + b"\r\n" + CALL + b"xx\r\n0\r\n\r\n"),
    "a trailer that is none": call(CHUNKED, SIZE + b"\r\n" + CALL + b"\r\n0\r\nX Y\r\n\r\n"),
}
SERVED = {
    "a length": call(LENGTH, CALL),
    "chunks": call(CHUNKED, chunks(CALL[:9], CALL[9:])),
    "CHUNKED": call(b"transfer-encoding: CHUNKED\r\n", chunks(CALL)),
    "a trailer": call(CHUNKED, SIZE + b"\r\n" + CALL + b"\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "empty lines before": b"\r\n\r\n" + ask(),
    "HTTP/1.0": ask(first=b"GET /v1/models HTTP/1.0\r\n"),
    "a query": ask(first=b"GET /v1/models?a=b HTTP/1.1\r\n"),
    "bytes that are not ASCII": ask(b"X: \xff\xfe\r\n"),
    "an upgrade that is declined": ask(b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
}
SERVED = {name: data.replace(b"X-Canary", b"Connection: close\r\nX-Canary", 1) for name, data in SERVED.items()}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_http_is_refused_and_not_repeated(
    standing: Running, impasto_emulator: Emulator, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await send(standing.url, REFUSED[name])
    assert (answer.status, answer.error["code"], answer.closed, answer.reset) == (400, "invalid_http", True, False)
    assert answer.data.count(b"\r\n\r\n") == 1
    assert CANARY not in answer.data
    assert CANARY.decode() not in caplog.text
    assert not impasto_emulator.requests


@pytest.mark.parametrize("name", SERVED)
async def test_what_is_http_is_served(standing: Running, name: str) -> None:
    answer = await send(standing.url, SERVED[name])
    assert answer.status == 200, answer.data[:300]
    assert answer.closed


async def test_both_parsers_judge_alike(serve: Serve) -> None:
    process, url = await asyncio.to_thread(serve, PAGE, AIOHTTP_NO_EXTENSIONS="1")
    found = await asyncio.gather(*(send(url, data) for data in REFUSED.values()))
    others = {name: raw for name, raw in zip(REFUSED, found, strict=True) if (raw.status, raw.closed) != (400, True)}
    assert not others
    assert all(raw.error["code"] == "invalid_http" for raw in found)
    found = await asyncio.gather(*(send(url, data) for data in SERVED.values()))
    assert [raw.status for raw in found] == [200] * len(SERVED)
    process.terminate()
    _, told = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert CANARY.decode() not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("body", [b"zz\r\n", b"1;a\r\n{\r\n", b"f" * 20, b"1\r\n{}\r\n"])
async def test_a_body_that_goes_wrong_later(standing: Running, impasto_emulator: Emulator, body: bytes) -> None:
    """The call has begun to read when the bad chunk comes."""
    async with Connection(standing.url) as connection:
        connection.writer.write(call(CHUNKED, b"1\r\n{\r\n"))
        await until(lambda: standing.gateway._app.running > 0)
        connection.writer.write(body)
        answer = await connection.rest()
    assert (answer.status, answer.error["code"], answer.closed) == (400, "invalid_body", True)
    assert not impasto_emulator.requests


async def test_what_still_comes_is_read_so_that_the_refusal_is(standing: Running) -> None:
    """A socket that is closed with bytes unread is reset, and the answer lost with it."""
    answer = await send(standing.url, GET + b"X: " + b"a" * (8 << 20) + b"\r\n\r\n")
    assert (answer.status, answer.closed, answer.reset) == (400, True, False)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_megabyte_in_chunks_of_one_byte_is_not_read_for_seconds(gateway: Running, at_once: bool) -> None:
    body = b'{"model":"sd3","prompt":"%s"}' % (b"p" * (1 << 20))
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with Connection(gateway.url) as connection, Lag() as lag:
        connection.writer.write(call(CHUNKED, b""))
        await asyncio.sleep(0 if at_once else 0.1)
        connection.writer.write(framed)
        answer = await connection.rest()
    assert (answer.status, answer.closed) == (400, True)
    assert lag.longest < 1


async def test_a_few_small_chunks_are_read(standing: Running) -> None:
    pieces = [CALL[at : at + 1] for at in range(len(CALL))]
    assert (await send(standing.url, call(CHUNKED + b"Connection: close\r\n", chunks(*pieces)))).status == 200


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_chunks_are_sound_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = chunks(*(piece for piece in pieces if piece)) + b"X-Trailer: anything\r\n"
    edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    follow, each = Chunks(), Chunks()
    assert all(follow.sound(data[a:b]) for a, b in itertools.pairwise(edges))
    assert all(each.sound(bytes([byte])) for byte in data)


@given(st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line))
def test_a_size_is_hexadecimal_digits_and_nothing_else(line: bytes) -> None:
    whole, cut = Chunks(), Chunks()
    sound = len(line) <= 15 and all(byte in b"0123456789abcdefABCDEF" for byte in line)
    assert whole.sound(line + b"\r\n") is sound
    assert all(cut.sound(bytes([byte])) for byte in line + b"\r\n") is sound
