"""Faults: what a plain client meets on the socket, and what the account says was charged."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.plugins.emulator.conftest import CREATIVE, GENERATE, SD3, Wire, open_image, plain

FORM = (
    b"--b\r\ncontent-disposition: form-data; name=prompt\r\n\r\nx\r\n"
    b"--b\r\ncontent-disposition: form-data; name=seed\r\n\r\n1\r\n--b--\r\n"
)
PROMPT = {"prompt": "x", "seed": 1}


async def raw(wire: Wire, *, path: str = GENERATE, seconds: float = 5) -> tuple[bytes, BaseException | None]:
    """All bytes that an exchange brings until the connection ends, and how it ended."""
    url = urlsplit(wire.emulator.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(FORM)}\r\n\r\n"
    )
    writer.write(head.encode() + FORM)
    received, failure = b"", None
    try:
        while piece := await asyncio.wait_for(reader.read(1 << 16), seconds):
            received += piece
    except (OSError, TimeoutError) as error:
        failure = error
    writer.close()
    return received, failure


def split(received: bytes) -> tuple[bytes, list[tuple[str, str]], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = [tuple(line.decode().lower().split(": ", 1)) for line in lines]
    return first, headers, body  # type: ignore[return-value]  # pairs


async def test_a_status_has_the_providers_form(wire: Wire) -> None:
    wire.emulator.fault("status", times=1)
    status, headers, body = await wire.post(GENERATE, PROMPT)
    assert (status, headers["content-type"]) == (500, "application/json")
    assert json.loads(body).keys() == {"id", "name", "errors"}
    assert json.loads(body)["name"] == "internal_error"
    assert (await wire.post(GENERATE, PROMPT))[0] == 200
    assert [record.fault for record in wire.emulator.requests] == ["status", None]
    assert wire.emulator.credits == 3


async def test_a_status_of_v1_has_the_form_of_v1(wire: Wire) -> None:
    wire.emulator.fault("status", name="server_error", errors=["no"])
    _, _, body = await wire.get("/v1/user/balance")
    assert json.loads(body) == {"id": json.loads(body)["id"], "name": "server_error", "message": "no"}


@pytest.mark.parametrize(
    ("options", "status", "kind", "content"),
    [
        ({"status": 502, "body": "html"}, 502, "text/html; charset=utf-8", b"<!doctype html>"),
        ({"status": 200, "body": "html"}, 200, "text/html; charset=utf-8", b"<!doctype html>"),
        ({"status": 200, "body": "empty"}, 200, "image/png", b""),
        ({"status": 200, "body": "malformed"}, 200, "application/json", b"{not json"),
        ({"status": 503, "text": "busy", "headers": {"retry-after": "7"}}, 503, "text/plain", b"busy"),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, 302, "application/json", b"{"),
        ({"status": 403}, 403, "application/json", b'"content_moderation"'),
    ],
)
async def test_any_status_can_have_any_body(
    wire: Wire, options: Mapping[str, object], status: int, kind: str, content: bytes
) -> None:
    wire.emulator.fault("status", **options)
    answered, headers, body = await wire.post(GENERATE, PROMPT)
    assert (answered, headers["content-type"]) == (status, kind)
    assert content in body
    assert (body == b"") == (content == b"")
    for name, value in options.get("headers", {}).items():  # type: ignore[attr-defined]  # a mapping
        assert headers[name] == value
    assert wire.emulator.charges == []


async def test_charged_decides_if_the_operation_runs(wire: Wire) -> None:
    for charged, credits in ((False, 0), (True, 3), (None, 3)):
        wire.emulator.reset()
        wire.emulator.fault("cut", charged=charged)
        await wire.post(GENERATE, PROMPT)
        assert wire.emulator.credits == credits
        assert wire.emulator.requests[0].charged == (credits or None)
    wire.emulator.reset()
    wire.emulator.fault("status", status=502, charged=True)
    await wire.post(GENERATE, PROMPT)
    assert wire.emulator.credits == 3
    await wire.post(GENERATE, {})
    assert wire.emulator.credits == 3, "what is refused is not charged"


async def test_delay_and_slow_take_their_time(wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    wire.emulator.fault("delay", seconds=0.2, times=1)
    began = loop.time()
    _, _, body = await wire.post(GENERATE, PROMPT)
    assert loop.time() - began >= 0.2
    wire.emulator.fault("slow", piece=100, bytes_per_second=10_000, times=1)
    began = loop.time()
    _, _, slowly = await wire.post(GENERATE, PROMPT)
    assert loop.time() - began >= 0.9 * len(body) / 10_000
    assert len(slowly) == len(body)


async def test_truncate_ends_before_the_announced_length(wire: Wire) -> None:
    wire.emulator.fault("truncate", fraction=0.25)
    received, error = await raw(wire)
    _, headers, body = split(received)
    assert error is None
    length = int(dict(headers)["content-length"])
    assert len(body) == length // 4
    with pytest.raises(aiohttp.ClientPayloadError):
        await wire.post(GENERATE, PROMPT)


@pytest.mark.parametrize("framing", ["length", "close"])
async def test_cut_is_a_complete_answer_with_an_incomplete_image(wire: Wire, framing: str) -> None:
    wire.emulator.fault("cut", framing=framing)
    _, headers, body = split((await raw(wire))[0])
    assert ("content-length" in dict(headers)) == (framing == "length")
    assert "transfer-encoding" not in dict(headers)
    assert body.startswith(b"\x89PNG")
    assert b"IEND" not in body
    status, _, again = await wire.post(GENERATE, PROMPT)
    assert (status, len(again)) == (200, len(body))


@pytest.mark.parametrize("wrong", ["two-lengths", "length-and-chunked", "short-length"])
async def test_framing_faults_send_the_wrong_framing(wire: Wire, wrong: str) -> None:
    wire.emulator.fault("framing", wrong=wrong)
    received, _ = await raw(wire, seconds=0.5)
    _, headers, body = split(received)
    lengths = [int(value) for name, value in headers if name == "content-length"]
    match wrong:
        case "two-lengths":
            assert lengths == [len(body), len(body) - 1]
        case "length-and-chunked":
            assert dict(headers)["transfer-encoding"] == "chunked"
            assert body.endswith(b"0\r\n\r\n")
            assert len(lengths) == 1
        case _:
            assert lengths == [len(body) - 7]


@pytest.mark.parametrize("charged", [False, True])
async def test_reset_before_headers_and_in_the_body(wire: Wire, charged: bool) -> None:
    wire.emulator.fault("reset", times=1, charged=charged)
    wire.emulator.fault("reset", at="body", fraction=0.5, times=1, charged=charged)
    received, error = await raw(wire)
    assert received == b""
    assert isinstance(error, ConnectionResetError)
    received, error = await raw(wire)
    _, headers, body = split(received)
    assert 0 < len(body) < int(dict(headers)["content-length"])
    assert isinstance(error, ConnectionResetError)
    assert wire.emulator.credits == (6 if charged else 0)
    assert [record.status for record in wire.emulator.requests] == [None, 200]


async def test_close_sends_no_answer(wire: Wire) -> None:
    wire.emulator.fault("close")
    assert await raw(wire) == (b"", None)
    assert wire.emulator.charges == []


async def test_idle_close_cuts_only_idle_connections(wire: Wire) -> None:
    wire.emulator.fault("idle-close", seconds=3)
    url = urlsplit(wire.emulator.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    request = b"GET /v1/user/balance HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n\r\n"
    for _ in range(3):  # each within the time, together longer
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")
        await asyncio.sleep(1.2)
    assert await asyncio.wait_for(reader.read(), 60) == b"", "closed, with no answer begun"
    writer.close()


async def test_media_type_and_huge_change_the_answer(wire: Wire) -> None:
    wire.emulator.fault("media-type", media_type="text/plain", times=1)
    wire.emulator.fault("huge", bytes=3_000_000, times=1)
    _, headers, body = await wire.post(GENERATE, PROMPT)
    assert headers["content-type"] == "text/plain"
    assert open_image(body).format == "PNG"
    _, headers, body = await wire.post(GENERATE, PROMPT)
    assert (headers["content-length"], len(body)) == ("3000000", 3_000_000)


async def test_pending_never_ends(wire: Wire) -> None:
    wire.emulator.fault("pending", method="GET")
    _, _, body = await wire.post(CREATIVE, {**PROMPT, "image": plain()})
    path = f"/v2beta/results/{json.loads(body)['id']}"
    await asyncio.sleep(0.3)
    status, _, body = await wire.get(path)
    assert (status, json.loads(body)["status"]) == (202, "in-progress")
    wire.emulator.clear_faults()
    assert (await wire.get(path))[0] == 200


async def test_a_fault_is_limited_by_target_method_times_and_probability(wire: Wire) -> None:
    wire.emulator.fault("status", target=SD3, method="POST", times=2)
    statuses = [(await wire.post(path, PROMPT))[0] for path in (GENERATE, SD3, SD3, SD3)]
    assert statuses == [200, 500, 500, 200]
    patterns = []
    for _ in range(2):
        wire.emulator.reset()
        wire.emulator.fault("status", probability=0.5, seed=3)
        patterns.append([(await wire.get("/v1/user/balance"))[0] for _ in range(30)])
    assert patterns[0] == patterns[1]
    assert 5 < patterns[0].count(500) < 25


async def test_a_list_over_http_replaces_the_last_one(wire: Wire) -> None:
    async def faults(arguments: object) -> int:
        return (await wire.send("POST", "/_emulator/faults", json=arguments))[0]

    assert await faults([{"kind": "status", "status": 503}, {"kind": "close", "method": "GET"}]) == 200
    assert (await wire.post(GENERATE, PROMPT))[0] == 503
    assert await faults([{"kind": "status", "status": 500}]) == 200
    assert (await wire.post(GENERATE, PROMPT))[0] == 500
    assert await faults([]) == 200
    assert (await wire.post(GENERATE, PROMPT))[0] == 200
    assert len(wire.emulator.requests) == 3, "the emulator's own paths are not counted"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "status"}, "JSON list"),
        (["status"], "JSON list"),
        ([{}], "kind: must be one of status, "),
        ([{"kind": "explode"}], "not 'explode'"),
        ([{"kind": "status", "sttus": 500}], "unknown parameter 'sttus'; did you mean 'status'?"),
        ([{"kind": "status", "status": "500"}], "status: must be"),
        ([{"kind": "status", "status": 99}], "status: "),
        ([{"kind": "status", "body": "xml"}], "body: "),
        ([{"kind": "delay", "seconds": -1}], "seconds: "),
        ([{"kind": "delay", "times": 1.5}], "times: "),
        ([{"kind": "delay", "charged": "yes"}], "charged: "),
        ([{"kind": "delay", "probability": 2}], "probability: "),
        ([{"kind": "cut"}, {"kind": "cut", "framing": "chunked"}], "framing: "),
    ],
)
async def test_a_wrong_fault_is_refused_and_changes_nothing(wire: Wire, arguments: object, message: str) -> None:
    wire.emulator.fault("status", status=418)
    status, _, body = await wire.send("POST", "/_emulator/faults", json=arguments)
    assert status == 400
    assert message in json.loads(body)["errors"][0]
    assert (await wire.post(GENERATE, PROMPT))[0] == 418


async def test_faults_that_are_not_json_are_refused(wire: Wire) -> None:
    for data in (b"", b"{", b"\xff", b"[" * 100_000):
        assert (await wire.send("POST", "/_emulator/faults", data=data))[0] == 400


async def test_the_python_call_raises_an_error_with_the_problem(wire: Wire) -> None:
    with pytest.raises(
        ValueError, match="seconds: .*; unknown parameter 'colour'|unknown parameter 'colour'.*; seconds: "
    ):
        wire.emulator.fault("delay", seconds="x", colour=1)


async def test_a_client_that_disconnects_is_charged(wire: Wire) -> None:
    wire.emulator.fault("delay", seconds=0.2)
    url = urlsplit(wire.emulator.url)
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(
            f"POST {GENERATE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
            f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(FORM)}\r\n\r\n".encode()
            + FORM
        )
        while not wire.emulator.requests:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while wire.emulator.credits != 3:
            await asyncio.sleep(0.01)
