"""How many lines of a batch are through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from impasto_plugins.batch.ledger.index import Pictures
from impasto_plugins.batch.ledger.states import State
from impasto_plugins.batch.tasks import Unit

from .input_lines import Line


class Progress:
    """Counts each line once, when the last of its pictures is through."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._several: dict[str, int] = {}
        """How many pictures a line asks for, where that is not one."""
        self._counted: set[str] = set()
        self._completed = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How many were through when this was asked."""
        return {"completed": self._completed, "failed": len(self._counted) - self._completed}

    def begin(self, jobs: Iterable[Unit]) -> None:
        """All is counted anew: what failed may be asked for again."""
        self._counted.clear()
        self._completed = 0
        self._several = {job.id: job.n for job in jobs if job.n > 1}

    def expects(self, line: Line) -> None:
        """Pictures of a line are about to be asked for."""
        if line.n > 1:
            self._several[line.id] = line.n

    def through(self, line: Line) -> None:
        """Nothing of a line is left to do, unless jobs of it run."""
        self._look(line.id, line.n)

    def came(self, id: str) -> None:
        """A picture of a line is through."""
        self._look(id, self._several.get(id, 1))

    def _look(self, id: str, n: int) -> None:
        states = self._pictures.states(id, n)
        if id not in self._counted and all(state > State.STAGED for state in states):
            self._counted.add(id)
            self._completed += State.DONE in states
            self._several.pop(id, None)
