"""The images of a part of a shared batch's requests, as its ledger knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import attrs

from impasto_plugins.batch.joined import JoinedHost
from impasto_plugins.batch.shared.execution import shared_outcomes
from impasto_plugins.batch.tasks import Outcome

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped]  # it ships no types

_FINAL = ("done", "refused", "ambiguous", "unusable", "filtered", "expired")
_CONTINUES = "another run continues with it"


@attrs.frozen(kw_only=True)
class ImageRow:
    """An image of a batch. ``state``: that of an ``Outcome``; ``usd``: its certain or possible charge, if known."""

    id: str
    index: int
    state: str
    url: str | None = None
    sha256: str | None = None
    seed: int | None = None
    usd: float | None = None
    error: str | None = None

    @classmethod
    def table(cls, rows: Iterable[ImageRow]) -> Table:
        """Return rows as a table."""
        import pyarrow as pa

        kinds = {"index": pa.int64(), "seed": pa.int64(), "usd": pa.float64()}
        schema = pa.schema([(each.name, kinds.get(each.name, pa.string())) for each in attrs.fields(cls)])
        return pa.Table.from_pylist([attrs.asdict(row) for row in rows], schema=schema)


async def run_part(host: JoinedHost, requests: Sequence[Mapping[str, object]]) -> list[ImageRow]:
    """Request images until all of these have an end, and return them with those that came beside them.

    At the end of the budget, or of ``max_failures``, the others are pending. Raises BatchStopped for another reason.
    """
    rows, numbers = list[ImageRow](), dict[str, int]()
    async for found in host.parse_part(requests):
        if isinstance(found, Outcome):  # of an earlier run with other content
            rows.append(ImageRow(id=found.id, index=found.index, state=found.state, usd=0.0, error=str(found.error)))
        else:
            numbers[found[0].id] = len(found)
    images = frozenset((id, index) for id, n in numbers.items() for index in range(n))
    run, reasons = host.run, dict[tuple[str, int], str]()
    running = shared_outcomes(host.shared, run, host.jobs, partial(host.shared_work, requests), images)
    async with aclosing(running) as outcomes:
        async for outcome in outcomes:
            if outcome.error is not None:
                reasons[outcome.id, outcome.index] = outcome.error.message
    host.jobs = []
    await host.shared.log.flush()  # whoever repeats this part finds its end
    if run.failure is not None:
        raise run.failure
    if (stopped := run.stops.error()) is not None and stopped.reason not in ("budget", "max_failures"):
        raise stopped
    default = run.stops.reason or _CONTINUES
    ledger = host.shared.folder
    for id, n in numbers.items():
        for index in (*range(n), *ledger.images.extras(id, n)):
            reason = reasons.get((id, index), default)
            rows.append(await asyncio.to_thread(_row_of, host, id, index, reason))
    return rows


def _row_of(host: JoinedHost, id: str, index: int, reason: str) -> ImageRow:
    """Return an image as its last row in the ledger says. ``reason``: why it has no end, if it has none."""
    if not host.shared.folder.images.state(id, index):
        return ImageRow(id=id, index=index, state="pending", usd=0.0, error=reason)
    last = host.shared.folder.history.intent_of(id, index)
    usd = 0.0 if last.get("billed") == "no" else last["usd"]
    if last["row"] == "done":
        url = host.shared.bucket.url(last["path"])
        return ImageRow(id=id, index=index, state="done", url=url, sha256=last["sha256"], seed=last["seed"], usd=usd)
    state = last["row"] if last["row"] in _FINAL else "pending"
    return ImageRow(id=id, index=index, state=state, usd=usd, error=last.get("message", reason))
