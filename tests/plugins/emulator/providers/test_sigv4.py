"""Signatures: three requests that were signed elsewhere, and everything that makes one of them not count."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from impasto_plugins.emulator.providers.sigv4 import (
    Authorization,
    SignatureRejected,
    SignedRequest,
    build_canonical_request,
    parse_access_key,
    parse_authorization,
    verify_signature,
)

SECRETS = {"AKIDEXAMPLE": "example-secret"}
SIGNED_AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOST = "bedrock-runtime.us-west-2.amazonaws.com"
CREDENTIAL = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260115/us-west-2/bedrock/aws4_request"


def signed(path: str, body: str, signed_headers: str, signature: str, **headers: str) -> SignedRequest:
    return SignedRequest(
        path=path,
        headers={
            "host": HOST,
            "x-amz-date": "20260115T120000Z",
            "authorization": f"{CREDENTIAL}, SignedHeaders={signed_headers}, Signature={signature}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        body_hash=hashlib.sha256(body.encode()).hexdigest(),
    )


ENCODED = signed(
    "/model/stability.sd3-5-large-v1%3A0/invoke",
    '{"prompt": "a red cube"}',
    "host;x-amz-date",
    "c1f3c2cd6d657e0579720faa00e19aa383090db4c8e12bad865980eb15d37e3b",
)
RAW = signed(
    "/model/stability.sd3-5-large-v1:0/invoke",
    '{"prompt": "a red cube"}',
    "content-type;host;x-amz-date",
    "20ca56b0685b158eca93823ede58648c84d7c333dd6ee66a5fc5e3f6b39050d2",
    content_type="application/json",
)
WITH_TOKEN = signed(
    "/model/us.stability.stable-outpaint-v1%3A0/invoke",
    '{"image":"QUJD","left":64}',
    "accept;content-type;host;x-amz-date;x-amz-security-token",
    "932dec21f32db79ec9d98db8bd47c141a1cb63efcd0d9cc9ae3409b154509031",
    content_type="application/json",
    accept="application/json",
    x_amz_security_token="SESSIONTOKEN",
)
CANONICAL = [
    (ENCODED, "%253A", "5f9f0219b041f2be3ac508d7d2eb51d5a13b38dbb8616be45a39519f751be70d"),
    (RAW, "%3A", "1b8b63f996db2d8769755ef5fb20afcc8ad6b18367463f141a5bc11c09e6810e"),
    (WITH_TOKEN, "%253A", "2539d246f14a3d2e8dcc8fed902310ced435961b4a002d93f2378f3b065e6cba"),
]
ALL = pytest.mark.parametrize("request_", [ENCODED, RAW, WITH_TOKEN], ids=["encoded", "raw", "with a token"])


def verified(request: SignedRequest, *, now: datetime = SIGNED_AT, secrets: dict[str, str] = SECRETS) -> Authorization:
    return verify_signature(request, secrets, service="bedrock", now=now)


def rejected(
    request: SignedRequest, *, now: datetime = SIGNED_AT, secrets: dict[str, str] = SECRETS
) -> tuple[str, int]:
    with pytest.raises(SignatureRejected) as caught:
        verified(request, now=now, secrets=secrets)
    assert "example-secret" not in caught.value.message
    return caught.value.code, caught.value.status


def changed(request: SignedRequest, **headers: str | None) -> SignedRequest:
    arguments = {**request.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return attrs.evolve(request, headers={name: value for name, value in arguments.items() if value is not None})


@pytest.mark.parametrize(("request_", "colon", "digest"), CANONICAL)
def test_the_path_is_encoded_once_more(request_: SignedRequest, colon: str, digest: str) -> None:
    text = build_canonical_request(request_, parse_authorization(request_.headers["authorization"]).signed_headers)
    assert text.splitlines()[1].endswith(f"v1{colon}0/invoke")
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@ALL
def test_valid_signatures_are_accepted(request_: SignedRequest) -> None:
    arguments = verified(request_)
    assert (arguments.access_key, arguments.region) == ("AKIDEXAMPLE", "us-west-2")


@ALL
def test_a_wrong_secret_is_refused(request_: SignedRequest) -> None:
    assert rejected(request_, secrets={"AKIDEXAMPLE": "example-secreT"}) == ("InvalidSignatureException", 403)


@ALL
def test_an_unknown_access_key_is_refused(request_: SignedRequest) -> None:
    assert rejected(request_, secrets={"AKIDOTHER": "example-secret"}) == ("UnrecognizedClientException", 403)


@ALL
def test_a_wrong_clock_is_refused(request_: SignedRequest) -> None:
    for minutes in (-5, 5):
        verified(request_, now=SIGNED_AT + timedelta(minutes=minutes))
    for seconds in (-301, 301):
        assert rejected(request_, now=SIGNED_AT + timedelta(seconds=seconds)) == ("RequestExpired", 400)


@ALL
def test_any_other_change_of_the_request_is_refused(request_: SignedRequest) -> None:
    other = hashlib.sha256(b"{}").hexdigest()
    for each in (
        attrs.evolve(request_, body_hash=other),
        attrs.evolve(request_, path=request_.path.replace("v1", "v2")),
        attrs.evolve(request_, method="PUT"),
        attrs.evolve(request_, query="a=b"),
        changed(request_, host="example.com"),
    ):
        assert rejected(each) == ("InvalidSignatureException", 403)
    assert rejected(changed(WITH_TOKEN, x_amz_security_token="OTHER")) == ("InvalidSignatureException", 403)


def test_headers_that_must_be_signed_are_required() -> None:
    verified(changed(ENCODED, accept="text/html", amz_sdk_request="attempt=1"))
    assert rejected(changed(ENCODED, x_amz_security_token="T")) == ("InvalidSignatureException", 403)
    unsigned_host = changed(ENCODED, authorization=ENCODED.headers["authorization"].replace("host;", ""))
    assert rejected(unsigned_host) == ("InvalidSignatureException", 403)


def test_another_service_or_date_in_the_scope_is_refused() -> None:
    for part, other in (("/bedrock/", "/s3/"), ("/20260115/", "/20260114/")):
        request = changed(ENCODED, authorization=ENCODED.headers["authorization"].replace(part, other))
        assert rejected(request) == ("InvalidSignatureException", 403)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=A/20260115/us-west-2/bedrock/aws4_request",
        "AWS4-HMAC-SHA256 Credential=A, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=A/b/c/d/e, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 garbage",
        CREDENTIAL.replace("SHA256", "SHA1") + ", SignedHeaders=host, Signature=00",
    ],
)
def test_an_incomplete_header_is_refused(header: str) -> None:
    assert rejected(changed(ENCODED, authorization=header)) == ("IncompleteSignature", 400)


@pytest.mark.parametrize("date", [None, "", "2026-01-15T12:00:00Z", "20260115", "99999999T999999Z"])
def test_a_missing_or_invalid_date_is_refused(date: str | None) -> None:
    assert rejected(changed(ENCODED, x_amz_date=date)) == ("IncompleteSignature", 400)


def test_the_access_key_is_read_without_verifying() -> None:
    assert parse_access_key(ENCODED.headers["authorization"]) == "AKIDEXAMPLE"
    assert parse_access_key("AWS4-HMAC-SHA256 nothing") is None
    assert parse_access_key("Bearer Credential=a/") is None
