"""Rows of several hosts, merged: the order in which they arrive changes nothing."""

from __future__ import annotations

import asyncio
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.output.status import open_rows
from impasto_plugins.batch.shared.merging import Merge

INTENT, ACCEPTED, STAGED = (int(each) for each in (TaskState.INTENT, TaskState.ACCEPTED, TaskState.STAGED))


def statement(kind: str, host: str = "a", **more: object) -> dict[str, Any]:
    """A row of one image."""
    common = {"id": "x", "index": 0, "usd": 0.03, "line": 0, "n": 1, "model": "m", "asks": "", "billed": "yes"}
    billed = {"ambiguous": "unknown", "refused": "no"}.get(kind, "yes")
    return {"row": kind, "from": host, **common, "billed": billed, "again": kind == "refused", "path": "x.png", **more}


CASES = {
    "a late image takes the place of the verdict": (
        [statement("intent"), statement("ambiguous", "b", settles=INTENT), statement("staged"), statement("done")],
        (TaskState.DONE, 0.03, 0),
    ),
    "two verdicts are one": (
        [statement("intent"), statement("ambiguous", "b", settles=INTENT), statement("ambiguous", "c", settles=INTENT)],
        (TaskState.AMBIGUOUS, 0.03, 1),
    ),
    "a job that was accepted is more than a verdict": (
        [statement("intent"), statement("ambiguous", "b", settles=INTENT), statement("accepted")],
        (TaskState.ACCEPTED, 0.0, 0),
    ),
    "a charged image that could not be fetched is more than its job": (
        [statement("intent"), statement("accepted"), statement("accepted", unfetched="HTTP 403"), statement("done")],
        (TaskState.DONE, 0.03, 0),
    ),
    "the host's own refusal is more than a verdict": (
        [statement("intent"), statement("ambiguous", "b", settles=INTENT), statement("refused")],
        (TaskState.REFUSED_AGAIN, 0.0, 0),
    ),
    "a second attempt": (
        [
            statement("intent"),
            statement("refused"),
            statement("intent", "b", attempt=1),
            statement("done", "b", attempt=1),
        ],
        (TaskState.DONE, 0.03, 0),
    ),
}


async def test_the_reason_why_an_image_was_not_fetched_yet_reaches_the_other_hosts(tmp_path: Path) -> None:
    async with await Workspace.open(tmp_path, Disk()) as folder:
        merge = folder.merge = Merge(folder)
        for row in (statement("accepted"), statement("accepted", unfetched="HTTP 403"), statement("accepted")):
            await folder.submit(folder.write_row(row, on_disk=False))
        merge.close()
        (left,) = await asyncio.to_thread(open_rows, folder.layout, folder.images)
    assert left["unfetched"] == "HTTP 403"


@pytest.mark.parametrize("case", CASES)
async def test_the_order_of_rows_changes_nothing(case: str, tmp_path: Path) -> None:
    rows, expected = CASES[case]
    for number, order in enumerate(permutations(rows)):
        async with await Workspace.open(tmp_path / str(number), Disk()) as folder:
            merge = folder.merge = Merge(folder)
            for row in order:
                await folder.submit(folder.write_row(row, on_disk=False))
            merge.close()
            images = folder.images
            found = TaskState(images.state("x", 0)), round(images.usd, 6), images.charges_unknown
            assert found == expected, [each["row"] for each in order]
