"""Every model of Bedrock's under the suite that other people's plugins pass."""

from __future__ import annotations

import base64
import json

import impasto
from impasto import Operation
from impasto.options import Settings
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements
from tests.conformance.naming import class_name
from tests.images import png
from tests.plugins.stability.bedrock_cases import MODELS, minimal, request
from tests.plugins.stability.test_bedrock_golden import VALUES

ANSWER = {"seeds": [7], "finish_reasons": [None], "images": [base64.b64encode(png(8, 8)).decode()]}


GUARDED = {
    "guardrailIdentifier": {"guardrailVersion": "1"},
}
"""What goes with a field of the guardrail."""


def refusal(status: int, code: str, error: type[impasto.ImpastoError]) -> Refusal:
    headers = {"content-type": "application/json", "x-amzn-errortype": code}
    return Refusal(answer=Answer(status=status, headers=headers, body=b'{"message":"no"}'), error=error)


class Bedrock(OperationSuite):
    """What all have in common."""

    success = Answer(headers={"content-type": "application/json"}, body=json.dumps(ANSWER).encode())
    refusals = (
        refusal(400, "ValidationException", impasto.BadRequest),
        refusal(403, "AccessDeniedException", impasto.PermissionDenied),
        refusal(403, "InvalidSignatureException", impasto.Unauthorized),
        refusal(404, "ResourceNotFoundException", impasto.NotFound),
        refusal(429, "ThrottlingException", impasto.RateLimited),
        refusal(500, "InternalServerException", impasto.ProviderFault),
    )
    requirements = Requirements(formatted_fields=frozenset({"guardrailIdentifier", "guardrailVersion"}))
    golden = None  # test_bedrock_golden.py shows more

    def params_with(self, field: str, value: object) -> dict[str, object]:
        return {**request(self.operation(), field, value), **GUARDED.get(field, {}), field: value}

    def settings(self, url: str) -> Settings:
        return {
            "aws_region": "us-west-2",
            "aws_access_key_id": "AKIDEXAMPLE",
            "aws_secret_access_key": KEY,
            "bedrock_endpoint": url,
        }


def suite(operation: Operation) -> type[Bedrock]:
    needed = minimal(operation)
    others = {name: VALUES[name] for name in operation.fields if name not in needed}
    if "mode" in others:
        others["mode"] = operation.fields["mode"].choices[-1]
    return type(class_name(operation), (Bedrock,), {"model": operation.id, "minimal": needed, "others": others})


for each in MODELS.values():
    globals()[class_name(each)] = suite(each)
