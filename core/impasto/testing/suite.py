"""The suite that every model must pass: subclass it in a test module, and declare the model."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import ClassVar

import pytest

from impasto import InvalidRequest

from .checks import (
    DeclarationChecks,
    IsolationChecks,
    JobChecks,
    LiveChecks,
    ParameterChecks,
    ProcessChecks,
    RuntimeChecks,
    ScenarioChecks,
    StreamChecks,
)
from .golden import files_of, operation_text, request_text
from .watch import check, run


class OperationSuite(
    DeclarationChecks,
    ParameterChecks,
    ProcessChecks,
    JobChecks,
    IsolationChecks,
    ScenarioChecks,
    StreamChecks,
    RuntimeChecks,
    LiveChecks,
):
    """Checks one model through a real client, over real sockets if bytes matter.

        class TestWatercolour(OperationSuite):
            model = "acme/watercolour"
            minimal = {"prompt": "a lighthouse"}
            others = {"seed": 7, "paper": "rough"}
            success = Answer(headers={"content-type": "image/png"}, body=PICTURE)
            refusals = (Refusal(answer=Answer(status=401, ...), error=Unauthorized),)

    ``requirements`` declares what the model can't do. The whole request and the parameters in words are kept in a
    golden file beside the test module; ``pytest --impasto-update`` writes it, and its diff is for review.
    """

    unsteady: ClassVar[frozenset[str]] = frozenset()
    """Headers whose value differs in each request, such as a signature."""

    golden: ClassVar[str | None] = "golden"
    """The folder of the golden files, beside the test module."""

    @check
    def test_its_request_is_as_it_was_reviewed(self, request: pytest.FixtureRequest) -> None:
        """Compare the request with the golden file."""
        if self.golden is None:
            return
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model)
        path = Path(inspect.getfile(type(self))).parent / self.golden / f"{name}.txt"
        now = run(self._golden_text())
        if request.config.getoption("--impasto-update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(now, encoding="utf-8")
        assert path.exists(), f"{path.name} does not exist: run pytest --impasto-update and review it"
        assert now == path.read_text(encoding="utf-8"), (
            f"the request differs from {path.name}: review the change, then update it"
        )

    async def _golden_text(self) -> str:
        operation = self.operation()
        texts = [operation_text(operation)]
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for params in self.requests():
                recorder.requests.clear()
                try:
                    await client.invoke(self.model, params)
                except InvalidRequest as error:
                    raise AssertionError(
                        f"requests() yields a call with {', '.join(params)}, which is refused: {error}\n"
                        "override requests(): yield several calls, each with fields that go together"
                    ) from None
                files = files_of(operation, params)
                texts += [request_text(request, recorder.urls, files, self.unsteady) for request in recorder.requests]
        return "\n".join(texts)
