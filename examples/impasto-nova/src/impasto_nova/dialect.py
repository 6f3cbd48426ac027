"""The dialect: a task with its own object, the settings of all tasks in another, images in base64 back."""

from __future__ import annotations

import attrs

from impasto import (
    Account,
    BadRequest,
    ContentFiltered,
    ImpastoError,
    JSONValue,
    Operation,
    Request,
    Result,
    WireRequest,
    WireResponse,
)
from impasto.dialects import images_from_base64, json_object, params_to_json, unusable
from impasto_plugins.bedrock import refusal
from impasto_plugins.images.completeness import is_complete

CONFIG = ("width", "height", "quality", "cfgScale", "seed", "numberOfImages")
"""Fields of ``imageGenerationConfig``; all others belong to the task."""

_BLOCKED = "blocked by our content filters"


@attrs.frozen
class Dialect:
    """Conversion of requests and answers of one task. It can be tested without a network."""

    task: str
    group: str

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the JSON of a task; files stand in it as base64."""
        params = params_to_json(request.params)
        config = {name: params.pop(name) for name in CONFIG if name in params}
        fields: dict[str, JSONValue] = {"taskType": self.task, self.group: params}
        if config:
            fields["imageGenerationConfig"] = config
        return WireRequest(target=request.target, fields=fields, encoding="json", max_bytes=operation.max_bytes)

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return AWS's refusal, with the filter's as its own kind, or None."""
        if response.status == 200 and response.media_type == "application/json":
            return None
        error = refusal(response)
        if isinstance(error, BadRequest) and _BLOCKED in error.message:
            return ContentFiltered(
                error.message, status=response.status, name=error.name, request_id=response.request_id, billed="no"
            )
        return error

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the images of an answer; those that the filter blocked are in ``errors``."""
        body = json_object(response)
        texts, reason = body.get("images"), body.get("error")
        images: list[object] = texts if isinstance(texts, list) else []
        if isinstance(reason, str) and reason:
            message = f"{reason} It may have been charged."
            blocked = ContentFiltered(message, status=200, request_id=response.request_id, billed="unknown")
            images = [*images, *[blocked] * (request.count - len(images))]  # AWS does not say which: the last ones
        if not images:
            raise unusable("has no image", response)
        return images_from_base64(images, response, is_complete)
