"""Amazon Bedrock's InvokeModel as far as it is known, and what is chosen where it is not.

Known and kept: the path's id raw or percent-encoded once; SigV4 or a bearer key; profiles and regions; unknown fields
refused; errors as compact JSON with their code in ``x-amzn-ErrorType``; a filtered call is a 200 without a picture.
Chosen here, as nobody has established it:

- the order: the body's size, the signature, the model, the body, the pictures, moderation;
- a body that is too large is a ValidationException; a bearer key is anything, unless ``Settings.keys`` lists them;
- a ``data:`` prefix or a line break in base64 is refused, and so are a null and whatever the parameter class refuses;
- a filtered or failed call is not charged, but where the finished picture was filtered;
- requests are not counted towards any rate: a fault ``status`` 429 stands for the quota;
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
from impasto_plugins.emulator.rendering.pictures import Unreadable, draw
from impasto_plugins.emulator.server.exchange import Answer, Endpoint, Exchange, Refusal
from impasto_plugins.emulator.server.multipart import Part, describe

from . import sigv4
from .backend import Desk
from .bedrock_models import Models, NoSuchModel, installed
from .bedrock_validation import check_body, detail, object_of, picture_of
from .form_validation import Checked, Wrong

SERVICE = "bedrock"
MOST_BYTES = 25_000_000

CODES = {
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
"""The code that goes with each status; a gateway's 502 and 504 have none."""

REASONS = {
    "[content_moderation]": "Filter reason: prompt",
    "[input_filtered]": "Filter reason: input image",
    "[inference_error]": "Inference error",
}
"""Words that, anywhere in a text field, make a call end with a reason and without a picture."""
_OUTPUT = "Filter reason: output image"

_CODE_URL = "http://internal.amazon.com/coral/com.amazon.bedrock/"
_BEARER = "bearer "
_PIECE = 1 << 18


def routes(desk: Desk) -> Iterator[tuple[str, str, Endpoint]]:
    """Method, path and endpoint of all that is served."""
    yield "POST", "/model/{id:.+}/invoke", Invoke(desk)
    yield "*", "/model/{path:.*}", _Base(desk)


class _Base:
    """Whatever else is asked for below Bedrock's path; and what the endpoints have in common."""

    id_header = "x-amzn-RequestId"
    counts = False

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def key(self, authorization: str) -> str | None:
        if authorization.lower().startswith(_BEARER):
            return authorization[len(_BEARER) :].strip() or None
        return sigv4.access_key_of(authorization)

    async def read(self, exchange: Exchange) -> object:
        return None

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        raise Refusal(failure(404, "UnknownOperationException", "The requested operation is not known."))

    def refuse(self, exchange: Exchange, status: int, name: str | None, messages: Sequence[str]) -> Answer:
        return failure(status, name or CODES.get(status), "; ".join(messages))

    def locked_out(self, exchange: Exchange, seconds: float) -> Answer:
        return failure(429, CODES[429], "Too many requests, please wait before trying again.")


