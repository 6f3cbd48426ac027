"""What a run says of itself: a line that moves on a terminal, JSON lines for a program, else only what matters."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import attrs
import click

from impasto_plugins.batch.classification import code_of

if TYPE_CHECKING:
    from impasto_plugins.batch.batch import Batch
    from impasto_plugins.batch.manifest.planner import Plan
    from impasto_plugins.batch.output.status import Status
    from impasto_plugins.batch.tasks import Outcome

TICK_SECONDS = 0.25
_REMEMBERED = 120
"""Over how many ticks the rate is measured."""

_TOLD_SECONDS = 5.0
"""How often a program is told of the progress."""

_CLASSES = ("refused", "ambiguous", "unusable", "filtered", "expired")
_BAR = 20


def in_words(status: Status) -> str:
    """A status for a reader."""
    done = f"{status.done:,} of {status.total:,} done"
    return ", ".join((f"{status.state}: {done}", *_failures(status), *_pending(status), _usd(status.cost_usd)))


def _failures(status: Status) -> list[str]:
    return [f"{number:,} {name}" for name in _CLASSES if (number := getattr(status, name))]


def _pending(status: Status) -> list[str]:
    return [f"{status.pending:,} pending"] if status.pending else []


def _usd(usd: float) -> str:
    return f"{usd:,.2f} USD"


def plan_in_words(plan: Plan) -> str:
    """What a manifest asks for."""
    made = plan.pictures - plan.to_do
    parts = [f"{plan.pictures:,} pictures in {plan.rows:,} rows"]
    parts += [f"{made:,} made or given up before"] if made else []
    unpriced = sum(share.to_do for share in plan.shares if share.usd is None)
    parts.append(
        f"{plan.to_do:,} to do for {_usd(plan.usd)}" + (f" and {unpriced:,} of unknown price" * bool(unpriced))
    )
    return ", ".join(parts)


@attrs.define(eq=False)
class Quiet:
    """For a file or a pipe: what the user should know goes to stderr, the end to stdout."""

    def planned(self, plan: Plan) -> None:
        """Says nothing: what it comes to is said at the end."""

    def note(self, text: str) -> None:
        click.echo(f"Warning: {text}", err=True)

    def through(self, outcome: Outcome) -> None:
        """Says nothing of one picture, unless it is somewhere else than it should be."""
        if outcome.artifact is not None and outcome.path is not None and outcome.path.is_absolute():
            for warning in outcome.warnings:
                self.note(f"{outcome.id}: {warning}")

    def tick(self, batch: Batch) -> None:
        """Time passes."""

    def ended(self, status: Status, reason: str | None) -> None:
        if reason is not None:
            click.echo(f"Stopped: {reason}", err=True)
        click.echo(in_words(status))


@attrs.define(eq=False)
class Live(Quiet):
    """For a terminal: one line that moves."""

    _ticks: deque[tuple[float, int]] = attrs.field(factory=lambda: deque[tuple[float, int]](maxlen=_REMEMBERED))

    def planned(self, plan: Plan) -> None:
        click.echo(plan_in_words(plan), err=True)

    def note(self, text: str) -> None:
        self._wipe()
        Quiet.note(self, text)

    def tick(self, batch: Batch) -> None:
        status = batch.status()
        if status is None:
            return
        through = status.done + status.failed
        self._ticks.append((time.monotonic(), through))
        (began, before), (now, _) = self._ticks[0], self._ticks[-1]
        rate = (through - before) / (now - began) if now > began else 0.0
        share = through / status.total if status.total else 1.0
        parts = [
            "█" * round(share * _BAR) + "░" * (_BAR - round(share * _BAR)),
            f"{through:,}/{status.total:,}",
            f"{rate:.1f}/s",
            f"{batch.pace.in_flight} in flight",
            _usd(status.cost_usd),
            f"{_duration(status.pending / rate)} left" if rate else "",
            *(click.style(each, fg="yellow") for each in _failures(status)),
        ]
        sys.stderr.write("\r" + "  ".join(filter(None, parts)) + "\033[K")
        sys.stderr.flush()

    def ended(self, status: Status, reason: str | None) -> None:
        self._wipe()
        Quiet.ended(self, status, reason)

    def _wipe(self) -> None:
        sys.stderr.write("\r\033[K")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@attrs.define(eq=False)
class Lines:
    """For a program: a JSON object a line, each with its ``event``."""

    _told: float = 0.0

    def planned(self, plan: Plan) -> None:
        self._tell("plan", rows=plan.rows, pictures=plan.pictures, to_do=plan.to_do, usd=round(plan.usd, 6))

    def note(self, text: str) -> None:
        self._tell("note", message=text)

    def through(self, outcome: Outcome) -> None:
        error = outcome.error
        self._tell(
            "picture",
            id=outcome.id,
            index=outcome.index,
            state=outcome.state,
            path=str(outcome.path) if outcome.path is not None else None,
            url=outcome.url,
            code=code_of(error, outcome.state) if error is not None else None,
            message=error.message if error is not None else None,
            warnings=list(outcome.warnings),
        )

    def tick(self, batch: Batch) -> None:
        status = batch.status()
        if status is not None and (now := time.monotonic()) - self._told >= _TOLD_SECONDS:
            self._told = now
            self._tell("progress", in_flight=batch.pace.in_flight, **_without(status, "in_flight"))

    def ended(self, status: Status, reason: str | None) -> None:
        self._tell("end", reason=reason, **attrs.asdict(status))

    def _tell(self, event: str, **more: object) -> None:
        click.echo(json.dumps({"event": event, **more}))


def _without(status: Status, name: str) -> dict[str, object]:
    return {key: value for key, value in attrs.asdict(status).items() if key != name}
