"""Reports of a run: a line that moves on a terminal, JSON lines for a program, else plain lines now and then."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
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

FIRST_LINE_SECONDS, NEXT_LINE_SECONDS = 2.0, 10.0
"""When a file or a pipe gets its first line of progress, and the time between the others."""

_CLASSES = ("refused", "ambiguous", "unusable", "filtered", "expired")
_BAR = 20


def in_words(status: Status) -> str:
    """A status for a reader."""
    done = f"{status.done:,} of {status.total:,} done"
    rest = (*_failures(status), *_pending(status), *_undone(status), _usd(status.cost_usd))
    return ", ".join((f"{status.state}: {done}", *rest))


def _failures(status: Status) -> list[str]:
    return [f"{number:,} {name}" for name in _CLASSES if (number := getattr(status, name))]


def _pending(status: Status) -> list[str]:
    return [f"{status.pending:,} pending"] if status.pending else []


def _undone(status: Status) -> Iterator[str]:
    if status.missing:
        yield f"{status.missing:,} missing"
    if status.passed_over:
        yield f"{status.passed_over:,} invalid row{'s' * (status.passed_over > 1)} passed over"


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
class _Output:
    """Standard output and standard error, of which either may be closed or lost while the run goes on."""

    on_lost: Callable[[], None] = lambda: None
    """Called when nobody reads what is written: a closed pipe, a terminal that is gone, a full disk."""

    def write(self, text: str, *, err: bool = False, newline: bool = True) -> None:
        """Write a text. Raises nothing: images in flight are paid for, whether anybody reads or not."""
        try:
            click.echo(text, err=err, nl=newline)
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.on_lost()


@attrs.define(eq=False)
class Quiet(_Output):
    """For a file or a pipe: warnings and progress go to stderr, the end to stdout."""

    _due: float = attrs.field(factory=lambda: time.monotonic() + FIRST_LINE_SECONDS)

    def planned(self, plan: Plan) -> None:
        """The manifest was looked at: its sums are reported at the end."""

    def note(self, text: str) -> None:
        self.write(f"Warning: {text}", err=True)

    def through(self, outcome: Outcome) -> None:
        """Report one image only if it is somewhere else than it should be."""
        if outcome.artifact is not None and outcome.path is not None and outcome.path.is_absolute():
            for warning in outcome.warnings:
                self.note(f"{outcome.id}: {warning}")

    def tick(self, batch: Batch) -> None:
        """Report the progress, if it is time for that."""
        if (now := time.monotonic()) >= self._due and (status := batch.status()) is not None:
            self._due = now + NEXT_LINE_SECONDS
            self.write(in_words(status), err=True)

    def ended(self, status: Status, reason: str | None) -> None:
        if reason is not None:
            self.write(f"Stopped: {reason}", err=True)
        self.write(in_words(status))


@attrs.define(eq=False)
class Live(Quiet):
    """For a terminal: one line that moves."""

    _ticks: deque[tuple[float, int]] = attrs.field(factory=lambda: deque[tuple[float, int]](maxlen=_REMEMBERED))

    def planned(self, plan: Plan) -> None:
        self.write(plan_in_words(plan), err=True)

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
        self.write("\r" + "  ".join(filter(None, parts)) + "\033[K", err=True, newline=False)

    def ended(self, status: Status, reason: str | None) -> None:
        self._wipe()
        Quiet.ended(self, status, reason)

    def _wipe(self) -> None:
        self.write("\r\033[K", err=True, newline=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@attrs.define(eq=False)
class Lines(_Output):
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
        self.write(json.dumps({"event": event, **more}))


def _without(status: Status, name: str) -> dict[str, object]:
    return {key: value for key, value in attrs.asdict(status).items() if key != name}
