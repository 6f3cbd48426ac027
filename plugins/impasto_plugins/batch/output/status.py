"""The status of a batch by its ledger and its images: for the run itself, or from another terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import attrs

from impasto import ConfigError
from impasto_plugins.batch.ledger.index import Pictures
from impasto_plugins.batch.ledger.states import State
from impasto_plugins.batch.ledger.workspace import History, Layout, is_running, trusted

GONE = "is not there any more, or not as it was; it is not paid for again: to make it again, give its row another id"

_REFUSED = (State.REFUSED, State.REFUSED_AGAIN)
_MOST_NAMED = 10


@attrs.frozen(kw_only=True)
class Status:
    """How many pictures of the manifest stand where. ``refused_again`` of the refused are taken up by the next run;
    ``strangers`` are pictures of earlier manifests. ``cost_usd`` is what was charged or may have been, for all.
    ``missing`` of the done are not in the folder any more, or not as they were; ``passed_over`` are invalid rows."""

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

    @property
    def is_whole(self) -> bool:
        """Return True if nothing of the manifest is left undone."""
        return self.done == self.total and not self.missing and not self.passed_over

    @property
    def failed(self) -> int:
        """Pictures that are through and did not come."""
        return self.refused + self.ambiguous + self.unusable + self.filtered + self.expired


def status_of(
    pictures: Pictures,
    total: int,
    strangers: Mapping[State, int],
    *,
    running: bool,
    missing: int = 0,
    passed_over: int = 0,
) -> Status:
    """Return the status by a ledger, of a manifest with ``total`` images, those counted that came unasked."""
    count = Counter(pictures.count)
    count.subtract(strangers)
    through = {state: number for state, number in count.items() if not state.is_open}
    pending = total - sum(through.values())
    in_flight = sum(count.values()) - sum(through.values())
    return Status(
        state="running" if running else "complete" if pending <= 0 else "stopped",
        total=total,
        done=count[State.DONE],
        refused=sum(count[state] for state in _REFUSED),
        ambiguous=count[State.AMBIGUOUS],
        unusable=count[State.UNUSABLE],
        filtered=count[State.FILTERED],
        expired=count[State.EXPIRED],
        pending=pending,
        cost_usd=round(pictures.usd, 6),
        charges_unknown=pictures.charges_unknown + (0 if running else in_flight),
        refused_again=count[State.REFUSED_AGAIN],
        in_flight=in_flight,
        strangers=sum(strangers.values()),
        missing=missing,
        passed_over=passed_over,
    )


def read_status(layout: Layout) -> tuple[Status, History]:
    """Return the status of a batch's folder, and what it was read from. The images are looked for.

    Raises ConfigError if the folder is no batch's, UntrustedLedger if its ledger is damaged or contradicted.
    """
    running = is_running(layout)
    history = trusted(layout)
    run = history.run
    if run is None:
        ledger = layout.ledger.relative_to(layout.root)
        raise ConfigError(
            f"{str(layout.root)!r} is no batch's folder: it has no ledger ({ledger}). If a batch was run there with"
            " --out, put that back; if it went to s3:// with --staging, give that folder"
        )
    strangers = {State[name]: number for name, number in run["strangers"].items()}
    total = run["pictures"] + history.pictures.extra - run.get("stranger_extra", 0)
    status = status_of(
        history.pictures,
        total,
        strangers,
        running=running,
        missing=len(history.gone),
        passed_over=history.passed_over,
    )
    return status, history


def missing_images(history: History) -> Iterator[str]:
    """Yield lines that name the images which are done and not in the folder any more: the first few, and a number."""
    for row in history.gone[:_MOST_NAMED]:
        yield f"{row['id']}: {row['path']} {GONE}"
    if (more := len(history.gone) - _MOST_NAMED) > 0:
        yield f"{more:,} more pictures are not there any more"
