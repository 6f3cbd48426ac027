"""Every model of Bedrock's under the suite that other people's plugins pass."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import impasto
from impasto import Operation
from impasto.options import Settings
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario
from tests.conformance.naming import class_name, contract_of, documented
from tests.images import png
from tests.oracle.contract import BEDROCK_WIRE
from tests.plugins.stability.bedrock_cases import MODELS, minimal, request
from tests.plugins.stability.test_bedrock_golden import VALUES

IMAGES = tuple(png(8, side) for side in (8, 16, 24))


def answer(*images: bytes | None, reasons: Sequence[str | None] = ()) -> Answer:
    """An answer with these images, None for one that was filtered."""
    encoded = [base64.b64encode(image).decode() if image is not None else None for image in images]
    body = {"seeds": [*range(7, 7 + len(images))], "finish_reasons": reasons or [None] * len(images), "images": encoded}
    return Answer(headers={"content-type": "application/json"}, body=json.dumps(body).encode())


FILTERED = "Filter reason: output image"
SCENARIOS = {
    "three images": Scenario(answers=(answer(*IMAGES),), images=IMAGES, reports={"seed": (7, 8, 9)}),
    "one of three is filtered": Scenario(
        answers=(answer(IMAGES[0], None, IMAGES[2], reasons=(None, FILTERED, None)),),
        images=(IMAGES[0], IMAGES[2]),
        errors={1: impasto.ContentFiltered},
        reports={"seed": (7, 9)},
    ),
    "the prompt is filtered": Scenario(
        answers=(answer(None, reasons=("Filter reason: prompt",)),), error=impasto.ContentFiltered, billed="unknown"
    ),
}

GUARDED = {
    "guardrailIdentifier": {"guardrailVersion": "1"},
}
"""What goes with a field of the guardrail."""


def refusal(status: int, code: str, error: type[impasto.ImpastoError]) -> Refusal:
    headers = {"content-type": "application/json", "x-amzn-errortype": code}
    return Refusal(answer=Answer(status=status, headers=headers, body=b'{"message":"no"}'), error=error)


class Bedrock(OperationSuite):
    """What all have in common."""

    success = answer(IMAGES[0])
    scenarios: ClassVar[Mapping[str, Scenario]] = SCENARIOS
    request_id = "x-amzn-requestid"
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
    auth: ClassVar[Mapping[str, str | re.Pattern[str]] | None] = {
        "header:authorization": re.compile(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/[0-9]{8}/us-west-2/bedrock/aws4_request, "
            "SignedHeaders=[a-z0-9;-]+, Signature=[0-9a-f]{64}"
        )
    }
    names: ClassVar[Mapping[str, str]] = {name: f"header:{header}" for name, header in BEDROCK_WIRE["headers"].items()}
    constants: ClassVar[Mapping[str, object]] = {"header:accept": "application/json"}

    def params_with(self, field: str, value: object) -> dict[str, object]:
        return {**request(self.operation(), field, value), **GUARDED.get(field, {}), field: value}

    entrances = False  # the tests of the gateway and the command line make calls of these

    def drop_in_settings(self, url: str) -> dict[str, object]:
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": KEY}
        return {"api_base": url, "aws_region_name": "us-west-2", **keys}

    def settings(self, url: str) -> Settings:
        return {
            "aws_region": "us-west-2",
            "aws_access_key_id": "AKIDEXAMPLE",
            "aws_secret_access_key": KEY,
            "bedrock_endpoint": url,
        }


def suite(operation: Operation) -> type[Bedrock]:
    needed = minimal(operation)
    if "style_image" in needed:
        needed["style_image"] = png(96, 64)  # a swap must show
    others = {name: VALUES[name] for name in operation.fields if name not in needed}
    if "mode" in others:
        others["mode"] = operation.fields["mode"].choices[-1]
    path = quote(contract_of(operation).path, safe="")
    declared: dict[str, Any] = {
        "model": operation.id,
        "endpoint": f"/model/{path}/invoke",
        "minimal": needed,
        "others": others,
    }
    declared |= documented(contract_of(operation))
    declared["reports"] = {"seed": 7, "usd": contract_of(operation).usd}
    declared["limits"] |= {"guardrailIdentifier": (1, 2048), "guardrailVersion": (1, 8)}
    if "style-transfer" in operation.id:
        declared["limits"]["prompt"] = (0, 10_000)  # none is printed for it; 10,000 is that of every other prompt
    declared["choices"] |= {"trace": ("ENABLED", "DISABLED", "ENABLED_FULL")}
    return type(class_name(operation), (Bedrock,), declared)


for each in MODELS.values():
    globals()[class_name(each)] = suite(each)
