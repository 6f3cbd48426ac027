"""The dialect: a job is submitted, polled at the address of its answer, and its image fetched from a signed one."""

from __future__ import annotations

import re

from impasto import (
    Account,
    ContentFiltered,
    Cost,
    FileRef,
    ImpastoError,
    JobFailed,
    JSONValue,
    NotFound,
    Operation,
    Pending,
    Request,
    Result,
    WireRequest,
    WireResponse,
)
from impasto.dialects import (
    STATUSES,
    Refusals,
    image_in_body,
    images_from_urls,
    json_object,
    pending_from_url,
    poll_of_job,
    split_files,
    unusable,
)
from impasto_plugins.images.completeness import is_complete

RESULT_SECONDS = 600.0
"""Seconds for which the signed address of an image is valid."""
USD_PER_CREDIT, PRICED = 0.01, "2026-06-12"

_JOB = re.compile(r"https?://[^/?#@\s]+/v1/get_result\?id=[A-Za-z0-9-]{1,100}")
"""A job is known by its polling address, since other hosts do not know it."""

_refusals = Refusals(
    STATUSES, message=("detail", "detail[].msg", "message"), code="error", advice={401: "check BFL_API_KEY"}
)


class Dialect:
    """Conversion of requests and answers. It can be tested without a network."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the request that submits a job; for a job that runs, the GET of its polling address."""
        if request.job is not None:
            return poll_of_job(request.job, account, _JOB)
        fields, images = split_files(operation, request.params)
        references: dict[str, JSONValue] = {
            f"input_image_{number}" if number > 1 else "input_image": FileRef(image)
            for number, (_, image) in enumerate(images, 1)
        }
        return WireRequest(target=request.target, fields={**fields, **references}, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None. A job's own failure comes in a 200, see below."""
        if response.status == 200 and (_is_image(response) or response.media_type == "application/json"):
            return None
        return _refusals(response)

    def is_artifact_body(self, operation: Operation, response: WireResponse) -> bool:
        """Return True for a fetched image: it is the artifact itself and may be stored on disk."""
        return response.status == 200 and _is_image(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        """Return the job that was accepted or that still runs, the address of its image, or the image itself."""
        if _is_image(response):
            return image_in_body(response, is_complete)
        body = json_object(response)
        if "polling_url" in body:
            return pending_from_url(body["polling_url"], response, cost=_cost(body.get("cost")))
        match body:
            case {"status": "Pending", "id": str(job)}:
                return Pending(id=job)
            case {"status": "Ready", "result": {"sample": address}}:
                return images_from_urls([address], response, anonymous=True, result_ttl=RESULT_SECONDS)
            case {"status": str(status)} if status in ("Request Moderated", "Content Moderated"):
                raise ContentFiltered(f"{status}; it was not charged", status=200, name=status, billed="no")
            case {"status": "Task not found"}:
                raise NotFound("Task not found", status=200, name="Task not found")
            case {"status": "Error"}:
                raise JobFailed("the provider reports that the job failed", status=200, name="Error")
            case _:
                raise unusable("has neither a job nor its state", response)


def _is_image(response: WireResponse) -> bool:
    return response.media_type.startswith("image/")


def _cost(credits: object) -> Cost | None:
    """Return the price of a job, which the provider states in credits when it accepts it."""
    if isinstance(credits, bool) or not isinstance(credits, int | float) or credits < 0:
        return None
    return Cost(usd=round(credits * USD_PER_CREDIT, 10), credits=credits, as_of=PRICED)


dialect = Dialect()
