"""Errors in OpenAI's shape, with the advice to SDKs if they should retry.

``x-should-retry: true`` is only sent if it is proved that nothing was charged and another try may succeed.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from typing import Self

import attrs
from aiohttp import web

from impasto import (
    BadRequest,
    BrokenPlugin,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ContentFiltered,
    ImpastoError,
    InvalidRequest,
    NotFound,
    NotSent,
    Operation,
    PaymentRequired,
    PermissionDenied,
    ProviderFault,
    RateLimited,
    RegistryError,
    StorageError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
)
from impasto.ext import StateAway, field_at, is_not_charged, printable, without_python_advice
from impasto_plugins.openai_compat.words import WORDS

_log = logging.getLogger("impasto.gateway")

INVALID = "invalid_request_error"
SERVER = "server_error"
CHARGE_UNKNOWN = (
    "an earlier attempt at this request was sent to the provider and its outcome is unknown: it may have been charged;"
    " look at the provider's account, then send it as a new request"
)
"""The message for a call whose outcome nobody knows."""

REPLAYED_HEADERS = {"idempotent-replayed": "true"}
"""The header of a response that belongs to an earlier request; most APIs use this name."""


def new_request_id() -> str:
    """Return a request's id, which every response carries."""
    return f"req_{os.urandom(12).hex()}"


def add_response_headers(response: web.StreamResponse, id: str) -> None:
    """Add a request's id, and this server's name in place of aiohttp's and its version."""
    response.headers["x-request-id"] = id
    response.headers["server"] = "impasto"


