"""OpenAI's dialect: JSON to generate, a form to edit, images in base64 and a count of tokens back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from impasto import (
    Account,
    ContentFiltered,
    ImpastoError,
    Operation,
    Partial,
    PaymentRequired,
    Request,
    Result,
    ServerEvent,
    WireRequest,
    WireResponse,
)
from impasto.dialects import (
    STATUSES,
    Refusals,
    images_from_base64,
    json_object,
    split_files,
    unusable,
    usage_in,
)
from impasto_plugins.images.completeness import is_complete

_refusals = Refusals(
    {
        **STATUSES,
        (400, "moderation_blocked"): ContentFiltered,
        (400, "content_policy_violation"): ContentFiltered,
        (429, "insufficient_quota"): PaymentRequired,
    },
    required=("error.type",),
    advice={401: "check OPENAI_API_KEY"},
)


class Dialect:
    """Conversion of requests and answers. It can be tested without a network."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the form of an edit if there are images, JSON otherwise."""
        fields, images = split_files(operation, request.params, {"image": "image[]"})
        user = {"user": request.user} if request.user is not None else {}
        stream = {"stream": True} if request.stream and request.count == 1 else {}
        fields = {**request.constants, **fields, **user, **stream}
        if images:
            return WireRequest(target="/v1/images/edits", fields=fields, files=images)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None."""
        is_success = response.status == 200 and response.media_type == "application/json"
        return None if is_success else _refusals(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the images of an answer and their cost. Raises UnusableResult, which has the answer's bytes."""
        data = json_object(response).get("data")
        if not isinstance(data, list):
            raise unusable("has no images", response)
        return self._result(response, data)

    def normalize_event(self, operation: Operation, request: Request, event: ServerEvent) -> Partial | Result | None:
        """Return a partial image, the result, or None for other events. Raises the error that an event reports."""
        if event.event == "error":
            raise _refusals.in_event(event)
        if not event.event.endswith((".partial_image", ".completed")):
            return None
        response = WireResponse(status=200, headers={}, body=event.data.encode())
        body = json_object(response)
        result = self._result(response, [body])
        index = body.get("partial_image_index")
        return Partial(result.artifacts[0], index) if isinstance(index, int) else result

    def _result(self, response: WireResponse, data: Sequence[object]) -> Result:
        body = json_object(response)
        texts = [entry.get("b64_json") if isinstance(entry, Mapping) else None for entry in data]
        return attrs.evolve(images_from_base64(texts, response, is_complete), usage=usage_in(body.get("usage")))


dialect = Dialect()
