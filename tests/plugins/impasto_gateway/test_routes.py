"""Paths: what can be asked for can be asked for without its body, and no answer tells what it was made with."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Running
from .raw import GET, HEADERS, Connection, send

PATHS = ("models", "models/sd3", "the file", "the job", "health/readiness", "metrics")


async def path_of(gateway: Running, path: str) -> str:
    if path == "the file":
        url: str = (await gateway.generate(response_format="url")).json["data"][0]["url"]
        return url.partition("/v1/")[2]
    if path == "the job":
        headers = {"prefer": "respond-async"}
        body = {"model": "sd3", "prompt": "p", "n": 3}
        answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
        while (await gateway.ask("GET", answer.headers["location"])).json["status"] == "in_progress":
            await asyncio.sleep(0.02)
        return answer.headers["location"].removeprefix("/v1/")
    return path


def head_of(answer: bytes) -> dict[bytes, bytes]:
    lines = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    headers = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
    return {name: value for name, value in headers.items() if name not in (b"date", b"x-request-id", b"cache-control")}


@pytest.mark.parametrize("path", PATHS)
async def test_a_head_is_that_of_the_answer_and_nothing_comes_behind_it(gateway: Running, path: str) -> None:
    path = await path_of(gateway, path)
    prefix = "" if path in ("metrics", "health/readiness") else "/v1"
    async with Connection(gateway.url) as connection:
        for method in ("HEAD", "GET"):
            connection.writer.write(f"{method} {prefix}/{path} HTTP/1.1\r\n".encode() + HEADERS + b"\r\n")
        head = await connection.reader.readuntil(b"\r\n\r\n")
        whole = await connection.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    lengths = [int(head_of(answer).pop(b"content-length")) for answer in (head, whole)]
    assert path == "metrics" or lengths[0] == lengths[1] > 0  # its numbers grow
    assert {**head_of(head), b"content-length": b""} == {**head_of(whole), b"content-length": b""}


async def test_a_head_where_there_is_nothing_to_get(standing: Running) -> None:
    answer = await standing.ask("HEAD", "/v1/images/generations")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "POST", b"")
    answer = await standing.ask("POST", "/metrics")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = await standing.ask("HEAD", "/v1/models/none")
    assert (answer.status, answer.body) == (404, b"")


ANSWERS = {
    "a list": GET + HEADERS + b"Connection: close\r\n\r\n",
    "an error": b"GET /x HTTP/1.1\r\n" + HEADERS + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02",
    "HTTP that is unsound": GET + HEADERS * 2 + b"\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_no_answer_tells_versions(standing: Running, name: str) -> None:
    answer = await send(standing.url, ANSWERS[name])
    assert b"\r\nserver: impasto\r\n" in answer.head + b"\r\n"
    assert b"aiohttp" not in answer.data
    assert b"python" not in answer.head
