"""What the end of a call is told as: a job's id is its provider's text, and stands in messages escaped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from impasto import Artifact, Call, ChargeUnknown, NotFound, Pending, PollExpired, Result, WireRequest
from impasto.call_errors import job_missing_error, timeout_error
from impasto.result_checks import result_problem

ID = "job\r\n2026-11-26 INFO paid"
SHOWN = "job\\r\\n2026-11-26 INFO paid"


def a_call(job: str | None = None) -> Call:
    request, deadline = SimpleNamespace(job=job), SimpleNamespace(is_closed=False)
    return cast(
        Call,
        SimpleNamespace(
            job=ID,
            timeout=1.0,
            possible_charges=1,
            answer=None,
            file=None,
            cancellation="",
            images_wait=False,
            request=request,
            deadline=deadline,
        ),
    )


def test_a_job_that_goes_on() -> None:
    assert f"job {SHOWN} continues at the provider" in timeout_error(a_call()).message


@pytest.mark.parametrize(("resumed", "age"), [(True, 0.0), (False, 0.0), (False, 100.0)])
def test_a_job_that_is_gone(resumed: bool, age: float) -> None:
    pending = Pending(id=ID, poll=WireRequest(target="/job", method="GET"), result_ttl=60.0)
    error = job_missing_error(NotFound("no such job", status=404), a_call(ID if resumed else None), age, pending)
    assert f"job {SHOWN}" in error.message
    assert ID not in error.message


@pytest.mark.parametrize(("age", "kind"), [(59.9, ChargeUnknown), (60.0, PollExpired), (61.0, PollExpired)])
def test_a_result_is_over_from_the_second_on_for_which_it_is_kept(age: float, kind: type[Exception]) -> None:
    pending = Pending(id="a", poll=WireRequest(target="/job", method="GET"), result_ttl=60.0)
    assert type(job_missing_error(NotFound("no such job", status=404), a_call(), age, pending)) is kind


def test_a_result_that_is_kept_for_nobody_knows_how_long_is_never_over() -> None:
    pending = Pending(id="a", poll=WireRequest(target="/job", method="GET"))
    error = job_missing_error(NotFound("no such job", status=404, request_id="r"), a_call(), 1e9, pending)
    assert isinstance(error, ChargeUnknown)
    assert (error.status, error.request_id) == (404, "r")


def test_one_artifact_that_can_not_be_used_spoils_a_plugins_result() -> None:
    whole, empty = (Artifact(data=data, media_type="image/png") for data in (b"image", b""))
    call = cast("Call", SimpleNamespace(is_proven_free=False, secrets=()))
    assert result_problem(Result(artifacts=(whole, whole)), call) == ""
    assert "an empty one" in result_problem(Result(artifacts=(whole, empty)), call)
    assert "a tuple of Artifact" in result_problem(Result(artifacts=cast("Any", (whole, b"image"))), call)
