"""The check of jobs: a sound model passes it, and one that can't fetch what was paid for is told so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs
import pytest

from impasto import Artifact, Operation, Request, Result, WireRequest, WireResponse
from impasto.testing import Answer
from impasto.testing.runtime_checks import Running
from tests.pictures import png

JOB = "a" * 64


class Upscaled(Running):
    """A model with jobs."""

    __test__ = False
    model = "stability/upscale-creative"
    least: ClassVar[Mapping[str, object]] = {"image": png(64, 64), "prompt": "a lighthouse"}
    accepted = Answer(headers={"content-type": "application/json"}, body=f'{{"id": "{JOB}"}}'.encode())
    good = Answer(headers={"content-type": "image/png", "finish-reason": "SUCCESS"}, body=png(64, 64))


def checked(change: Callable[[Any], Any] | None = None) -> None:
    suite = Upscaled()
    suite.setup_method()
    if change is not None:
        suite._operation = attrs.evolve(suite.operation(), dialect=change(suite.operation().dialect))
        suite._alone = suite._registry()
    suite.test_a_job_is_fetched_later_by_its_id_and_never_paid_again()


def test_a_sound_model_passes() -> None:
    checked()


@attrs.frozen
class Other:
    """A dialect of which something is different."""

    sound: Any

    def pack(self, operation: Operation, request: Request) -> WireRequest:
        wire: WireRequest = self.sound.pack(operation, request)
        return wire

    def classify(self, operation: Operation, response: WireResponse) -> Any:
        return self.sound.classify(operation, response)

    def unpack(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return self.sound.unpack(operation, request, response)


class NoJobs(Other):
    """Knows nothing of ``request.job``."""

    def pack(self, operation: Operation, request: Request) -> WireRequest:
        return WireRequest(target=request.target)


class NothingPending(Other):
    """Takes the provider's word that a job was accepted for a picture."""

    def unpack(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))


@pytest.mark.parametrize(
    ("kind", "said"),
    [(NoJobs, "came to BrokenPlugin: .*; see request.job in pack"), (NothingPending, "unpack must give a Pending")],
)
def test_a_defect_is_caught(kind: type[Other], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        checked(kind)
