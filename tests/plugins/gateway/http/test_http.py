"""Requests as RFC 9110 and RFC 9112 allow them are served; what two readers could understand differently is refused.

Both of aiohttp's parsers must judge alike. The comments say why a request is refused that the standards call valid.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from hypothesis import given, strategies as st

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.framing import MAX_EXTENSION_BYTES, Framing
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
    # RFC 9110, 8.6 lets a recipient refuse it: a proxy that reads the list otherwise ends the body at another byte.
    "a list of lengths": call(b"Content-Length: 28, 28\r\n", CALL),
    "a list of the right length": call(b"Content-Length: %d, %d\r\n" % (len(CALL), len(CALL)), CALL),
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
    # RFC 9112, 5.1: a server refuses it. A proxy may pass on such a field without reading it: request smuggling.
    "a space before the colon of a coding": call(b"Transfer-Encoding : chunked\r\n", chunks(CALL)),
    "a tab before the colon of a coding": call(b"Transfer-Encoding\t: chunked\r\n", chunks(CALL)),
    "white space before the colon of a coding in capitals": call(b"TRANSFER-ENCODING \t : chunked\r\n", chunks(CALL)),
    "a space before the colon of a length": call(b"Content-Length : %d\r\n" % len(CALL), CALL),
    "a tab before the colon of a length": call(b"Content-Length\t: %d\r\n" % len(CALL), CALL),
    "a space before the colon of a connection": ask(b"Connection : close, x\r\n"),
    "a tab before the colon of a connection": ask(b"Connection\t: close, x\r\n"),
    "a space before the colon of a host": GET + b"Host : localhost\r\n" + KEY + b"\r\n",
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
    "TLS": bytes.fromhex("1603010200010001fc0303") + CANARY * 10,
    "garbage": b"\x00\x01\x02\x03" * 50 + CANARY,
    "no HTTP": b"hello " + CANARY + b"\r\n\r\n",
    "a method that is none": ask(first=b"G@T /v1/models HTTP/1.1\r\n"),
    "a target without /": ask(first=b"GET v1/models HTTP/1.1\r\n"),
    "a target with a space": ask(first=b"GET /v1/models x HTTP/1.1\r\n"),
    "a target that is not ASCII": ask(first="GET /v1/modèls HTTP/1.1\r\n".encode()),
    "tabs for spaces": ask(first=b"GET\t/v1/models\tHTTP/1.1\r\n"),
    "xchunked": call(b"Transfer-Encoding: xchunked\r\n", chunks(CALL)),
    # RFC 9112, 6.1: codings that a server does not know are an error, and a length beside a coding may be refused.
    "gzip, chunked": call(b"Transfer-Encoding: gzip, chunked\r\n", chunks(CALL)),
    "chunked, gzip": call(b"Transfer-Encoding: chunked, gzip\r\n", chunks(CALL)),
    "chunked, chunked": call(b"Transfer-Encoding: chunked, chunked\r\n", chunks(CALL)),
    # RFC 9110, 5.6.1 lets nobody send an empty element, and a recipient skip it. A proxy that does not skip it sees no
    # chunked body, and takes the chunks for the next request: the same smuggling, so it is refused.
    "an empty element before chunked": call(b"Transfer-Encoding: ,chunked\r\n", chunks(CALL)),
    "an empty element behind chunked": call(b"Transfer-Encoding: chunked,\r\n", chunks(CALL)),
    "chunked twice": call(CHUNKED * 2, chunks(CALL)),
    "chunked behind a VT": call(b"Transfer-Encoding: \x0bchunked\r\n", chunks(CALL)),
    "identity": call(LENGTH + b"Transfer-Encoding: identity\r\n", CALL),
    "an empty coding": call(LENGTH + b"Transfer-Encoding:\r\n", CALL),
    "more extensions than anybody needs, which the standard lets a server limit": call(
        CHUNKED, b"1;%b\r\n{\r\n" % (b"a" * 4_000) * (MAX_EXTENSION_BYTES // 4_000 + 1)
    ),
    "a long extension": call(CHUNKED, SIZE + b";" + b"a" * 20_000 + b"\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "LF in an extension": call(CHUNKED, SIZE + b";a\nb\r\n" + CALL + b"\r\n0\r\n\r\n"),
    "CR in an extension": call(CHUNKED, SIZE + b";a\rb\r\n" + CALL + b"\r\n0\r\n\r\n"),
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
UNSUPPORTED = {
    "an unknown method": (501, ask(first=b"BREW /v1/models HTTP/1.1\r\n")),
    "a method in small letters": (501, ask(first=b"get /v1/models HTTP/1.1\r\n")),
    "CONNECT": (501, ask(first=b"CONNECT localhost:80 HTTP/1.1\r\n")),
    "HTTP/2.0": (505, ask(first=b"GET /v1/models HTTP/2.0\r\n")),
    "HTTP/3.0": (505, ask(first=b"GET /v1/models HTTP/3.0\r\n")),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}
"""Valid requests that this server does not support, each with its own status."""

BODY = SIZE + b"\r\n" + CALL + b"\r\n"
END = b"0\r\n\r\n"
SERVED = {
    "a length": call(LENGTH, CALL),
    "a length with zeros before it": call(b"Content-Length: 0000000000000000000000028\r\n", CALL),
    "a length between spaces": call(b"content-length:\t 28 \t\r\n", CALL),
    "chunks": call(CHUNKED, chunks(CALL[:9], CALL[9:])),
    "CHUNKED": call(b"transfer-encoding: CHUNKED\r\n", chunks(CALL)),
    "Chunked": call(b"Transfer-Encoding: Chunked\r\n", chunks(CALL)),
    "chunked between spaces": call(b"TRANSFER-ENCODING:\t chunked \t\r\n", chunks(CALL)),
    "chunked without a space": call(b"Transfer-Encoding:chunked\r\n", chunks(CALL)),
    "an extension": call(CHUNKED, SIZE + b";a=b\r\n" + CALL + b"\r\n" + END),
    "an extension without a value": call(CHUNKED, SIZE + b";a\r\n" + CALL + b"\r\n" + END),
    "extensions with spaces": call(CHUNKED, SIZE + b" ; a = b\t;\tc;d=1\r\n" + CALL + b"\r\n" + END),
    "a quoted extension": call(CHUNKED, SIZE + b';a="b;c \\" d"\r\n' + CALL + b"\r\n" + END),
    "a signed chunk, as S3's clients send it": call(
        CHUNKED, SIZE + b";chunk-signature=" + b"a1" * 32 + b"\r\n" + CALL + b"\r\n0;chunk-signature=b\r\n\r\n"
    ),
    "the last chunk's extension": call(CHUNKED, BODY + b"0;a\r\n\r\n"),
    "sizes with zeros before them": call(CHUNKED, b"0" * 40 + BODY + b"0000\r\n\r\n"),
    "a size in capitals": call(CHUNKED, b"1C\r\n" + CALL + b"\r\n" + END),
    "a trailer": call(CHUNKED, BODY + b"0\r\nX-Sum: 1\r\n\r\n"),
    "trailers that are announced": call(CHUNKED + b"Trailer: a, b\r\n", BODY + b"0\r\na: 1\r\nb:\r\n\r\n"),
    "a trailer that would be another length": call(CHUNKED, BODY + b"0\r\nContent-Length: 5\r\n\r\n"),
    "the word chunked in User-Agent": ask(b"User-Agent: my-chunked-client/1.0\r\n"),
    "the word chunked in Cookie": call(LENGTH + b"Cookie: coding=chunked\r\n", CALL),
    "the word chunked in Referer": call(LENGTH + b"Referer: http://localhost/Transfer-Encoding:chunked\r\n", CALL),
    "the word chunked in the target": ask(first=b"GET /v1/models?chunked=transfer-encoding:chunked HTTP/1.1\r\n"),
    "a header whose name ends alike": call(LENGTH + b"X-Transfer-Encoding: gzip\r\nX-Content-Length: 9\r\n", CALL),
    "TE": call(LENGTH + b"TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n", CALL),
    "empty lines before": b"\r\n\r\n" + ask(),
    "empty lines between": ask().replace(b"X-Canary", b"X-First", 1) + b"\r\n\r\n" + ask(),
    "HTTP/1.0": ask(first=b"GET /v1/models HTTP/1.0\r\n"),
    "HTTP/1.0 with a body": call(LENGTH, CALL).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.0 without Host": b"GET /v1/models HTTP/1.0\r\n" + KEY + b"X-Canary: 1\r\n\r\n",
    "HTTP/1.2, which 1.1 must understand": ask(first=b"GET /v1/models HTTP/1.2\r\n"),
    "a query": ask(first=b"GET /v1/models?a=b HTTP/1.1\r\n"),
    "a query that is empty": ask(first=b"GET /v1/models? HTTP/1.1\r\n"),
    "a whole URL": ask(first=b"GET http://localhost/v1/models HTTP/1.1\r\n"),
    "a whole URL in capitals, with a port": ask(first=b"GET HTTP://LOCALHOST:4000/v1/models HTTP/1.1\r\n"),
    "a whole URL of an address": ask(first=b"GET http://[::1]:80/v1/models?a=b HTTP/1.1\r\n"),
    "a whole URL beside another's Host": GET.replace(b"/v1", b"http://localhost/v1") + KEY + b"X-Canary: 1\r\n"
    b"Host: evil.example\r\n\r\n",
    "a whole URL to post to": call(LENGTH, CALL).replace(b"/v1/im", b"https://localhost/v1/im"),
    "bytes that are not ASCII": ask(b"X: \xff\xfe\r\n"),
    "headers without a value": ask(b"X:\r\nAccept: \r\nCookie:\t\r\n"),
    "names of every legal character": ask(b"!#$%&'*+-.^_`|~09azAZ: 1\r\n"),
    "one header many times": ask(b"Accept: a\r\naccept: b\r\nACCEPT: c\r\n"),
    "an upgrade that is declined": ask(b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
    "an upgrade to HTTP/2, as Java's client offers it": call(
        LENGTH + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n", CALL
    ),
    "a body for GET": ask(LENGTH) + CALL,
    "an empty body for GET": ask(b"Content-Length: 0\r\n"),
    "an empty body in chunks for GET": ask(CHUNKED) + END,
    "an expectation": call(LENGTH + b"Expect: 100-Continue\r\n", CALL),
    "an expectation of HTTP/1.0": call(LENGTH + b"Expect: 100-continue\r\n", CALL).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "JSON's kind in capitals": call(LENGTH, CALL).replace(JSON, b"CONTENT-TYPE: Application/JSON;Charset=UTF-8\r\n"),
    "JSON's kind with a quoted charset": call(LENGTH, CALL).replace(JSON, JSON[:-2] + b' ; charset="utf-8" ;\r\n'),
    "identity, which is no coding": call(LENGTH + b"Content-Encoding: identity\r\n", CALL),
    "as many headers as are accepted": ask(b"".join(b"X-%d: a\r\n" % i for i in range(123))),
    "a header as long as is accepted": ask(b"X: " + b"a" * (8 * 1024 + 509) + b"\r\n"),
    "a head of 30 KB": ask(b"".join(b"X-%d: %b\r\n" % (i, b"a" * 5_000) for i in range(6))),
}
SERVED = {
    name: b"Connection: keep-alive, close\r\nX-Canary".join(data.rsplit(b"X-Canary", 1))
    for name, data in SERVED.items()
}


@pytest.mark.parametrize("name", REFUSED)
async def test_invalid_http_is_refused_and_not_repeated(
    standing: Running, impasto_emulator: Emulator, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await send(standing.url, REFUSED[name])
    assert (answer.status, answer.closed, answer.reset) == (400, True, False)
    assert answer.error["code"] in ("invalid_http", "invalid_body")  # the latter if the head was sound
    assert answer.data.count(b"\r\n\r\n") == 1
    assert CANARY not in answer.data
    assert CANARY.decode() not in caplog.text
    assert not impasto_emulator.requests


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ask(b"".join(b"X-%d: a\r\n" % i for i in range(125))), "the request has 129 header fields; at most 128"),
        (ask(b"X: " + b"a" * 9_000 + b"\r\n"), "a header field has more than 8,704 bytes"),
        (ask(first=b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n"), "the first line or a header field has more than 8,704"),
        (ask(b"".join(b"X-%d: %b\r\n" % (i, b"a" * 8_000) for i in range(5))), "more than 32,768 bytes"),
        (GET + KEY + b"\r\n", "needs a Host field"),
        (ask(b"Host: localhost\r\n"), "given twice"),
        (ask(b"X: a\x7fb\r\n"), "a name, a colon and a value"),
    ],
    ids=["fields", "field", "target", "head", "no Host", "Host twice", "value"],
)
async def test_a_refused_head_is_answered_with_the_reason_and_the_limit(
    standing: Running, data: bytes, message: str
) -> None:
    answer = await send(standing.url, data)
    assert (answer.status, answer.error["code"]) == (400, "invalid_http")
    assert message in (answer.error["message"] or "")


@pytest.mark.parametrize("name", SERVED)
async def test_valid_http_is_answered(standing: Running, name: str) -> None:
    answer = await send(standing.url, SERVED[name])
    data = answer.data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert data.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n")), answer.data[:300]
    assert data.count(b"HTTP/1.") == SERVED[name].count(b" HTTP/1.")
    assert (answer.closed, answer.reset) == (True, False)


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_valid_but_unsupported_http_has_a_status_of_its_own(standing: Running, name: str) -> None:
    status, data = UNSUPPORTED[name]
    answer = await send(standing.url, data)
    assert (answer.status, answer.closed, answer.reset) == (status, True, False)
    assert (answer.error["code"] or "").startswith("unsupported_")


async def test_a_whole_url_of_another_host_is_not_this_gateways(standing: Running) -> None:
    for target in (b"http://evil.example/v1/models", b"http://evil.example", b"http://localhost.evil.example:80/?a"):
        answer = await send(standing.url, ask(first=b"GET %b HTTP/1.1\r\n" % target))
        assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    for target in (b"http://a@localhost/v1/models", b"http:///v1/models", b"ftp://localhost/", b"http://[localhost/"):
        answer = await send(standing.url, ask(first=b"GET %b HTTP/1.1\r\n" % target))
        assert (answer.status, answer.error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize("second", ["two ways of length", "an empty coding", "a chunk's size", "no colon", "TLS"])
async def test_a_mistake_in_the_second_request_is_found_as_in_the_first(
    standing: Running, impasto_emulator: Emulator, second: str
) -> None:
    """One behind the other in one packet: the first is answered, nothing behind the wrong one is read."""
    wrong = {**REFUSED, "a chunk's size": call(CHUNKED, b"zz\r\n")}[second]
    first = GET + HEADERS + b"\r\n"
    answer = await send(standing.url, first + wrong + first)
    assert [int(each[:3]) for each in answer.data.split(b"HTTP/1.1 ")[1:]] == [200, 400]
    assert (answer.closed, answer.reset) == (True, False)
    assert not impasto_emulator.requests


async def test_a_request_hidden_in_another_is_not_answered(standing: Running, impasto_emulator: Emulator) -> None:
    hidden = GET + HEADERS + b"\r\n"
    for framing in (LENGTH[:-4] + b"%d\r\n" % len(hidden), CHUNKED):
        body = hidden if framing.startswith(b"Content-L") else b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
        answer = await send(standing.url, call(framing + b"Connection: close\r\n", body))
        assert (answer.status, answer.error["code"], answer.data.count(b"HTTP/1.1")) == (400, "invalid_json", 1)
    assert not impasto_emulator.requests


async def test_both_parsers_judge_alike(serve: Serve) -> None:
    process, url = await asyncio.to_thread(serve, PAGE, AIOHTTP_NO_EXTENSIONS="1")
    found = await asyncio.gather(*(send(url, data) for data in REFUSED.values()))
    others = {name: raw for name, raw in zip(REFUSED, found, strict=True) if (raw.status, raw.closed) != (400, True)}
    assert not others
    assert {raw.error["code"] for raw in found} == {"invalid_http", "invalid_body"}
    for data in SERVED.values():
        raw = await send(url, data)
        assert (raw.status in (100, 200), b" 200 OK" in raw.data) == (True, True), (data, raw.data[:300])
    for status, data in UNSUPPORTED.values():
        assert (await send(url, data)).status == status
    process.terminate()
    _, output = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert CANARY.decode() not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("body", [b"zz\r\n", b"1;a\nb\r\n{\r\n", b"f" * 20, b"1\r\n{}\r\n"])
async def test_a_body_that_goes_wrong_later(standing: Running, impasto_emulator: Emulator, body: bytes) -> None:
    """The call has begun to read when the bad chunk comes."""
    async with Connection(standing.url) as connection:
        connection.writer.write(call(CHUNKED, b"1\r\n{\r\n"))
        await until(lambda: standing.gateway._app.running_count > 0)
        connection.writer.write(body)
        answer = await connection.rest()
    assert (answer.status, answer.error["code"], answer.closed) == (400, "invalid_body", True)
    assert not impasto_emulator.requests


async def test_the_rest_of_a_body_is_read_so_that_the_refusal_arrives(standing: Running) -> None:
    """A socket that is closed with bytes unread is reset, and the answer lost with it."""
    answer = await send(standing.url, GET + b"X: " + b"a" * (8 << 20) + b"\r\n\r\n")
    assert (answer.status, answer.closed, answer.reset) == (400, True, False)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_megabyte_in_chunks_of_one_byte_holds_nobody_up(gateway: Running, at_once: bool) -> None:
    body = b'{"model":"sd3","prompt":"%s"}' % (b"p" * (1 << 20))
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with Connection(gateway.url) as connection, Lag() as lag:
        connection.writer.write(call(CHUNKED + b"Connection: close\r\n", b""))
        await asyncio.sleep(0 if at_once else 0.1)
        connection.writer.write(framed)
        answer = await connection.rest()
    assert (answer.status, answer.error["param"]) == (400, "prompt")  # it was read: the prompt is too long
    assert lag.longest < 1


def test_a_body_whose_length_is_known_is_not_copied() -> None:
    framing, body = Framing(), b"x" * 100_000
    first, last = call(b"Content-Length: %d\r\n" % (2 * len(body)), body), body
    assert framing.feed(first)[0] is first
    assert framing.feed(last)[0] is last
    assert not framing.partial_head


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_a_chunked_body_is_read_alike_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    head = POST + CHUNKED + b"\r\n"
    sent = b"".join(b"%x ;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    data = head + sent + b"0\r\nX-Trailer: anything\r\n\r\n" + GET + b"\r\n"
    edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for cut in ([data[a:b] for a, b in itertools.pairwise(edges)], [bytes([byte]) for byte in data]):
        framing = Framing()
        passed = b"".join(piece for each in cut for piece in framing.feed(each))
        assert not framing.has_ended
        body = passed.removeprefix(head).removesuffix(GET + b"\r\n")
        content = b""
        while (line := body.partition(b"\r\n"))[0] != b"0":
            size = int(line[0], 16)
            content, body = content + line[2][:size], line[2][size + 2 :]
        assert body == b"0\r\n\r\n"
        assert content == b"".join(pieces)


@given(st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line and b";" not in line))
def test_a_size_is_hexadecimal_digits_and_nothing_else(line: bytes) -> None:
    digits = all(byte in b"0123456789abcdefABCDEF" for byte in line)
    valid = digits and len(line.lstrip(b"0")) <= 15
    for cut in ([line + b"\r\n"], [bytes([byte]) for byte in line + b"\r\n"]):
        framing = Framing()
        for piece in (POST + CHUNKED + b"\r\n", *cut):
            list(framing.feed(piece))
        assert framing.is_body_damaged is not valid
