"""Each error of the core as a caller is answered: its status and code, and if an SDK may try again by itself."""

from __future__ import annotations

import json
import re

import pytest
from aiohttp import web

from impasto import (
    BadRequest,
    BrokenPlugin,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ContentFiltered,
    ImpastoError,
    MissingExtra,
    NotFound,
    NotSent,
    PaymentRequired,
    PermissionDenied,
    PollExpired,
    ProviderFault,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
    WireResponse,
)
from impasto.dialects import unusable
from impasto.ext import StateAway, is_not_charged
from impasto_plugins.gateway.errors import (
    APIError,
    add_response_headers,
    charge_unknown_error,
    new_request_id,
    partial_error_payload,
    plugin_error,
    to_api_error,
)

USER, REQUEST, SERVER, RATE = (
    "image_generation_user_error",
    "invalid_request_error",
    "server_error",
    "rate_limit_error",
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (unusable("has no image", WireResponse(status=200, headers={}, body=b"{}")),
         "the answer has no image; it was charged"),
        (UnusableResult("the answer was charged and has no image; its bytes are in .raw; GET /v1/images/files/a.png"),
         "the answer was charged and has no image; GET /v1/images/files/a.png"),
        (ChargeUnknown("job 7 continues at the provider and may be charged; client.resume fetches its result"),
         "job 7 continues at the provider and may be charged"),
    ],
)  # fmt: skip
def test_advice_for_those_who_write_python_is_left_out(error: ImpastoError, message: str) -> None:
    assert to_api_error(error).message == message
    assert dict(partial_error_payload(error))["message"] == message


def limited(seconds: float | None) -> RateLimited:
    error = RateLimited("slow", status=429)
    error.retry_after = seconds
    return error


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "again"),
    [
        (ContentFiltered("no", status=403), 400, USER, "moderation_blocked", "false"),
        (BadRequest("no", status=400), 400, REQUEST, "provider_refused", "false"),
        (BadRequest("in an answer of 200", status=200), 400, REQUEST, "provider_refused", "false"),
        (Unprocessable("no", status=422), 422, REQUEST, "provider_refused", "false"),
        (TooLarge("no", status=413), 413, REQUEST, "request_too_large", "false"),
        (limited(3), 429, RATE, "rate_limit_exceeded", "true"),
        (Unauthorized("no", status=401), 502, SERVER, "provider_account", "false"),
        (PermissionDenied("no", status=403), 502, SERVER, "provider_account", "false"),
        (PaymentRequired("no", status=402), 502, SERVER, "provider_account", "false"),
        (NotFound("no", status=404), 502, SERVER, "provider_account", "false"),
        (NotSent("no"), 503, SERVER, "provider_unreachable", "true"),
        (StateAway("it is at 10.0.0.7"), 503, SERVER, "overloaded", "true"),
        (NotSent("no", retryable=False), 503, SERVER, "provider_unreachable", "false"),
        (ProviderFault("no", status=500), 503, SERVER, "provider_fault", "true"),
        (UnusableResult("no"), 502, SERVER, "unusable_result", "false"),
        (ChargeUnknown("no"), 504, SERVER, "charge_unknown", "false"),
        (ChargeUnknown("no", status=502), 502, SERVER, "charge_unknown", "false"),
        (ChargeUnknown("no", status=200), 502, SERVER, "charge_unknown", "false"),
        (PollExpired("no"), 502, SERVER, "charge_unknown", "false"),
        (ClientClosedError("no"), 503, SERVER, "stopping", "true"),
        (BrokenPlugin("no"), 500, SERVER, "plugin_error", "false"),
        (ConfigError("no"), 500, SERVER, "misconfigured", "false"),
        (MissingExtra("no"), 500, SERVER, "misconfigured", "false"),
        (ImpastoError("no"), 502, SERVER, "provider_error", "false"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ImpastoError) else None,
)
def test_each_error_is_answered_with_its_status_and_code(
    error: ImpastoError, status: int, kind: str, code: str, again: str
) -> None:
    failure = to_api_error(error)
    answer = failure.to_response()
    assert isinstance(answer.body, bytes)
    payload = json.loads(answer.body)["error"]
    assert (answer.status, payload["type"], payload["code"], payload["param"]) == (status, kind, code, None)
    assert answer.headers["x-should-retry"] == again
    assert (failure.not_charged, failure.close) == (error.billed == "no", False)
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("code", ["moderation_blocked", "unusable_result"])
def test_an_image_that_may_be_charged_beside_an_error_of_its_own_kind_keeps_the_errors_code(code: str) -> None:
    error = UnusableResult("no") if code == "unusable_result" else ContentFiltered("no", status=403)
    error.errors = (ChargeUnknown("no"),)
    failure = to_api_error(error)
    assert (failure.code, failure.status, failure.not_charged) == (
        code,
        502 if code == "unusable_result" else 400,
        False,
    )
    assert failure.to_response().headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("errors", "free"),
    [
        ((), True),
        ((NotSent("no"),), True),
        ((NotSent("no"), UnusableResult("no")), False),
        ((PollExpired("no"),), False),
    ],
    ids=["none", "free", "one of two", "one"],
)
def test_a_call_was_free_if_all_of_its_images_were(errors: tuple[ImpastoError, ...], free: bool) -> None:
    error = ProviderFault("no", status=500)
    error.errors = errors
    assert is_not_charged(error) is free
    assert is_not_charged(ChargeUnknown("no")) is False


