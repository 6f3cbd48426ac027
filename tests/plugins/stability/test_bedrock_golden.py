"""Each Bedrock model's whole request as it goes out, every field given, and its fields in words: ``golden_bedrock/``.

``--update-golden`` writes them again; the diff is for review against AWS's document.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

import impasto
from impasto import Operation
from impasto.testing.golden import operation_text
from tests.bedrock import ACCESS_KEY, KEYS, SESSION_TOKEN, pictured
from tests.images import padded
from tests.plugins.stability.bedrock_cases import MODELS, SD3, SD35, in_body
from tests.plugins.stability.test_golden import VALUES as DIRECT
from tests.recorder import ReceivedRequest, Recorder

GOLDEN = Path(__file__).parent / "golden_bedrock"

VALUES = {
    **DIRECT,
    "grow_mask": 12,
    "output_format": "jpeg",
    "image": padded(1000, 640, 700),
    "style_image": padded(600, 96, 96),
    "guardrailIdentifier": "abc123",
    "guardrailVersion": "DRAFT",
    "trace": "ENABLED",
}


def requests(operation: Operation) -> list[dict[str, object]]:
    """Every field at once; where two shut each other out, one request with either."""
    everything: dict[str, object] = {name: VALUES[name] for name in operation.fields}
    if "mode" in everything and operation.target not in (SD35, SD3):
        everything["mode"] = "text-to-image"
    if operation.target not in (SD35, SD3):
        return [everything]
    to_image: dict[str, object] = {name: value for name, value in everything.items() if name != "aspect_ratio"}
    from_text: dict[str, object] = {
        name: value for name, value in everything.items() if name not in ("image", "strength")
    }
    return [from_text | {"mode": "text-to-image"}, to_image]


def written(request: ReceivedRequest, recorder: Recorder) -> str:
    """A request as text, pictures by their size."""
    lines = [f"{request.method} {request.path}"]
    for name, value in request.headers:
        text = re.sub(r"Signature=[0-9a-f]{64}", "Signature=SIGNATURE", value)
        text = re.sub(r"\b[0-9]{8}(T[0-9]{6}Z)?\b", "DATE", text).replace(ACCESS_KEY, "ACCESSKEY")
        text = text.replace(SESSION_TOKEN, "TOKEN")
        lines.append(f"{name}: {text.replace(recorder.url.removeprefix('http://'), 'HOST')}")
    body = request.body.decode()
    for name, value in json.loads(body).items():
        if isinstance(VALUES[name], bytes):
            body = body.replace(value, f"<base64 of {len(base64.b64decode(value, validate=True))} bytes>")
    return "\n".join([*lines, "", body, ""])


def path_of(operation: Operation) -> Path:
    return GOLDEN / f"{operation.target.replace(':', '-')}.txt"


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_the_whole_request_is_as_it_was_reviewed(
    recorder: Recorder, operation: Operation, request: pytest.FixtureRequest
) -> None:
    recorder.answer = lambda received: pictured()
    async with impasto.Client(**KEYS, aws_session_token=SESSION_TOKEN, bedrock_endpoint=recorder.url) as client:
        for arguments in requests(operation):
            await client.invoke(operation.id, arguments, user="user-7")
            assert json.loads(recorder.requests[-1].body).keys() == in_body(operation, arguments).keys()
    now = "\n".join([operation_text(operation), *(written(received, recorder) for received in recorder.requests)])
    path = path_of(operation)
    if request.config.getoption("--update-golden"):
        path.write_text(now)
    assert now == path.read_text(), f"run pytest with --update-golden and review the diff of {path.name}"
    assert "user-7" not in now, "Bedrock has no field and no header for the end user"


def test_there_is_one_golden_file_for_each_model_and_no_other() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path_of(operation).name for operation in MODELS.values()}
