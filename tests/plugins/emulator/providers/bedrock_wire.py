"""Calls of the emulator's Bedrock by boto3 and by hand, and the form of its refusals."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.bedrock import ACCESS_KEY, CODE_URL, SECRET_KEY
from tests.plugins.emulator.conftest import Wire

SKETCH = "us.stability.stable-image-control-sketch-v1:0"
REMOVE = "us.stability.stable-image-remove-background-v1:0"
CORE = "stability.stable-image-core-v1:1"
ACCOUNT = "123456789012"
APPLICATION = f"arn:aws:bedrock:us-west-2:{ACCOUNT}:application-inference-profile/abc123def456"
SETTINGS: dict[str, Any] = {
    "aws_keys": {ACCESS_KEY: SECRET_KEY},
    "inference_profiles": {APPLICATION: SKETCH},
}
InvokeAnswer = tuple[int, Mapping[str, str], Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with serve(attrs.evolve(SHORT, **SETTINGS)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator) -> Emulator:
    """In a thread of its own, as boto3 blocks."""
    shared.reset()
    return shared


def in_boto3(emulator: Emulator, **changes: Any) -> Any:
    """boto3 as it comes. It has no types."""
    settings = {
        "region_name": "us-west-2",
        "endpoint_url": emulator.url,
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "config": Config(retries={"total_max_attempts": 1}),
        **changes,
    }
    return boto3.client("bedrock-runtime", **settings)


@pytest.fixture(scope="module")
def boto(shared: Emulator) -> Iterator[Any]:
    client = in_boto3(shared)
    yield client
    client.close()


def body_of(arguments: Mapping[str, object]) -> dict[str, object]:
    """A body as anybody would write it."""
    return {n: base64.b64encode(v).decode() if isinstance(v, bytes) else v for n, v in arguments.items()}


async def invoke(wire: Wire, id: str, body: object, *, key: str | None = "any", **headers: str) -> InvokeAnswer:
    """A call by hand, with a bearer key. ``id`` is put into the path as it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/model/{id}/invoke"
    status, answered, message = await wire.send("POST", path, data=io.BytesIO(data), key=key, headers=headers)
    return status, answered, json.loads(message)


def refused(answer: InvokeAnswer, code: str, status: int) -> str:
    """The message of a refusal, after its form was looked at."""
    assert answer[0] == status, answer
    assert answer[1]["x-amzn-ErrorType"] == f"{code}:{CODE_URL}"
    assert answer[1]["content-type"] == "application/json"
    assert len(answer[1]["x-amzn-RequestId"]) >= 32
    assert "x-request-id" not in answer[1]
    assert answer[2].keys() == {"message"}
    message: str = answer[2]["message"]
    return message


def detail(answer: InvokeAnswer) -> str:
    """What is wrong with a field: the message is JSON text itself."""
    inner = json.loads(refused(answer, "ValidationException", 400))
    assert inner.keys() == {"detail"}
    message: str = inner["detail"]
    return message


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    """What boto3 makes of a refusal: its code and status."""
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]
