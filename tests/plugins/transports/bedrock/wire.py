"""What the tests of Bedrock's transport share: models, answers of a raw server, and calls that are told apart."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime

import pytest

import impasto
from impasto import ConfigError
from impasto.options import Options
from impasto_plugins.bedrock import bedrock
from impasto_plugins.transports.aws import Identity, Once, find_identity
from tests.bedrock import ACCESS_KEY, CODE_URL, PICTURE, REQUEST_ID, SECRET_KEY
from tests.recorder import Answer as RecordersAnswer, ReceivedRequest, Recorder
from tests.reliability.servers import Answer, http

PUBLIC = "https://bedrock-runtime.us-west-2.amazonaws.com"
SERVICE = "bedrock/stability.stable-fast-upscale-v1:0"
GENERATOR = "bedrock/stability.stable-image-core-v1:1"
ERASE = "bedrock/us.stability.stable-image-erase-object-v1:0"
BODY = json.dumps({"seeds": [7], "finish_reasons": [None], "images": [base64.b64encode(PICTURE).decode()]}).encode()
HEADERS = {"content-type": "application/json", "x-amzn-requestid": REQUEST_ID}
FAST = impasto.Retry(base=0.002, cap=0.01, max_wait=0.1)
GOOD = http(200, BODY, **HEADERS)

MakeClient = Callable[..., impasto.Client]


def coded(status: int, code: str) -> Answer:
    return http(status, b'{"message":"no"}', **{**HEADERS, "x-amzn-errortype": f"{code}:{CODE_URL}"})


async def failure(client: impasto.Client, model: str = GENERATOR, **params: object) -> impasto.ImpastoError:
    arguments = params or {"prompt": "p"}
    with pytest.raises(impasto.ImpastoError) as caught:
        await client.run(model, **arguments)  # type: ignore[arg-type]  # the parameters of a test
    text = f"{caught.value!r} {caught.value}"
    assert SECRET_KEY not in text
    assert ACCESS_KEY not in text
    return caught.value


def signer(request: ReceivedRequest) -> str:
    """The access key id or the bearer token that a request goes out with."""
    header = request.header("authorization") or ""
    find_identity = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/|(Bearer .*)", header)
    assert find_identity is not None, header
    return find_identity[1] or find_identity[2]


async def called(wire: Recorder, **settings: object) -> ReceivedRequest:
    """The request of one call with these settings."""
    async with impasto.Client(**settings) as client:  # type: ignore[arg-type]  # the settings of a test
        await client.run(GENERATOR, prompt="p")
    return [request for request in wire.requests if "/model/" in request.path][-1]


async def error_text(**settings: object) -> str:
    """What is said of settings that do not do."""
    async with impasto.Client(**settings) as client:  # type: ignore[arg-type]  # the settings of a test
        with pytest.raises(ConfigError) as caught:
            await client.run(GENERATOR, prompt="p")
    assert caught.value.billed == "no"
    return caught.value.message


async def identified(**settings: object) -> Identity:
    """What botocore makes of settings, as a client hands them on, and of the environment."""
    account = bedrock.account({"access_key_id": "a", "secret_access_key": "s", **settings})
    return await Once(lambda: find_identity(account.settings, Options()))()


ROLE = """
[default]
role_arn=arn:aws:iam::123456789012:role/painter
source_profile=base
[profile base]
aws_access_key_id=AKIABASE
aws_secret_access_key=base-secret
"""


def in_xml(expires: datetime, action: str = "AssumeRole") -> RecordersAnswer:
    body = f"""<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
    <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role-secret-canary</SecretAccessKey>
    <SessionToken>role-token-canary</SessionToken><Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>
    </{action}Result></{action}Response>"""
    return RecordersAnswer(headers={"content-type": "text/xml"}, body=body.encode())
