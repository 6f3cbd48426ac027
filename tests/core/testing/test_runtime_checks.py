"""The check of jobs: a sound model passes it, and one that can't fetch what was paid for is told so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs
import pytest

from impasto import Account, Artifact, Operation, Request, Result, WireRequest, WireResponse
from impasto.testing import Answer
from impasto.testing.checks import RuntimeChecks
from impasto.testing.subject import registry_of_one
from tests.images import png

JOB = "a" * 64


class Upscaled(RuntimeChecks):
    """A model with jobs."""

    __test__ = False
    model = "stability/upscale-creative"
    minimal: ClassVar[Mapping[str, object]] = {"image": png(64, 64), "prompt": "a lighthouse"}
    job_accepted = Answer(headers={"content-type": "application/json"}, body=f'{{"id": "{JOB}"}}'.encode())
    success = Answer(headers={"content-type": "image/png", "finish-reason": "SUCCESS"}, body=png(64, 64))


def checked(change: Callable[[Any], Any] | None = None) -> None:
    suite = Upscaled()
    suite.prepare()
    if change is not None:
        operation = attrs.evolve(suite.operation(), dialect=change(suite.operation().dialect))
        suite._found = (suite.model, operation, registry_of_one(suite.model, operation))  # type: ignore[misc]  # of this one
    suite.test_a_job_is_fetched_later_by_its_id_and_never_paid_again()


def test_a_sound_model_passes() -> None:
    checked()


@attrs.frozen
class Other:
    """A dialect of which something is different."""

    sound: Any

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        wire: WireRequest = self.sound.transform_request(operation, request, account)
        return wire

    def classify_error(self, operation: Operation, response: WireResponse) -> Any:
        return self.sound.classify_error(operation, response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return self.sound.normalize_response(operation, request, response)


class NoJobs(Other):
    """Knows nothing of ``request.job``."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        return WireRequest(target=request.target)


class NothingPending(Other):
    """Takes the provider's word that a job was accepted for a picture."""

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoJobs, "ended in InvalidRequest: .*; see request.job in transform_request"),
        (NothingPending, "normalize_response must return a Pending"),
    ],
)
def test_a_defect_is_caught(kind: type[Other], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        checked(kind)
