"""The oracle itself: its data is whole, and its judgement of a signature is AWS's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.oracle.contract import BEDROCK_WIRE, EVERY
from tests.oracle.recording import RecordedRequest
from tests.oracle.samples import full_requests, invalid_requests, rules, sizes, valid_requests
from tests.oracle.wire import signature

HEADERS = {
    "accept": "application/json",
    "content-type": "application/json",
    "host": "bedrock-runtime.us-west-2.amazonaws.com",
    "x-amz-date": "20260115T120000Z",
    "x-amz-security-token": "SESSIONTOKEN",
}


@pytest.mark.parametrize("contract", EVERY, ids=lambda contract: f"{contract.provider}-{contract.id}")
def test_each_operation_names_its_source_and_can_be_tried(contract) -> None:
    assert contract.source.startswith(("Stability AI REST API", "Amazon Bedrock User Guide"))
    for values in (*valid_requests(contract), *full_requests(contract)):
        assert values.keys() <= contract.fields.keys()
        assert {name for name, field in contract.fields.items() if field.required} <= values.keys()
    assert {name for each in invalid_requests(contract) for name in each.names} >= contract.fields.keys() - _free(
        contract
    )
    assert all(field.limits.fit(*size) for field in contract.fields.values() for size in sizes(field.limits)[0])
    assert not any(field.limits.fit(*size) for field in contract.fields.values() for size in sizes(field.limits)[1])
    assert all(why for why, *_ in rules(contract))


def _free(contract) -> set[str]:
    """The fields that the vendor does not limit."""
    return {n for n, f in contract.fields.items() if "formats" in f.open or (f.kind == "text" and f.most is None)}


EXPECTED = (
    *(f"oracle/{name}.py" for name in ("contract/__init__", "samples", "recording", "wire")),
    "images.py",
    "media.py",
)


@pytest.mark.parametrize("path", EXPECTED)
def test_expected_values_come_from_nothing_of_impasto(path: str) -> None:
    for node in ast.walk(ast.parse((Path(__file__).parents[1] / path).read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith(("impasto", "tests.recorder", "tests.plugins"))]


@pytest.mark.parametrize("path", sorted(BEDROCK_WIRE["signatures"]))
def test_a_signature_is_made_as_aws_makes_it(path: str) -> None:
    vector = BEDROCK_WIRE["signatures"][path]
    scope = "Credential=AKIDEXAMPLE/20260115/us-west-2/bedrock/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders={vector['headers']}, Signature={vector['signature']}"
    request = RecordedRequest(
        method="POST",
        path=path,
        headers=(*HEADERS.items(), ("authorization", authorization)),
        body=vector["body"].encode(),
    )
    assert signature(request, "example-secret") == vector["signature"]
