"""Every model of the direct route under the suite that other people's plugins pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import impasto
from impasto import Operation
from impasto.options import Settings
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Scenario
from tests.conformance.naming import class_name, contract_of, documented
from tests.images import png
from tests.media import glb, wav
from tests.oracle.contract import Contract
from tests.plugins.stability.cases import BY_TARGET, JOBS, minimal, request
from tests.plugins.stability.test_golden import value

_TOLD = {"finish-reason": "SUCCESS", "seed": "7"}
GOOD = {
    "image": Answer(headers={"content-type": "image/png", **_TOLD}, body=png(8, 8)),
    "audio": Answer(headers={"content-type": "audio/wav", **_TOLD}, body=wav(7)),
    "3d": Answer(headers={"content-type": "model/gltf-binary"}, body=glb()),
}
ACCEPTED = Answer(headers={"content-type": "application/json"}, body=json.dumps({"id": "a1" * 32}).encode())


def refusal(status: int, name: str, error: type[impasto.ImpastoError]) -> Refusal:
    body = json.dumps({"id": "1", "name": name, "errors": ["no"]}).encode()
    return Refusal(answer=Answer(status=status, headers={"content-type": "application/json"}, body=body), error=error)


REFUSALS = (
    refusal(400, "bad_request", impasto.BadRequest),
    refusal(401, "unauthorized", impasto.Unauthorized),
    refusal(402, "payment_required", impasto.PaymentRequired),
    refusal(403, "content_moderation", impasto.ContentFiltered),
    refusal(403, "forbidden", impasto.PermissionDenied),
    refusal(404, "not_found", impasto.NotFound),
    refusal(413, "payload_too_large", impasto.TooLarge),
    refusal(422, "invalid_language", impasto.Unprocessable),
    refusal(429, "rate_limit_exceeded", impasto.RateLimited),
    refusal(500, "internal_error", impasto.ProviderFault),
)


FAILED = {
    "a job whose content is filtered": Scenario(
        answers=(ACCEPTED, next(each.answer for each in REFUSALS if each.error is impasto.ContentFiltered)),
        error=impasto.ContentFiltered,
        billed="unknown",  # its POST had been accepted
    )
}


def reports(operation: Operation, contract: Contract) -> dict[str, object]:
    """What the result of ``GOOD`` says; a credit is a cent."""
    usd = {"usd": contract.credits / 100} if contract.credits is not None else {}
    return {**usd, **({} if operation.output == "3d" else {"seed": 7, "finish_reason": "SUCCESS"})}


class Stability(OperationSuite):
    """What all have in common."""

    refusals = REFUSALS
    golden = None  # test_golden.py shows more
    auth: ClassVar[Mapping[str, str | re.Pattern[str]] | None] = {"header:authorization": f"Bearer {KEY}"}
    poll_interval = 10.0
    result_ttl = 24 * 3600.0
    user = "header:stability-client-user-id"

    def params_with(self, field: str, value: object) -> dict[str, object]:
        return request(self.operation(), field, value)

    def settings(self, url: str) -> Settings:
        return {"api_base": url, "api_key": KEY}


def suite(operation: Operation) -> type[Stability]:
    fields, contract = operation.fields, contract_of(operation)
    accept = {"header:accept": contract.accept[0]} if contract.accept else {}
    needed = minimal(operation)
    if "style_image" in needed:
        needed["style_image"] = png(96, 64)  # a swap must show
    values: dict[str, Any] = {name: value(name, field) for name, field in fields.items()}
    return type(
        class_name(operation),
        (Stability,),
        {
            **documented(contract),
            "reports": reports(operation, contract),
            "scenarios": FAILED if operation.target in JOBS else {},
            "model": operation.id,
            "entrances": operation.id == "stability/stable-image-core",  # each starts processes
            "endpoint": f"https://api.stability.ai{contract.path}",
            "constants": {**contract.constants, **accept},
            "success": GOOD[operation.output],
            "minimal": needed,
            "others": {name: value for name, value in values.items() if name not in needed},
            "job_accepted": ACCEPTED if operation.target in JOBS else None,
        },
    )


for each in BY_TARGET.values():
    globals()[class_name(each)] = suite(each)
