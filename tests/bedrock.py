"""Bedrock for tests: a client's settings, and answers in its form that no code of ours wrote."""

from __future__ import annotations

import base64
import json
from typing import TypedDict

from tests.images import png
from tests.recorder import Answer

ACCESS_KEY = "AKIATESTS0123456789"
SECRET_KEY = "tests/secret+" * 3  # a secret with what must be encoded in URLs
SESSION_TOKEN = "tests-session-token-" * 4
REGION = "us-west-2"
REQUEST_ID = "6d3b2c1a-0000-4000-8000-0123456789ab"
PICTURE = png(8, 8)
CODE_URL = "http://internal.amazon.com/coral/com.amazon.bedrock/"


class Keys(TypedDict):
    """Settings of a client."""

    aws_region: str
    aws_access_key_id: str
    aws_secret_access_key: str


KEYS = Keys(aws_region=REGION, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)


def bedrock_json(body: object, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON."""
    params = {"content-type": "application/json", "x-amzn-requestid": REQUEST_ID, **headers}
    return Answer(status=status, headers=params, body=json.dumps(body, separators=(",", ":")).encode())


def pictured(data: bytes = PICTURE, *, seed: int = 7) -> Answer:
    """A good answer."""
    return bedrock_json({"seeds": [seed], "finish_reasons": [None], "images": [base64.b64encode(data).decode()]})


def failed(code: str, status: int, message: str = "no", **headers: str) -> Answer:
    """A refusal with its code."""
    return bedrock_json({"message": message}, status, **{"x-amzn-errortype": f"{code}:{CODE_URL}", **headers})
