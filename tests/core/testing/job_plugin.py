"""A third party's plugin with jobs, polls on another host and a signed download, and defects of it."""

from __future__ import annotations

MODEL = "acme/oil"

SOUND = """
import json, re
import attrs
from impasto import (
    Artifact, ChargeUnknown, ContentFiltered, InvalidRequest, JobFailed, NotFound, Operation, Pending, Problem,
    Provider, RateLimited, Result, Unauthorized, UnusableResult, WireRequest,
)
from impasto.ext import media_type_of, retry_after
from impasto.fields import integer, text
from impasto_plugins.images.completeness import is_complete
# IMPORT

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_query="key",
    hosts=("*.acme.example",), poll_interval=2.0,
)
REFUSALS = {401: Unauthorized, 403: ContentFiltered, 404: NotFound, 429: RateLimited}
JOB = re.compile("[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1_000, required=True, role="prompt")
    seed: int | None = integer(0, 2**31 - 1)


class Dialect:
    # STATE
    def transform_request(self, operation, request, account):
        if request.job is not None:
            if JOB.fullmatch(request.job) is None:
                raise InvalidRequest([Problem("id", "must be 64 digits")])
            return WireRequest(target=f"/v1/jobs/{request.job}", method="GET")
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        # CLASSIFY
        if response.status == 200 and response.media_type in ("application/json", "image/png"):
            return None
        try:
            message = json.loads(response.body)["error"]
        except (ValueError, LookupError, TypeError, RecursionError):
            message = None
        kind = REFUSALS.get(response.status)
        if kind is None or not isinstance(message, str):
            return ChargeUnknown(f"HTTP {response.status}", status=response.status, raw=response.body)
        error = kind(message, status=response.status, request_id=response.request_id)
        if kind is RateLimited:
            error.retry_after = retry_after(response.headers)
        return error

    def normalize_response(self, operation, request, response):
        if response.media_type == "image/png":
            if not is_complete(response.body, "image/png"):
                raise UnusableResult("no image", raw=response.body, media_type=response.media_type)
            artifact = Artifact(data=response.body, media_type="image/png")
            return Result(artifacts=(artifact,), request_id=response.request_id)
        try:
            body = json.loads(response.body)
            state, job = body["state"], body["id"]
            # STATES
            if state == "failed":
                raise JobFailed("failed", status=200, billed="no")
            if JOB.fullmatch(job) is None:
                raise ValueError(job)
            if state == "done":
                signed = WireRequest(target="", url=body["image"], method="GET", anonymous=True)
                return Pending(id=job, poll=signed, result_ttl=600.0, is_ready=True)
            poll = WireRequest(target=f"/v1/jobs/{job}", method="GET")
            return Pending(id=job, poll=poll)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UnusableResult("no job", raw=response.body, media_type=response.media_type) from None


oil = Operation(
    id="acme/oil", title="Oil", params=Params, target="/v1/jobs", provider=acme, dialect=Dialect(),
)
"""
