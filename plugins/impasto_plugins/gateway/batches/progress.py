"""Counts of a batch's finished lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.tasks import ImageTask

from .input_lines import InputLine


class Progress:
    """Counts each line once, when the last of its images is finished.

    ``completed``: the lines that earlier runs have completed. Those are found again one by one, and never become fewer.
    """

    def __init__(self, index: TaskIndex, completed: int) -> None:
        self._index = index
        self._completed_before = completed
        self._image_counts: dict[str, int] = {}
        """The number of images of lines that have more than one."""
        self._finished_ids: set[str] = set()
        self._completed_count = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the current counts."""
        completed = max(self._completed_count, self._completed_before)
        return {"completed": completed, "failed": len(self._finished_ids) - self._completed_count}

    def begin(self, jobs: Iterable[ImageTask]) -> None:
        """Start counting again: failed images may be requested again."""
        self._completed_before = self.counts["completed"]
        self._finished_ids.clear()
        self._completed_count = 0
        self._image_counts = {job.id: job.n for job in jobs if job.n > 1}

    def line_started(self, line: InputLine) -> None:
        """Note that images of a line are about to be requested."""
        if line.n > 1:
            self._image_counts[line.id] = line.n

    def line_finished(self, line: InputLine) -> None:
        """Note that nothing of a line is left to do, except its running jobs."""
        self._update(line.id, line.n)

    def image_finished(self, id: str) -> None:
        """Note that an image of a line is finished."""
        self._update(id, self._image_counts.get(id, 1))

    def _update(self, id: str, n: int) -> None:
        states = self._index.states(id, n)
        if id not in self._finished_ids and all(state > TaskState.STAGED for state in states):
            self._finished_ids.add(id)
            self._completed_count += TaskState.DONE in states
            self._image_counts.pop(id, None)