class Invoke(_Base):
    """``POST /model/{id}/invoke``."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.models = Models(installed(), desk.settings.inference_profiles)

    async def read(self, exchange: Exchange) -> bytes:
        body = bytearray()
        while piece := await exchange.request.content.read(_PIECE):
            body += piece
            if len(body) > MOST_BYTES:
                raise _refusal(400, "ValidationException", f"The body must have at most {MOST_BYTES} bytes.")
        whole = bytes(body)
        await asyncio.to_thread(_record, exchange, whole)
        return whole

    async def answer(self, exchange: Exchange, body: object) -> Answer:
        assert isinstance(body, bytes)  # noqa: S101 - what read gave
        digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        region = self._region(exchange, digest)
        try:
            operation = self.models.find(_id_of(exchange.request), region)
            checked, mark = await asyncio.to_thread(_checked, operation, body)
            return await self._made(exchange, checked, mark)
        except NoSuchModel as error:
            raise _refusal(error.status, error.code, error.message) from None
        except Wrong as error:
            raise _refusal(400, "ValidationException", str(error)) from None
        except Unreadable as error:
            raise _refusal(400, "ValidationException", detail(str(error))) from None

    def _region(self, exchange: Exchange, body_hash: str) -> str | None:
        """The region that the request is signed for; None with a bearer key. Raises Refusal."""
        request, settings = exchange.request, self.desk.settings
        authorization = request.headers.get("authorization", "")
        if not authorization:
            raise _refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if authorization.lower().startswith(_BEARER.strip()):
            if exchange.key is None or (settings.keys is not None and exchange.key not in settings.keys):
                raise _refusal(403, "AccessDeniedException", "Authentication failed: the API key is not valid.")
            return None
        signed = sigv4.Signed(
            method=request.method,
            path=request.raw_path.partition("?")[0],
            query=request.raw_path.partition("?")[2],
            headers={name.lower(): ",".join(request.headers.getall(name)) for name in request.headers},
            body_hash=body_hash,
        )
        try:
            given = sigv4.verify(signed, settings.aws_keys, service=SERVICE, now=datetime.now(UTC))
        except sigv4.Rejected as error:
            raise _refusal(error.status, error.code, error.message) from None
        token = signed.headers.get("x-amz-security-token")
        if settings.session_tokens is not None and token not in settings.session_tokens:
            raise _refusal(403, "ExpiredTokenException", "The security token included in the request is expired")
        return given.region

    async def _made(self, exchange: Exchange, checked: Checked, mark: str) -> Answer:
        desk = self.desk
        for word, reason in REASONS.items():
            if word in checked.said:
                return _json({"finish_reasons": [reason]})
        order = desk.order(exchange, checked)
        await asyncio.sleep(desk.settings.answer_seconds)
        picture = await asyncio.to_thread(draw, order.task, mark)
        desk.charge(exchange, order)
        if order.finish_reason == "CONTENT_FILTERED":
            return _json({"finish_reasons": [_OUTPUT]})
        encoded = await asyncio.to_thread(lambda: base64.b64encode(picture.data).decode())
        return _json({"seeds": [order.task.seed], "finish_reasons": [None], "images": [encoded]})


def failure(status: int, code: str | None, message: str) -> Answer:
    """A refusal in Bedrock's form; without a code as a gateway's."""
    told: dict[str, object] = {"message": message}
    if code == "ModelErrorException":
        told |= {"originalStatusCode": 500, "resourceName": "emulator"}
    headers = {"x-amzn-ErrorType": f"{code}:{_CODE_URL}"} if code is not None else {}
    return _json(told, status, headers)


def _refusal(status: int, code: str, message: str) -> Refusal:
    return Refusal(failure(status, code, message))


def _json(told: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Compact, as Bedrock writes it."""
    body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status=status, headers={"content-type": "application/json", **(headers or {})}, body=body)


def _id_of(request: web.Request) -> str:
    """The model's id, decoded once."""
    path = request.raw_path.partition("?")[0]
    return unquote(path.removeprefix("/model/").removesuffix("/invoke"))


def _checked(operation: Operation, body: bytes) -> tuple[Checked, str]:
    """A body's values, and a mark that is the same for every spelling of them. Raises Wrong."""
    told = object_of(body)
    return check_body(operation, told), hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _record(exchange: Exchange, body: bytes) -> None:
    """Writes down what is in a body: pictures by what they are, everything else as text."""
    with suppress(Wrong):
        for name, value in object_of(body).items():
            if isinstance(value, str) and name.endswith(("image", "mask")):
                with suppress(ValueError):
                    exchange.record.files = {**exchange.record.files, name: describe(Part(picture_of(value), "", ""))}
            else:
                exchange.record.fields = {**exchange.record.fields, name: str(value)}