@attrs.define(eq=False)
class APIError(Exception):
    """An error response. ``retry_after`` is in seconds; ``should_retry`` None leaves it to the SDK's rule.

    ``not_charged``: it is proved that nothing was charged. ``close``: the connection ends with it, since the request's
    body was not read.
    """

    status: int
    message: str
    type: str = INVALID
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    not_charged: bool = True
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    close: bool = False
    can_be_fetched: bool = False
    """True if jobs at the provider may still bring the images."""

    def to_json(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON of the response."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_response(self) -> web.Response:
        """Return the whole response."""
        headers = {"content-type": "application/json", **self.headers}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        response = web.Response(status=self.status, body=json.dumps(self.to_json()).encode(), headers=headers)
        if self.close:
            response.force_close()
        return response


@attrs.define(eq=False)
class JobInProgress(APIError):
    """The response to a call whose jobs at the provider take longer than the call may. ``jobs``: their record.

    Until ``add_id`` is called, nobody fetches them.
    """

    jobs: str = attrs.field(default="", kw_only=True)

    @classmethod
    def of(cls, jobs: str, error: ImpastoError) -> Self:
        """Return the response without an id. ``error``: the one that the call ended with."""
        message = "the provider's job takes longer than this call may; it continues, and may be charged"
        if error.billed == "yes":
            message = "the image was made and charged, and could not be fetched yet; it is asked for again"
        return cls(504, message, SERVER, "charge_unknown", should_retry=False, not_charged=False, jobs=jobs)

    def add_id(self, id: str) -> None:
        """Add the id by which the caller can fetch the outcome."""
        self.code = "job_in_progress"
        self.headers["location"] = f"/v1/images/jobs/{id}"
        self.message += f"; GET /v1/images/jobs/{id} has its images, without another charge"


def invalid_params_error(error: InvalidRequest, operation: Operation) -> APIError:
    """Return the refusal of an invalid request; its first problem gives ``param`` and ``code``."""
    first = error.problems[0]
    name, dot, nested = first.field.partition(".")
    field = field_at(operation.fields, f"{operation.aliases.get(name, name)}{dot}{nested}")
    is_image = first.field in ("image", "mask") or (field is not None and field.kind in ("file", "files"))
    names = {"model", "extra_body", *WORDS, *operation.fields, *operation.aliases}
    if name not in names or (nested and field is None):
        code = "unknown_parameter"
    elif first.message.startswith("required"):
        code = "missing_required_parameter"
    elif name in operation.roles.get("audio", ()):
        code = "invalid_audio"
    else:
        code = "invalid_image" if is_image else "invalid_value"
    return APIError(400, without_python_advice(error.message), code=code, param=printable(first.field))


def can_be_fetched(error: ImpastoError) -> bool:
    """Return True if the error's job runs on at the provider, or its images are there."""
    return isinstance(error, ChargeUnknown) and error.id is not None and error.status != 404


def to_api_error(error: ImpastoError) -> APIError:
    """Return the error response for a failed call."""
    failure = _convert(error)
    failure.can_be_fetched = any(map(can_be_fetched, (error, *error.errors)))
    if error.request_id and error.request_id not in failure.message:
        failure.message += f" (the provider's request {error.request_id})"
    if not is_not_charged(error):
        failure.not_charged = failure.should_retry = False
        if failure.code not in ("moderation_blocked", "unusable_result"):
            failure.code = "charge_unknown"
            failure.status = failure.status if failure.status in (502, 504) else 502
            failure.type = SERVER
            failure.retry_after = None
    return failure


def _convert(error: ImpastoError) -> APIError:
    message = without_python_advice(error.message)
    match error:
        case ContentFiltered():
            return APIError(400, message, "image_generation_user_error", "moderation_blocked", should_retry=False)
        case BadRequest() | Unprocessable():
            is_client_error = 400 <= error.status < 500  # some providers refuse in an answer of 200
            return APIError(
                error.status if is_client_error else 400, message, code="provider_refused", should_retry=False
            )
        case TooLarge():
            return APIError(413, message, code="request_too_large", should_retry=False)
        case RateLimited():
            wait = error.retry_after  # None: the SDK's own back-off is right
            return APIError(
                429, message, "rate_limit_error", "rate_limit_exceeded", retry_after=wait, should_retry=True
            )
        case Unauthorized() | PermissionDenied() | PaymentRequired() | NotFound():
            message = f"the provider refused the gateway's own account: {message}"
            return APIError(502, message, SERVER, "provider_account", should_retry=False)
        case StorageError() | StateAway():
            _log.error("%s", error)
            message = "the gateway's shared state can't be used; its log has the reason; nothing was sent, try again"
            return overloaded(message)
        case NotSent():
            wait = 1.0 if error.retryable else None
            should_retry = error.retryable
            return APIError(503, message, SERVER, "provider_unreachable", retry_after=wait, should_retry=should_retry)
        case ProviderFault():
            return APIError(503, message, SERVER, "provider_fault", should_retry=error.retryable)
        case UnusableResult():
            return APIError(502, message, SERVER, "unusable_result", should_retry=False)
        case ChargeUnknown():
            return APIError(504 if error.status is None else 502, message, SERVER, "charge_unknown", should_retry=False)
        case ClientClosedError():
            return APIError(503, "the gateway is stopping", SERVER, "stopping", should_retry=True)
        case BrokenPlugin():
            _log.error("a plugin failed: %s", error)
            return plugin_error()
        case ConfigError() | RegistryError():
            message = "the gateway's configuration of this model's provider is invalid; its log has the reason"
            return APIError(500, message, SERVER, "misconfigured", should_retry=False)
        case _:
            return APIError(502, message, SERVER, "provider_error", should_retry=False)


def overloaded(message: str, *, retry_after: float = 5, close: bool = False) -> APIError:
    """Return the refusal of a request that may be repeated as it is, after so many seconds: nothing was sent."""
    return APIError(503, message, SERVER, "overloaded", retry_after=retry_after, should_retry=True, close=close)


def plugin_error() -> APIError:
    """Return the response for a call that failed in a plugin, whose message is for the log alone."""
    return APIError(
        500, "a plugin of the gateway failed; its log has the reason", SERVER, "plugin_error", should_retry=False
    )


def charge_unknown_error() -> APIError:
    """Return the error for a call whose outcome nobody knows."""
    return APIError(502, CHARGE_UNKNOWN, SERVER, "charge_unknown", should_retry=False, not_charged=False)


def image_missing_error() -> APIError:
    """Return the error for a call that was made and charged, and whose image is not where it was stored."""
    message = (
        "the image of an earlier attempt at this request was made and charged, and is not in the gateway's storage; if"
        " a replica that has ended has it on its disk, this request gets it after that replica starts again; otherwise"
        " send it as a new request, which is charged"
    )
    return APIError(502, message, SERVER, "charge_unknown", should_retry=False, not_charged=False)


def partial_error_payload(error: ImpastoError) -> Iterator[tuple[str, object]]:
    """Return the entry for one failed image in the response with the others."""
    failure = to_api_error(error)
    yield from failure.to_json()["error"].items()
    yield "billed", error.billed
