"""The dialect: instances and parameters out, predictions back, some of which may be filtered."""

from __future__ import annotations

from impasto import (
    Account,
    ContentFiltered,
    ImpastoError,
    JSONValue,
    Operation,
    Request,
    Result,
    Unauthorized,
    WireRequest,
    WireResponse,
)
from impasto.dialects import STATUSES, Refusals, images_from_base64, json_object, split_files, unusable
from impasto.ext import printable
from impasto_plugins.images.completeness import is_complete

_refusals = Refusals(
    {**STATUSES, (400, "API_KEY_INVALID"): Unauthorized},
    code=("error.details[].reason", "error.status"),
    required=("error.status",),
    advice={400: "check GEMINI_API_KEY", 401: "check the key, or the credentials of Vertex AI"},
    retry_after="error.details[].retryDelay",
)


class Dialect:
    """Conversion of requests and answers. It can be tested without a network."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the JSON of a prediction. On Vertex AI its address has the account's project and location."""
        parameters, _ = split_files(operation, request.params)
        prompt = parameters.pop("prompt")
        fields: dict[str, JSONValue] = {
            "instances": [{"prompt": prompt}],
            "parameters": {"includeRaiReason": True, **parameters},
        }
        return WireRequest(target=request.target.format(**account.settings), fields=fields, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None."""
        is_success = response.status == 200 and response.media_type == "application/json"
        return None if is_success else _refusals(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the images of an answer; those that were filtered are in ``errors``."""
        predictions = json_object(response).get("predictions")
        if not isinstance(predictions, list) or not predictions:
            raise unusable("has no predictions", response)
        images = [_image(each, response) for each in predictions]
        prompts = [each.get("prompt") if isinstance(each, dict) else None for each in predictions]
        return images_from_base64(images, response, is_complete, revised_prompts=prompts)


def _image(prediction: object, response: WireResponse) -> object:
    """Return the base64 text of a prediction, or the error if its image was filtered."""
    match prediction:
        case {"raiFilteredReason": str(reason)}:
            message = f"filtered: {printable(reason)}; it may have been charged"
            return ContentFiltered(message, status=200, request_id=response.request_id, billed="unknown")
        case {"bytesBase64Encoded": text}:
            return text
    return None


dialect = Dialect()
