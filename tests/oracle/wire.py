"""Compare recorded requests with the contract."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import quote

from tests.oracle.contract import Contract
from tests.oracle.recording import JOB, RecordedRequest
from tests.oracle.samples import Values

KEY = "sk-" + "oracle-" * 6
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "oracle/secret+" * 3
REGION = "us-west-2"

STABILITY_HEADERS = {
    "host",
    "user-agent",
    "accept-encoding",
    "authorization",
    "accept",
    "content-type",
    "content-length",
    "stability-client-id",
    "stability-client-user-id",
    "stability-client-version",
}
BEDROCK_HEADERS = {
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "authorization",
    "content-type",
    "content-length",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "x-amz-date",
    "x-amz-security-token",
}
MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp", b"\xff\xe3": "audio/mpeg"}


def media_type(data: bytes) -> str:
    """Return the type of a file of these tests."""
    if data[8:12] == b"WAVE":
        return "audio/wav"
    return next(kind for magic, kind in MAGIC.items() if data.startswith(magic))


def check(
    contract: Contract, values: Values, request: RecordedRequest, *, headers: Mapping[str, str] | None = None
) -> None:
    """Fail if a request is not exactly what the contract makes of these values."""
    assert request.method == "POST"
    more = dict(headers or {})
    if contract.provider == "stability":
        _check_form(contract, values, request)
        allowed = STABILITY_HEADERS
    else:
        _check_body(contract, values, request)
        allowed = BEDROCK_HEADERS | more.keys()
    assert {name for name, _ in request.headers} <= allowed
    for name, value in more.items():
        assert request.header(name) == value


def check_poll(contract: Contract, request: RecordedRequest) -> None:
    """Fail if a request does not fetch a job's result as the contract has it."""
    assert (request.method, request.path) == ("GET", f"{contract.results}{JOB}")
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("accept") in ("*/*", f"{contract.makes}/*", "application/json")
    assert {name for name, _ in request.headers} <= STABILITY_HEADERS - {"content-type"}
    assert not request.body


def _check_form(contract: Contract, values: Values, request: RecordedRequest) -> None:
    assert request.path == contract.path
    assert request.header("authorization") == f"Bearer {KEY}"
    assert re.fullmatch(r"multipart/form-data; boundary=\S+", request.header("content-type") or "")
    assert request.header("accept") in (contract.accept or (None, "*/*"))
    expected = {**values, **contract.constants}
    names = [part.name for part in request.parts]
    assert sorted(names) == sorted(expected)
    for part in request.parts:
        value = expected[part.name]
        if isinstance(value, bytes):
            assert part.filename, f"{part.name} must be a file part"
            assert part.media_type == media_type(value)
            assert part.data == value
            continue
        assert part.filename is None, f"{part.name} must be a plain field"
        assert part.media_type == "text/plain"
        text = part.data.decode()
        if isinstance(value, str):
            assert text == value
        else:
            assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text), f"{part.name} is {text}"
            assert Decimal(text) == Decimal(repr(value))


def _check_body(contract: Contract, values: Values, request: RecordedRequest) -> None:
    assert request.path == f"/model/{quote(contract.path, safe='')}/invoke"
    assert request.header("content-type") == "application/json"
    assert request.header("accept") in (None, "*/*", "application/json")
    body = json.loads(request.body)
    expected = {n: base64.b64encode(v).decode() if isinstance(v, bytes) else v for n, v in values.items()}
    assert body == expected
    for name, value in body.items():
        assert isinstance(value, bool) is False
        if contract.fields[name].kind == "integer":
            assert isinstance(value, int)
    region, actual = _scope(request)
    assert region == REGION
    assert hmac.compare_digest(actual, signature(request, SECRET_KEY))


_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>[0-9]{8})/(?P<region>[a-z0-9-]+)/bedrock/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def _scope(request: RecordedRequest) -> tuple[str, str]:
    match = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
    assert match is not None, request.header("authorization")
    assert match["key"] == ACCESS_KEY
    assert {"host", "x-amz-date"} <= set(match["headers"].split(";"))
    return match["region"], match["signature"]


def signature(request: RecordedRequest, secret: str) -> str:
    """Return AWS's signature (version 4) of a request, made from its own scope and list of signed headers."""
    match = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
    assert match is not None
    names = match["headers"].split(";")
    path, _, query = request.path.partition("?")
    canonical = "\n".join(
        (
            request.method,
            quote(path, safe="/~"),
            query,
            *(f"{name}:{' '.join((request.header(name) or '').split())}" for name in names),
            "",
            match["headers"],
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    scope = f"{match['day']}/{match['region']}/bedrock/aws4_request"
    date = request.header("x-amz-date") or ""
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for word in (*scope.split("/"), text):
        key = hmac.digest(key, word.encode(), "sha256")
    return key.hex()
