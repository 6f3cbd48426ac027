"""The vendor's dialect by itself: what an answer is, and what it holds. Over a socket: the tests beside this one."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping

import attrs
import pytest

from impasto import (
    Account,
    ChargeUnknown,
    ContentFiltered,
    InvalidRequest,
    Pending,
    RateLimited,
    Registry,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.records import Request
from impasto_plugins.stability.refusals import lock_out, refusal
from tests.images import png

CORE = Registry().operation("stability/stable-image-core")
CREATIVE = Registry().operation("stability/upscale-creative")
ACCOUNT = Account(provider=CORE.provider, base_url="https://api.stability.ai", headers={})
IMAGE = png(8, 8)
JOB = "a1" * 32


def answer(
    body: object = b"", *, status: int = 200, kind: str = "application/json", headers: Mapping[str, str] = {}
) -> WireResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireResponse(status=status, headers={"content-type": kind, **headers}, body=data)


def request(job: str | None = None, user: str | None = None) -> Request:
    return attrs.evolve(CORE.request("m", {"prompt": "x"}), job=job, user=user)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/webp", "application/json"])
def test_a_200_with_an_image_or_json_is_a_success(kind: str) -> None:
    assert CORE.dialect.classify_error(CORE, answer(IMAGE, kind=kind)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "text/html"),
        (200, "audio/wav"),
        (200, ""),
        (201, "image/png"),
        (202, "application/json"),
        (500, "image/png"),
    ],
)
def test_any_other_status_or_type_may_have_been_charged(status: int, kind: str) -> None:
    error = CORE.dialect.classify_error(CORE, answer(IMAGE, status=status, kind=kind))
    assert type(error) is ChargeUnknown
    assert (error.status, error.raw, error.pause) == (status, IMAGE, 0.0)


def test_a_202_is_a_job_only_for_asynchronous_operations() -> None:
    assert CREATIVE.dialect.classify_error(CREATIVE, answer({"id": JOB}, status=202)) is None
    assert (
        type(CREATIVE.dialect.classify_error(CREATIVE, answer({"id": JOB}, status=202, kind="text/html")))
        is ChargeUnknown
    )


@pytest.mark.parametrize(("headers", "seconds"), [({}, 60.0), ({"retry-after": "7"}, 7.0), ({"retry-after": "0"}, 0.0)])
def test_a_pages_429_pauses_the_key_as_the_vendors_own_would(headers: dict[str, str], seconds: float) -> None:
    page = answer(b"<html>", status=429, kind="text/html", headers=headers)
    error = CORE.dialect.classify_error(CORE, page)
    assert isinstance(error, ChargeUnknown)
    assert error.pause == seconds == lock_out(page)
    own = refusal(answer({"id": "e", "name": "rate_limit_exceeded", "errors": []}, status=429, headers=headers))
    assert isinstance(own, RateLimited)
    assert own.retry_after == seconds


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (answer([1]), "is JSON, but not an object"),
        (answer(b"{"), "is invalid JSON"),
        (answer(b"[" * 100_000), "is invalid JSON"),
        (answer({"image": "&&&&"}), "has invalid base64"),
        (answer({"image": b64encode(IMAGE[:-20]).decode()}), "has an incomplete image"),
        (answer({"image": 5}), "has neither image nor job id"),
        (answer({"id": "../secret"}), "has neither image nor job id"),
        (answer({"id": "a" * 201}), "has neither image nor job id"),
        (answer({"id": JOB}), "has neither image nor job id"),
        (answer(b"GIF89a", kind="image/png"), "has no valid image"),
    ],
)
def test_an_unusable_answer_is_an_error_with_its_reason_and_bytes(response: WireResponse, message: str) -> None:
    with pytest.raises(UnusableResult, match=f"the answer {message}; it was charged") as caught:
        CORE.dialect.normalize_response(CORE, request(), response)
    assert (caught.value.raw, caught.value.billed) == (response.body, "yes")


@pytest.mark.parametrize("job", ["a", "A_-9", "a" * 200])
def test_a_job_is_polled_below_the_vendors_results(job: str) -> None:
    pending = CREATIVE.dialect.normalize_response(CREATIVE, request(), answer({"id": job}, status=202))
    assert isinstance(pending, Pending)
    assert pending.poll is not None
    assert (pending.id, pending.result_ttl, pending.poll.target) == (job, 86_400, f"/v2beta/results/{job}")


def test_a_poll_answer_without_an_id_keeps_the_job() -> None:
    pending = CREATIVE.dialect.normalize_response(CREATIVE, request(JOB), answer({"status": "in-progress"}, status=202))
    assert isinstance(pending, Pending)
    assert pending.id == JOB


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ("7", 7),
        (7, 7),
        ("0", 0),
        ("9" * 19, int("9" * 19)),
        ("9" * 20, None),
        ("-1", None),
        ("٣", None),
        (True, None),
        (1.0, None),
    ],
)
def test_an_image_with_an_invalid_seed_is_delivered(arguments: object, seed: int | None) -> None:
    results = {"image": b64encode(IMAGE).decode(), "seed": arguments, "finish_reason": "SUCCESS"}
    result = CORE.dialect.normalize_response(CORE, request(), answer(results))
    assert isinstance(result, Result)
    assert (result.artifacts[0].seed, result.artifacts[0].finish_reason) == (seed, "SUCCESS")


@pytest.mark.parametrize(
    ("user", "is_taken"),
    [("u", True), ("~" * 256, True), ("", False), ("u" * 257, False), ("ü", False), ("a\n", False)],
)
def test_a_user_has_at_most_256_characters_of_ascii(user: str, is_taken: bool) -> None:
    if is_taken:
        wire = CORE.dialect.transform_request(CORE, request(user=user), ACCOUNT)
        assert isinstance(wire, WireRequest)
        assert wire.headers["stability-client-user-id"] == user
        return
    with pytest.raises(InvalidRequest, match="user: must be 1 to 256 printable ASCII characters"):
        CORE.dialect.transform_request(CORE, request(user=user), ACCOUNT)


@pytest.mark.parametrize(
    ("response", "is_image"),
    [
        (answer(kind="image/png"), True),
        (answer(kind="image/png", headers={"finish-reason": "SUCCESS"}), True),
        (answer(kind="image/png", headers={"finish-reason": "CONTENT_FILTERED"}), False),
        (answer(kind="application/json"), False),
        (answer(kind="audio/wav"), False),
        (answer(kind="image/png", status=500), False),
    ],
)
def test_only_an_unfiltered_image_is_streamed(response: WireResponse, is_image: bool) -> None:
    assert CORE.is_artifact_body(CORE.request("m", {"prompt": "x"}), response) is is_image


def test_an_error_has_at_most_ten_messages() -> None:
    error = refusal(answer({"id": "e", "name": "bad_request", "errors": [5, *map(str, range(20))]}, status=400))
    assert error is not None
    assert error.messages == tuple(map(str, range(9))), "what is no text is passed over"


def test_a_key_that_the_vendor_repeats_is_not_in_the_message() -> None:
    error = refusal(answer({"id": "e", "name": "unauthorized", "errors": ["sk-secret is wrong"]}, status=401))
    assert error is not None
    assert error.messages == ()
    assert "check STABILITY_API_KEY or api_key" in error.message
    assert "sk-secret" not in error.message


def test_a_blurred_image_may_have_been_charged() -> None:
    blurred = answer(IMAGE, kind="image/png", headers={"finish-reason": "CONTENT_FILTERED"})
    with pytest.raises(ContentFiltered) as caught:
        CORE.dialect.normalize_response(CORE, request(), blurred)
    assert caught.value.billed == "unknown"
    assert [each.data for each in caught.value.artifacts] == [IMAGE]


def test_a_result_is_available_for_a_day() -> None:
    """https://platform.stability.ai/docs/api-reference: results are stored for 24 hours after generation."""
    job = CREATIVE.dialect.normalize_response(CREATIVE, request(), answer({"id": JOB}, status=202))
    assert isinstance(job, Pending)
    assert job.result_ttl == 86_400
