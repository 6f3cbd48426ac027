"""Amazon Bedrock's InvokeModel as far as it is known, with choices for the rest.

Known: the path's id raw or percent-encoded once; SigV4 or a bearer key; profiles and regions; unknown
fields refused; errors as compact JSON with their code in ``x-amzn-ErrorType``; a filtered call is a 200 without an
image. Chosen here, because it is not known:

- the order: the body's size, the signature, the model, the body, the images, moderation;
- a body that is too large is a ValidationException; a bearer key is anything, unless ``Settings.keys`` lists them;
- a ``data:`` prefix or a line break in base64 is refused, and so are a null and all that the parameter class refuses;
- a filtered or failed call is not charged, except if the finished image was filtered;
- requests don't count towards any rate: a fault ``status`` 429 stands for the quota;
- the same request with the same seed is answered with the same bytes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import unquote

from aiohttp import web

from impasto import Operation
from impasto_plugins.emulator.rendering.pictures import UnreadableImage, draw
from impasto_plugins.emulator.server.exchange import EmulatorExchange, Endpoint, ErrorResponse, Reply
from impasto_plugins.emulator.server.multipart import FormPart, describe_file

from . import sigv4
from .backend import Backend
from .bedrock_models import BedrockModels, NoSuchModel, load_bedrock_operations
from .bedrock_validation import check_body, decode_image, detail_message, parse_object
from .form_validation import ValidatedForm, ValidationFailed

SERVICE = "bedrock"
MAX_BYTES = 25_000_000

ERROR_CODES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
    529: "overloaded_error",
}
"""The code of each status; a gateway's 502 and 504 have none."""

REASONS = {
    "[content_moderation]": "Filter reason: prompt",
    "[input_filtered]": "Filter reason: input image",
    "[inference_error]": "Inference error",
}
"""Words that, anywhere in a text field, end a call with a reason and without an image."""
_OUTPUT = "Filter reason: output image"

_CODE_URL = "http://internal.amazon.com/coral/com.amazon.bedrock/"
_BEARER = "bearer "
_CHUNK_BYTES = 1 << 18


def routes(backend: Backend) -> Iterator[tuple[str, str, Endpoint]]:
    """Return method, path and endpoint of each route."""
    yield "POST", "/model/{id:.+}/invoke", InvokeModel(backend)
    yield "*", "/model/{path:.*}", _BedrockEndpoint(backend)


class _BedrockEndpoint:
    """The base of Bedrock's endpoints, which answers every other path."""

    id_header = "x-amzn-RequestId"
    counts_towards_rate = False

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def key(self, authorization: str) -> str | None:
        if authorization.lower().startswith(_BEARER):
            return authorization[len(_BEARER) :].strip() or None
        return sigv4.parse_access_key(authorization)

    async def read(self, exchange: EmulatorExchange) -> object:
        return None

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        raise ErrorResponse(error_answer(404, "UnknownOperationException", "The requested operation is not known."))

    def refuse(self, exchange: EmulatorExchange, status: int, name: str | None, messages: Sequence[str]) -> Reply:
        return error_answer(status, name or ERROR_CODES.get(status), "; ".join(messages))

    def rate_limit_answer(self, exchange: EmulatorExchange, seconds: float) -> Reply:
        return error_answer(429, ERROR_CODES[429], "Too many requests, please wait before trying again.")