@pytest.mark.parametrize(
    "error",
    [ProviderFault("no", status=500), Unauthorized("no", status=401), limited(7)],
    ids=type,
)
def test_a_possible_charge_is_no_refusal_of_an_account_or_a_request(error: ImpastoError) -> None:
    error.errors = (ChargeUnknown("no"),)
    failure = to_api_error(error)
    assert (failure.status, failure.type, failure.code) == (502, SERVER, "charge_unknown")
    assert failure.retry_after is None


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, None), (0, "1"), (0.2, "1"), (1, "1"), (1.1, "2"), (30, "30"), (59.01, "60")]
)
def test_a_wait_is_told_in_whole_seconds_and_is_never_too_short(seconds: float | None, header: str | None) -> None:
    assert to_api_error(limited(seconds)).to_response().headers.get("retry-after") == header


@pytest.mark.parametrize(("again", "header"), [(None, None), (True, "true"), (False, "false")])
def test_a_decision_left_to_the_sdk_has_no_header(again: bool | None, header: str | None) -> None:
    assert APIError(400, "no", should_retry=again).to_response().headers.get("x-should-retry") == header


def test_the_providers_request_is_named_once() -> None:
    for message in ("no", "no, see req-7"):
        error = ProviderFault(message, status=500, request_id="req-7")
        assert to_api_error(error).message.count("req-7") == 1
    assert to_api_error(ProviderFault("no", status=500)).message == "no"


def test_a_connection_is_closed_after_a_body_that_was_not_read() -> None:
    for close in (True, False):
        assert APIError(413, "no", close=close).to_response().keep_alive is (False if close else None)


def test_headers_of_ones_own_stand_beside_the_others() -> None:
    headers = APIError(405, "no", headers={"allow": "GET"}).to_response().headers
    assert (headers["allow"], headers["content-type"]) == ("GET", "application/json")


def test_a_failure_that_says_nothing_else_cost_nothing() -> None:
    failure = APIError(400, "no", code="c", param="p")
    assert (failure.not_charged, failure.close, failure.retry_after, failure.should_retry) == (True, False, None, None)
    assert failure.to_json() == {"error": {"message": "no", "type": REQUEST, "param": "p", "code": "c"}}


def test_an_outcome_that_nobody_knows_may_have_been_charged() -> None:
    failure = charge_unknown_error()
    assert (failure.status, failure.type, failure.code, failure.should_retry, failure.not_charged) == (
        502,
        SERVER,
        "charge_unknown",
        False,
        False,
    )


def test_a_plugins_words_are_for_the_log_alone() -> None:
    failure = to_api_error(BrokenPlugin("a secret of the plugin"))
    assert failure.to_json() == plugin_error().to_json()
    assert "secret" not in failure.message


def test_a_lost_image_says_if_it_was_charged() -> None:
    found = dict(partial_error_payload(ChargeUnknown("no")))
    assert (found["code"], found["billed"], found["message"]) == ("charge_unknown", "unknown", "no")
    assert dict(partial_error_payload(NotSent("no")))["billed"] == "no"


def test_each_answer_has_an_id_of_its_own_and_no_version() -> None:
    id, answer = new_request_id(), web.Response()
    assert re.fullmatch("req_[0-9a-f]{24}", id)
    assert id != new_request_id()
    add_response_headers(answer, id)
    assert (answer.headers["x-request-id"], answer.headers["server"]) == (id, "impasto")
