"""The suite that every model must pass: subclass it in a test module, and declare the model."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from .declaration_checks import Declared
from .golden import files_of, operation_text, request_text
from .parameter_checks import Parameters
from .recorder import recording
from .response_checks import Answers
from .runtime_checks import Running


class OperationSuite(Declared, Parameters, Answers, Running):
    """Checks one model through a real client, over real sockets where bytes matter.

        class TestWatercolour(OperationSuite):
            model = "acme/watercolour"
            least = {"prompt": "a lighthouse"}
            others = {"seed": 7, "paper": "rough"}
            good = Answer(headers={"content-type": "image/png"}, body=PICTURE)
            refusals = (Refusal(answer=Answer(status=401, ...), error=Unauthorized),)

    What it can't do is said in ``requirements``. The whole request and the parameters in words are kept in a golden
    file beside the test module; ``pytest --impasto-update`` writes it, and its diff is for review.
    """

    unsteady: ClassVar[frozenset[str]] = frozenset()
    """Headers whose value is another in each request, such as a signature."""

    golden: ClassVar[str | None] = "golden"
    """The folder of the golden files, beside the test module."""

    def requests(self) -> Iterator[Mapping[str, object]]:
        """The calls that the golden file shows: by default one with every field."""
        yield {**self.others, **self.least}

    def test_its_request_is_as_it_was_reviewed(self, request: pytest.FixtureRequest) -> None:
        if self.golden is None:
            return
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model)
        path = Path(inspect.getfile(type(self))).parent / self.golden / f"{name}.txt"
        now = asyncio.run(self._written())
        if request.config.getoption("--impasto-update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(now, encoding="utf-8")
        assert path.exists(), f"there is no {path.name} yet: run pytest --impasto-update and review it"
        assert now == path.read_text(encoding="utf-8"), f"{path.name} says otherwise: see what changed, then update it"

    async def _written(self) -> str:
        operation = self.operation()
        texts = [operation_text(operation)]
        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            for given in self.requests():
                recorder.seen.clear()
                await client.invoke(self.model, given)
                files = files_of(operation, given)
                texts += [request_text(seen, recorder.url, files, self.unsteady) for seen in recorder.seen]
        return "\n".join(texts)
