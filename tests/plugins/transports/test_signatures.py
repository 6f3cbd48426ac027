"""Requests that their provider signs: botocore signs what arrived again, and must come to the same signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import impasto
from impasto import (
    Account,
    Artifact,
    BrokenPlugin,
    ChargeUnknown,
    File,
    FileRef,
    ImpastoError,
    Operation,
    Pending,
    Provider,
    ProviderFault,
    Registry,
    Request,
    Result,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.fields import choice, file, text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, recording
from tests.images import png

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ACCESS_KEY = "AKIDEXAMPLE"
IMAGE = png(16, 16)
PICTURE = Answer(headers={"content-type": "image/png"}, body=IMAGE)
SIGNED = "content-type;host;x-amz-date"


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


@attrs.frozen(kw_only=True, eq=False)
class Signing(Provider):
    """Signs as AWS's Signature Version 4 describes it."""

    @hookimpl
    def sign(
        self, account: Account, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str]:
        parts, time = urlsplit(url), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        values = {"content-type": headers.get("content-type", "none"), "host": parts.netloc, "x-amz-date": time}
        lines = "".join(f"{name}:{value}\n" for name, value in values.items())
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"{method}\n{parts.path}\n{parts.query}\n{lines}\n{SIGNED}\n{digest}"
        scope = f"{time[:8]}/eu-west-1/paint/aws4_request"
        message = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{account.key}".encode()
        for part in (*scope.split("/"), message):
            key = _hmac(key, part)
        about = f"Credential={account.settings['access_key']}/{scope}, SignedHeaders={SIGNED}, Signature={key.hex()}"
        return {
            **{name: values[name] for name in ("content-type", "x-amz-date")},
            "authorization": f"AWS4-HMAC-SHA256 {about}",
        }


def is_signed(request: RecordedRequest) -> bool:
    """Return True if botocore signs the bytes that arrived in the same way."""
    names = {name: request.header(name) for name in SIGNED.split(";")}
    again = AWSRequest(request.method, f"http://{names['host']}{request.target}", headers=names, data=request.body)
    again.context["timestamp"] = names["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET), "paint", "eu-west-1")
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return request.header("authorization").endswith(f"Signature={signer.signature(text, again)}")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")
    encoding: str | None = choice("form", "json")
    image: File | None = file()


class Dialect:
    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        params: Any = request.params
        if request.job is not None:
            return WireRequest(target=f"/jobs/{request.job}", method="GET")
        fields: dict[str, Any] = {"prompt": params.prompt}
        if params.encoding == "json":
            images = [] if params.image is None else [FileRef(params.image)]
            return WireRequest(target="/v1/paint?version=2", fields={**fields, "images": images}, encoding="json")
        files = [] if params.image is None else [("image", params.image)]
        return WireRequest(target="/v1/paint", fields=fields, files=files)

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 503:
            return ProviderFault("busy", status=503)
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))
        job = str(json.loads(response.body)["job"])
        poll = WireRequest(target=f"/jobs/{job}", method="GET")
        return Pending(id=job, poll=poll, interval=0.01, first=0.0)


@asynccontextmanager
async def provider(*answers: Answer) -> AsyncIterator[tuple[impasto.Client, list[RecordedRequest]]]:
    """Serve a provider with these answers, the last again and again, and yield a client and the requests."""
    left = iter(answers)
    async with recording(lambda request: next(left, answers[-1])) as recorder:
        registry = Registry()
        signing = Signing(
            name="signing", base_url=recorder.url, key_variable="SIGNING_KEY", key_header="", settings=("access_key",)
        )
        paint = Operation(
            id="signing/paint", title="Paint", params=Params, target="/", provider=signing, dialect=Dialect()
        )
        registry.add(OPERATIONS, "signing/paint", paint)
        settings = {"signing": {"api_key": SECRET, "access_key": ACCESS_KEY}}
        async with impasto.Client(registry=registry, providers=settings) as client:
            yield client, recorder.requests


@pytest.mark.parametrize("encoding", ["form", "json"])
@pytest.mark.parametrize("image", [None, IMAGE], ids=["text", "file"])
async def test_a_signature_is_of_the_bytes_that_are_sent(encoding: str, image: bytes | None) -> None:
    async with provider(PICTURE) as (client, requests):
        result = await client.run("signing/paint", prompt="a fox \u00e9", encoding=encoding, image=image)
    assert result.artifacts[0].data == IMAGE
    [request] = requests
    assert is_signed(request)
    assert not is_signed(attrs.evolve(request, body=request.body + b" "))
    assert SECRET.encode() not in b"\n".join([*(f"{k}: {v}".encode() for k, v in request.headers), request.body])


async def test_each_attempt_and_each_poll_has_a_signature_of_its_own() -> None:
    answers = (
        Answer(status=503, headers={"content-type": "application/json"}, body=b"{}"),
        Answer(headers={"content-type": "application/json"}, body=b'{"job": "j1"}'),
        PICTURE,
    )
    async with provider(*answers) as (client, requests):
        retry = impasto.Retry(attempts=2, refused=1, base=0)
        await client.run("signing/paint", prompt="x", image=IMAGE, retry=retry)
    assert [request.method for request in requests] == ["POST", "POST", "GET"]
    assert [is_signed(request) for request in requests] == [True] * 3


async def test_a_hook_that_fails_sends_nothing_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**request: object) -> Mapping[str, str]:
        raise RuntimeError(f"it holds {SECRET}")

    async with provider(PICTURE) as (client, requests):
        monkeypatch.setattr(Signing, "sign", hookimpl(lambda self, account: fail(account=account)))
        with pytest.raises(BrokenPlugin, match="sign raised RuntimeError; nothing was sent") as caught:
            await client.run("signing/paint", prompt="x")
        monkeypatch.setattr(Signing, "sign", hookimpl(lambda self, account: {"x-signature": "a\r\nb: c"}))
    async with provider(PICTURE) as (client, again):
        with pytest.raises(BrokenPlugin, match="a plugin's header 'x-signature' can't be sent"):
            await client.run("signing/paint", prompt="x")
    assert not requests
    assert not again
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert caught.value.billed == "no"


async def test_a_key_that_signs_is_in_no_header() -> None:
    account = Signing(name="s", base_url="https://s.example", key_header="").account({"api_key": SECRET})
    assert (account.headers, account.query, account.key, account.secrets) == ({}, {}, SECRET, (SECRET,))
    assert SECRET not in repr(account)
