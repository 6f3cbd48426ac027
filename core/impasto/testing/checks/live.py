"""The paid half of the suite: one call of the provider itself. It is off unless ``pytest --impasto-live`` is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest

from impasto import Client, Cost, ImpastoError, Result, Retry
from impasto.testing.subject import Subject
from impasto.testing.watch import run, run_limited


class LiveChecks(Subject):
    """One paid call."""

    live: ClassVar[Mapping[str, object]] = {}
    """Parameters that make the paid call cheap, such as those of the smallest image."""
    live_most_usd: ClassVar[float] = 0.10
    """The most that the paid call may cost. A call that is estimated higher, or not at all, is not made."""
    live_seconds: ClassVar[float] = 180.0
    """The time limit of the paid call."""

    def test_live_call(self, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
        """Make one call with the key in the environment, and report its price before and after."""
        if not request.config.getoption("--impasto-live"):
            pytest.skip("pytest --impasto-live makes this call, which is paid for")
        self.prepare()
        variable = self.operation().provider.key_variable
        if variable is not None and not os.environ.get(variable):
            pytest.skip(f"{variable} is not set")

        def report(text: str) -> None:
            with capsys.disabled():
                print(f"\n{self.model}: {text}")  # noqa: T201 - who pays reads it while the call runs

        limits = type("LiveLimits", (type(self),), {"seconds": self.live_seconds})
        run_limited(limits, lambda: run(self._live(report)))

    async def _live(self, report: Callable[[str], None]) -> None:
        params = {**self.minimal, **self.live}
        async with Client(registry=self.registry_of_one(), retry=Retry(attempts=1, refused=0)) as client:
            estimate = await client.estimate(self.model, 1, **params)
            report(f"about to spend {_usd(estimate)}")
            if estimate is None or estimate.usd > self.live_most_usd:
                pytest.skip(
                    f"the estimate is {_usd(estimate)}, live_most_usd is {self.live_most_usd:g}: nothing was sent"
                )
            try:
                result = await client.invoke(self.model, params, timeout=self.live_seconds)
            except ImpastoError as error:
                report(f"ended in {type(error).__name__}; billed: {error.billed}")
                raise
            report(f"spent {_usd(result.cost)}")
            self._check_live(result)

    def _check_live(self, result: Result) -> None:
        assert result.artifacts, "the result has no artifact"
        for artifact in result.artifacts:
            assert artifact.data, "an artifact is empty"
            if self.operation().output == "image":
                assert artifact.media_type in self.media_types, f"media_types lacks {artifact.media_type}"
        if self.request_id is not None:
            assert result.request_id, f"no request id: is {self.request_id} the header's name?"
        if "seed" in (self.reports or {}):
            assert result.artifacts[0].seed is not None, "the provider reported no seed"


def _usd(cost: Cost | None) -> str:
    return "an unknown amount" if cost is None else f"{cost.usd:.4g} USD"
