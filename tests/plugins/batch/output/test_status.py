"""The status of a folder: an image that a run was at when it was killed is not through, whatever its last row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.output.status import status_of


@pytest.mark.parametrize("state", [TaskState.INTENT, TaskState.ACCEPTED, TaskState.STAGED])
@pytest.mark.parametrize("running", [True, False])
def test_an_image_that_a_run_is_at_is_pending(state: TaskState, running: bool) -> None:
    pictures = cast(TaskIndex, SimpleNamespace(count={state: 1, TaskState.DONE: 2}, usd=0.06, charges_unknown=0))
    status = status_of(pictures, 3, {}, running=running)
    assert (status.done, status.pending, status.in_flight) == (2, 1, 1)
    assert status.state == ("running" if running else "stopped")
    assert status.charges_unknown == (0 if running else 1)
