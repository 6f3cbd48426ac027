"""A failed call says if it was charged."""

from __future__ import annotations

import pytest

from impasto import (
    BadRequest,
    ChargeUnknown,
    ContentFiltered,
    ImpastoError,
    JobFailed,
    NotFound,
    PollExpired,
    ProviderFault,
    RateLimited,
    Unauthorized,
    UnusableResult,
)
from impasto_plugins.cli.terminal.failure import format_error
from impasto_plugins.emulator import Emulator
from tests.plugins.cli.conftest import Run

MODEL = "stability/stable-image-core"


@pytest.mark.parametrize(("status", "name"), [(402, "payment_required"), (403, "content_moderation")])
def test_a_refused_call_cost_nothing(run: Run, impasto_emulator: Emulator, status: int, name: str) -> None:
    impasto_emulator.fault("status", status=status, name=name)
    assert run("generate", MODEL, "a lighthouse").stderr.splitlines()[-1] == "It was not charged."
    assert impasto_emulator.charges == []


def test_a_blurred_image_may_have_been_charged(run: Run) -> None:
    assert "may have been charged" in run("generate", MODEL, "[content_filtered]").stderr


def exit_line(error: ImpastoError) -> str:
    """What a person reads about a job of this end."""
    error.operation, error.id = "acme/job", "job-1"
    return format_error(error)


@pytest.mark.parametrize(
    "error",
    [
        JobFailed("the provider reports that the job failed", billed="no"),
        JobFailed("the provider reports that the job failed"),
        ContentFiltered("the image was refused", billed="no"),
        ContentFiltered("the image was refused", billed="unknown"),
        PollExpired("the result has expired"),
        NotFound("no result for job job-1"),
        BadRequest("the prompt is too long"),
        ChargeUnknown("the provider no longer knows job job-1; it may have been charged", status=404),
    ],
)
def test_nothing_is_fetched_of_a_job_that_has_ended(error: ImpastoError) -> None:
    assert "impasto resume" not in exit_line(error)
    assert error.id == "job-1"  # programs still have it


@pytest.mark.parametrize(
    "error",
    [
        ChargeUnknown("no result within 5 s; job job-1 continues at the provider and may be charged"),
        ChargeUnknown("HTTP 502", status=502),
        UnusableResult("the answer has no complete image"),
        Unauthorized("the key was revoked"),
        RateLimited("slow down"),
        ProviderFault("HTTP 500"),
    ],
)
def test_a_job_that_may_have_a_result_is_fetched_by_a_command(error: ImpastoError) -> None:
    assert exit_line(error).endswith("Fetch the job's result with: impasto resume acme/job job-1")
