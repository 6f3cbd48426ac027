"""Paths and heads: what can be told by a head is told by it alone, and no answer tells what it was made with."""

from __future__ import annotations

import asyncio

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Running
from tests.plugins.gateway.raw import GET, HEADERS, KEY, Connection, Raw, send

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


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("*", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("/v1/images/generations", {"POST", "OPTIONS"}),
        ("/images/edits", {"POST", "OPTIONS"}),
        ("/openai/deployments/sd3/images/generations", {"POST", "OPTIONS"}),
        ("/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/models/sd3", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/files", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/files/file-1", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/metrics", {"GET", "HEAD", "OPTIONS"}),
        ("/health/readiness", {"GET", "HEAD", "OPTIONS"}),
    ],
)
@pytest.mark.parametrize("key", [KEY, b""], ids=["key", "no key"])
async def test_a_client_may_ask_which_methods_a_path_takes(
    standing: Running, path: str, allow: set[str], key: bytes
) -> None:
    """RFC 9110, 9.3.7: of a resource, or of the whole server."""
    request = f"OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + key + b"Connection: close\r\n\r\n"
    raw = await send(standing.url, request)
    assert raw.status == 204
    assert set(head_of(raw.data)[b"allow"].decode().upper().split(", ")) == allow


def encoded(path: str) -> str:
    """Percent-encode every letter, digit and mark of a path but its slashes."""
    return "".join(each if each == "/" else f"%{ord(each):02x}" for each in path)


@pytest.mark.parametrize("path", ["/v1/models", "/models/sd3", "/openai/v1/models", "/health/readiness", "/metrics"])
async def test_a_percent_encoded_letter_is_that_letter(standing: Running, path: str) -> None:
    """RFC 3986, 6.2.2.2."""
    plain, other = [
        await send(standing.url, f"GET {each} HTTP/1.1\r\n".encode() + HEADERS + b"Connection: close\r\n\r\n")
        for each in (path, encoded(path))
    ]
    assert plain.status == other.status == 200


@pytest.mark.parametrize("path", ["/v1%2Fmodels", "%2fv1/models", "/v1/images%2Fgenerations", "/health%2freadiness"])
async def test_a_percent_encoded_slash_separates_nothing(standing: Running, path: str) -> None:
    raw = await send(standing.url, f"GET {path} HTTP/1.1\r\n".encode() + HEADERS + b"Connection: close\r\n\r\n")
    assert raw.status in (400, 404)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/sd3", "/v1/files"])
async def test_an_encoded_path_needs_the_key_and_the_host_of_the_plain_one(standing: Running, path: str) -> None:
    first = f"GET {encoded(path)} HTTP/1.1\r\n".encode()
    raw = await send(standing.url, first + b"Host: localhost\r\nConnection: close\r\n\r\n")
    assert raw.status == 401
    raw = await send(standing.url, first + b"Host: evil.example\r\n" + KEY + b"Connection: close\r\n\r\n")
    assert raw.status == 421


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/images/generations", "/health/liveliness", "/metrics"])
async def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(
    standing: Running, method: str, path: str
) -> None:
    answer = await standing.ask(method, path)
    assert answer.status == 405
    assert answer.headers["allow"] in ("GET, HEAD", "POST")


async def test_nothing_is_sent_back_of_a_trace(standing: Running) -> None:
    """It would show a page's script the caller's key (RFC 9110, 9.3.8)."""
    raw = await send(
        standing.url, b"TRACE /v1/models HTTP/1.1\r\n" + HEADERS + b"X-Secret: canary\r\nConnection: close\r\n\r\n"
    )
    assert raw.status == 405
    assert b"canary" not in raw.data


async def test_methods_are_not_listed_for_hosts_and_paths_that_are_not_here(standing: Running) -> None:
    answer = await standing.ask("OPTIONS", "/v1/models", headers={"host": "evil.example"})
    assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    answer = await standing.ask("OPTIONS", "/nothing")
    assert answer.status == 404


def request_head(path: bytes = b"/v1/images/generations", *, method: bytes = b"POST", **headers: bytes) -> bytes:
    """The head of a request whose body has a kilobyte, which does not come."""
    payload = {"Host": b"localhost", "Authorization": b"Bearer sk-1234", "Content-Type": b"application/json"}
    payload |= {"Content-Length": b"1024"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in payload.items())
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (method, path, lines)


EDITS = b"/v1/images/edits"
FORM = b"multipart/form-data; boundary=x"
HEADS: dict[str, tuple[bytes, int, str]] = {
    "the API key is invalid": (request_head(Authorization=b"Bearer no"), 401, "invalid_api_key"),
    "no key": (request_head(Authorization=b""), 401, "invalid_api_key"),
    "no such path": (request_head(b"/v1/images"), 404, "unknown_url"),
    "another method": (request_head(method=b"PUT"), 405, "method_not_allowed"),
    "too large": (request_head(Content_Length=b"99999999"), 413, "request_too_large"),
    "a form too large": (request_head(EDITS, Content_Type=FORM, Content_Length=b"999999999"), 413, "request_too_large"),
    "another kind": (request_head(Content_Type=b"text/plain"), 415, "unsupported_content_type"),
    "compressed": (request_head(Content_Encoding=b"gzip"), 415, "unsupported_encoding"),
    "another's host": (request_head(Host=b"evil.example"), 421, "host_not_allowed"),
    "no boundary": (request_head(EDITS, Content_Type=b"multipart/form-data"), 400, "invalid_form"),
    "two lengths": (request_head(Transfer_Encoding=b"chunked"), 400, "invalid_http"),
    "no such model": (request_head(b"/v1/models/none", method=b"GET"), 404, "model_not_found"),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_is_refused_is_answered_without_the_body(
    standing: Running, impasto_emulator: Emulator, name: str
) -> None:
    head, status, code = HEADS[name]
    async with Connection(standing.url) as connection:
        connection.writer.write(head)
        answer = Raw(await connection.answer(), closed=False)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert not impasto_emulator.requests


@pytest.mark.parametrize(("kind", "numerator", "denominator"), [(b"application/json", 4, 3), (FORM, 1, 1)])
async def test_json_may_be_a_third_larger_than_a_form_for_its_base64(
    standing: Running, kind: bytes, numerator: int, denominator: int
) -> None:
    most = standing.gateway._app.runtime.max_body_bytes * numerator // denominator
    for length, status in ((most, b"100"), (most + 1, b"413")):
        head = request_head(EDITS, Content_Type=kind, Content_Length=b"%d" % length, Expect=b"100-continue")
        async with Connection(standing.url) as connection:
            connection.writer.write(head)
            assert (await connection.reader.readline()).split()[1] == status


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
