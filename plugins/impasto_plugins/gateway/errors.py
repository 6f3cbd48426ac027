"""Every error in OpenAI's shape: what the caller is told, and whether their SDK should try again by itself.

``x-should-retry: true`` stands only where it is proved that nothing was charged and another try may help.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Iterator

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
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
)
from impasto.ext import printable
from impasto_plugins.openai_compat.words import WORDS

_log = logging.getLogger("impasto.gateway")

INVALID = "invalid_request_error"
SERVER = "server_error"
REPLAYED = {"idempotent-replayed": "true"}
"""The header of an answer that an earlier request came to; the name is the one most APIs have for it."""


def new_id() -> str:
    """A request's id, which every answer carries."""
    return f"req_{secrets.token_hex(12)}"


def sign(response: web.StreamResponse, id: str) -> None:
    """Puts a request's id on its answer, and whose that is: aiohttp would tell its own version."""
    response.headers["x-request-id"] = id
    response.headers["server"] = "impasto"


@attrs.define(eq=False)
class Failure(Exception):
    """An answer that is an error. ``retry_after`` is in seconds; ``should_retry`` None leaves it to the SDK's rule.

    ``free``: it is proved that nothing was charged. ``close``: the connection ends with it, as the request's body was
    not read.
    """

    status: int
    message: str
    type: str = INVALID
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    free: bool = True
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    close: bool = False

    def body(self) -> dict[str, dict[str, str | None]]:
        """The answer's JSON."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        """The whole answer."""
        headers = {"content-type": "application/json", **self.headers}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        answer = web.Response(status=self.status, body=json.dumps(self.body()).encode(), headers=headers)
        if self.close:
            answer.force_close()
        return answer


def invalid(error: InvalidRequest, operation: Operation) -> Failure:
    """The refusal of a request that does not fit its model; its first problem gives ``param`` and ``code``."""
    first = error.problems[0]
    fields = operation.fields
    known = {"model", "extra_body", *WORDS, *fields, *operation.also}
    sounds = operation.roles.get("audio", ())
    if first.field not in known:
        code = "unknown_parameter"
    elif first.message.startswith("required"):
        code = "missing_required_parameter"
    elif first.field in sounds:
        code = "invalid_audio"
    else:
        code = "invalid_image" if first.field in operation.file_words | {*operation.file_fields} else "invalid_value"
    return Failure(400, error.message, code=code, param=printable(first.field))


def is_free(error: ImpastoError) -> bool:
    """Whether it is proved that a failed call cost nothing: it, and all of its pictures."""
    return all(each.billed == "no" for each in (error, *error.errors))


def failure_of(error: ImpastoError) -> Failure:
    """What a caller is told of a failed call."""
    failure = _in_words(error)
    if error.request_id and error.request_id not in failure.message:
        failure.message += f" (the provider's request {error.request_id})"
    if not is_free(error):
        failure.free = failure.should_retry = False
        if failure.code not in ("moderation_blocked", "unusable_result"):
            failure.code = "charge_unknown"
            failure.status = failure.status if failure.status in (502, 504) else 502
            failure.type = SERVER
            failure.retry_after = None
    return failure


def _in_words(error: ImpastoError) -> Failure:
    said = error.message
    match error:
        case ContentFiltered():
            return Failure(400, said, "image_generation_user_error", "moderation_blocked", should_retry=False)
        case BadRequest() | Unprocessable():
            return Failure(error.status, said, code="provider_refused", should_retry=False)
        case TooLarge():
            return Failure(413, said, code="request_too_large", should_retry=False)
        case RateLimited():
            wait = error.retry_after  # None: the SDK's own back-off is right
            return Failure(429, said, "rate_limit_error", "rate_limit_exceeded", retry_after=wait, should_retry=True)
        case Unauthorized() | PermissionDenied() | PaymentRequired() | NotFound():
            said = f"the provider refused the gateway's own account: {said}"
            return Failure(502, said, SERVER, "provider_account", should_retry=False)
        case NotSent():
            return Failure(503, said, SERVER, "provider_unreachable", should_retry=error.retryable)
        case ProviderFault():
            return Failure(503, said, SERVER, "provider_fault", should_retry=error.retryable)
        case UnusableResult():
            return Failure(502, said, SERVER, "unusable_result", should_retry=False)
        case ChargeUnknown():
            return Failure(504 if error.status is None else 502, said, SERVER, "charge_unknown", should_retry=False)
        case ClientClosedError():
            return Failure(503, "the gateway is stopping", SERVER, "stopping", should_retry=True)
        case BrokenPlugin():
            _log.error("a plugin failed: %s", error)
            return plugin_error()
        case ConfigError() | RegistryError():
            said = "the gateway can't reach this model's provider as it is set up; its log says why"
            return Failure(500, said, SERVER, "misconfigured", should_retry=False)
        case _:
            return Failure(502, said, SERVER, "provider_error", should_retry=False)


def plugin_error() -> Failure:
    """Return the answer for a call that failed in a plugin, whose words are for the log alone."""
    return Failure(500, "a plugin of the gateway failed; its log says why", SERVER, "plugin_error", should_retry=False)


def unknown() -> Failure:
    """What is told of a call that nobody can tell the outcome of."""
    said = (
        "an earlier attempt at this request left for the provider and its outcome was lost: it may have been charged;"
        " look at the provider's account, then ask again as a new request"
    )
    return Failure(502, said, SERVER, "charge_unknown", should_retry=False, free=False)


def lost(error: ImpastoError) -> Iterator[tuple[str, object]]:
    """What is told of one lost picture of several, in the answer that holds the others."""
    failure = failure_of(error)
    yield from failure.body()["error"].items()
    yield "billed", error.billed
