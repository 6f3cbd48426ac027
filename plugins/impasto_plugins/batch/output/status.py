"""The status of a batch by its ledger and its images: for the run itself, or from another terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import attrs

from impasto import ConfigError
from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.inspection import is_running
from impasto_plugins.batch.ledger.log import Row, rows_at
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths, read_trusted

GONE = "is missing or has changed; it is not paid for again: to generate it again, give its row another id"

_REFUSED = (TaskState.REFUSED, TaskState.REFUSED_AGAIN)
_MOST_NAMED = 10


@attrs.frozen(kw_only=True)
class BatchStatus:
    """The number of the manifest's images in each state.

    It is ``complete`` if the next run has nothing to request. ``refused_again`` of the refused are requested again by
    the next run, since nothing was sent or the provider failed; ``strangers`` are images of earlier manifests.
    ``cost_usd`` is the sum of all certain and possible charges, those of images that were ``in_flight`` as a run
    stopped among them; ``unpriced`` charges have no known price. ``unfetched`` images were charged, and their host did
    not give them: the next run fetches them. ``missing`` of the done are no longer in the folder, or have changed;
    ``passed_over`` are invalid rows.
    """

    state: Literal["running", "complete", "stopped"]
    total: int
    done: int
    refused: int
    ambiguous: int
    unusable: int
    filtered: int
    expired: int
    pending: int
    cost_usd: float
    charges_unknown: int
    refused_again: int
    in_flight: int
    strangers: int
    missing: int = 0
    passed_over: int = 0
    unpriced: int = 0
    unfetched: int = 0
    hosts: int = 0
    """Hosts that run the batch, if several share it: their leases have not ended."""
    lease_seconds: float = 0.0
    """Seconds for which a host counts that has died."""
    dead_hosts: int = 0
    """Hosts that have died, and whose images no other host has settled yet."""
    on_dead_hosts: int = 0
    """Images that they had in flight, as far as their logs tell."""
    at_other_hosts: int = 0
    """Images that other hosts have in flight, in the status of one host; they are not ``in_flight`` of this one."""

    @property
    def is_whole(self) -> bool:
        """True if nothing of the manifest is left undone."""
        return self.done == self.total and not self.missing and not self.passed_over

    @property
    def failed(self) -> int:
        """Finished images that did not come."""
        return self.refused + self.ambiguous + self.unusable + self.filtered + self.expired


def status_of(
    images: TaskIndex,
    total: int,
    orphans: Mapping[TaskState, int],
    *,
    running: bool,
    missing: int = 0,
    passed_over: int = 0,
    left_open: Sequence[Row] = (),
    is_of_host: bool = False,
) -> BatchStatus:
    """Return the status by a ledger, for a manifest with ``total`` images, extra ones included.

    ``left_open``: the ``open_rows`` of a run that is over. ``is_of_host``: those of other hosts are not in flight here.
    """
    own = [row for row in left_open if not is_of_host or "from" not in row or "unfetched" in row]  # that nobody fetches
    at_others, left_open = len(left_open) - len(own), own
    unfetched = sum("unfetched" in row for row in left_open)
    possible = [row["usd"] for row in left_open if row["row"] != "staged"]  # what is staged is in the sum already
    count = Counter(images.count)
    count.subtract(orphans)
    through = {state: number for state, number in count.items() if not state.is_open}
    pending = total - sum(through.values())
    in_flight = sum(count.values()) - sum(through.values()) - at_others
    return BatchStatus(
        state="running" if running else "stopped" if pending > 0 or count[TaskState.REFUSED_AGAIN] else "complete",
        total=total,
        done=count[TaskState.DONE],
        refused=sum(count[state] for state in _REFUSED),
        ambiguous=count[TaskState.AMBIGUOUS],
        unusable=count[TaskState.UNUSABLE],
        filtered=count[TaskState.FILTERED],
        expired=count[TaskState.EXPIRED],
        pending=pending,
        cost_usd=round(images.usd + sum(usd or 0.0 for usd in possible), 6),
        unpriced=images.unpriced + possible.count(None),
        charges_unknown=images.charges_unknown + (0 if running else in_flight - unfetched),
        refused_again=count[TaskState.REFUSED_AGAIN],
        in_flight=in_flight - unfetched,
        unfetched=unfetched,
        at_other_hosts=at_others,
        strangers=sum(orphans.values()),
        missing=missing,
        passed_over=passed_over,
    )


def open_rows(layout: WorkspacePaths, images: TaskIndex) -> list[Row]:
    """Return the last rows of images that a run was working on as it stopped."""
    return rows_at(layout.ledger, images.open())


def read_status(layout: WorkspacePaths) -> tuple[BatchStatus, LedgerHistory]:
    """Return the status of a batch's folder, and its history. The images are looked for.

    Raises ConfigError if the folder is not a batch's, UntrustedLedger if its ledger is damaged or contradicted.
    """
    running = is_running(layout)
    history = read_trusted(layout)
    run = history.run
    if run is None:
        ledger = layout.ledger.relative_to(layout.root)
        raise ConfigError(
            f"{str(layout.root)!r} is not a batch folder: it has no ledger ({ledger}). If a batch was run there, put"
            " that back; if it went to s3:// with --staging, give that folder"
        )
    orphans = {TaskState[name]: number for name, number in run["strangers"].items()}
    total = run["pictures"] + history.images.extra - run.get("stranger_extra", 0)
    status = status_of(
        history.images,
        total,
        orphans,
        running=running,
        missing=len(history.missing),
        passed_over=history.passed_over,
        left_open=() if running else open_rows(layout, history.images),
    )
    return status, history


def missing_images(history: LedgerHistory) -> Iterator[str]:
    """Yield lines that name finished images which are missing: the first few, and the number of the others."""
    for row in history.missing[:_MOST_NAMED]:
        yield f"{row['id']}: {row['path']} {GONE}"
    if (more := len(history.missing) - _MOST_NAMED) > 0:
        yield f"{more:,} more images are missing"