class InvokeModel(_BedrockEndpoint):
    """``POST /model/{id}/invoke``."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.models = BedrockModels(load_bedrock_operations(), backend.settings.inference_profiles)

    async def read(self, exchange: EmulatorExchange) -> bytes:
        """Read and record the body. Raises ErrorResponse if it is too large."""
        body = bytearray()
        while chunk := await exchange.request.content.read(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BYTES:
                raise _error_response(400, "ValidationException", f"The body must have at most {MAX_BYTES} bytes.")
        data = bytes(body)
        await asyncio.to_thread(_record_body, exchange, data)
        return data

    async def answer(self, exchange: EmulatorExchange, body: object) -> Reply:
        """Verify the signature, validate the body and generate the image. Raises ErrorResponse."""
        assert isinstance(body, bytes)  # noqa: S101 - what read gave
        digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        region = self._verify_region(exchange, digest)
        try:
            operation = self.models.find(_model_id(exchange.request), region)
            form, mark = await asyncio.to_thread(_validate_body, operation, body)
            return await self._invoke(exchange, form, mark)
        except NoSuchModel as error:
            raise _error_response(error.status, error.code, error.message) from None
        except ValidationFailed as error:
            raise _error_response(400, "ValidationException", str(error)) from None
        except UnreadableImage as error:
            raise _error_response(400, "ValidationException", detail_message(str(error))) from None

    def _verify_region(self, exchange: EmulatorExchange, body_hash: str) -> str | None:
        """Return the region that the request is signed for; None with a bearer key. Raises ErrorResponse."""
        request, settings = exchange.request, self.backend.settings
        authorization = request.headers.get("authorization", "")
        if not authorization:
            raise _error_response(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if authorization.lower().startswith(_BEARER.strip()):
            if exchange.key is None or (settings.keys is not None and exchange.key not in settings.keys):
                raise _error_response(403, "AccessDeniedException", "Authentication failed: the API key is not valid.")
            return None
        signed_request = sigv4.SignedRequest(
            method=request.method,
            path=request.raw_path.partition("?")[0],
            query=request.raw_path.partition("?")[2],
            headers={name.lower(): ",".join(request.headers.getall(name)) for name in request.headers},
            body_hash=body_hash,
        )
        try:
            authorization_parts = sigv4.verify_signature(
                signed_request, settings.aws_keys, service=SERVICE, now=datetime.now(UTC)
            )
        except sigv4.SignatureRejected as error:
            raise _error_response(error.status, error.code, error.message) from None
        token = signed_request.headers.get("x-amz-security-token")
        if settings.session_tokens is not None and token not in settings.session_tokens:
            raise _error_response(403, "ExpiredTokenException", "The security token included in the request is expired")
        return authorization_parts.region

    async def _invoke(self, exchange: EmulatorExchange, form: ValidatedForm, mark: str) -> Reply:
        backend = self.backend
        for word, reason in REASONS.items():
            if word in form.text:
                return _json_answer({"finish_reasons": [reason]})
        order = backend.create_order(exchange, form)
        await asyncio.sleep(backend.settings.answer_seconds)
        image = await asyncio.to_thread(draw, order.task, mark)
        backend.charge(exchange, order)
        if order.finish_reason == "CONTENT_FILTERED":
            return _json_answer({"finish_reasons": [_OUTPUT]})
        base64_data = await asyncio.to_thread(lambda: base64.b64encode(image.data).decode())
        return _json_answer({"seeds": [order.task.seed], "finish_reasons": [None], "images": [base64_data]})


def error_answer(status: int, code: str | None, message: str) -> Reply:
    """Return a refusal in Bedrock's form; without a code in a gateway's."""
    payload: dict[str, object] = {"message": message}
    if code == "ModelErrorException":
        payload |= {"originalStatusCode": 500, "resourceName": "emulator"}
    headers = {"x-amzn-ErrorType": f"{code}:{_CODE_URL}"} if code is not None else {}
    return _json_answer(payload, status, headers)


def _error_response(status: int, code: str, message: str) -> ErrorResponse:
    return ErrorResponse(error_answer(status, code, message))


def _json_answer(payload: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return compact JSON, as Bedrock writes it."""
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(status=status, headers={"content-type": "application/json", **(headers or {})}, body=body)


def _model_id(request: web.Request) -> str:
    """Return the model's id, decoded once."""
    path = request.raw_path.partition("?")[0]
    return unquote(path.removeprefix("/model/").removesuffix("/invoke"))


def _validate_body(operation: Operation, body: bytes) -> tuple[ValidatedForm, str]:
    """Return a body's values, and a key that is the same for every spelling of them. Raises ValidationFailed."""
    values = parse_object(body)
    return check_body(operation, values), hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _record_body(exchange: EmulatorExchange, body: bytes) -> None:
    """Record the content of a body: images by format and size, everything else as text."""
    with suppress(ValidationFailed):
        for name, value in parse_object(body).items():
            if isinstance(value, str) and name.endswith(("image", "mask")):
                with suppress(ValueError):
                    exchange.record.files = {
                        **exchange.record.files,
                        name: describe_file(FormPart(decode_image(value), "", "")),
                    }
            else:
                exchange.record.fields = {**exchange.record.fields, name: str(value)}
