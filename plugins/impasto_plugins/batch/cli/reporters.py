"""Reports of a run: a moving line on a terminal, JSON lines for a program, otherwise plain lines from time to time."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs
import click

from impasto.ext import without_python_advice
from impasto_plugins.batch.classification import code_of, is_unfetched
from impasto_plugins.cli.terminal.failure import format_error
from impasto_plugins.cli.terminal.output import count_of, echo

if TYPE_CHECKING:
    from impasto_plugins.batch.batch import Batch
    from impasto_plugins.batch.manifest.planner import Plan
    from impasto_plugins.batch.output.status import BatchStatus
    from impasto_plugins.batch.tasks import Outcome

TICK_SECONDS = 0.25
_REMEMBERED = 120
"""Ticks over which the rate is measured."""

_STATUS_SECONDS = 5.0
"""Seconds between progress events for a program."""

FIRST_LINE_SECONDS, NEXT_LINE_SECONDS = 2.0, 10.0
"""Seconds until a file or a pipe gets its first line of progress, and between later lines."""

_CLASSES = ("ambiguous", "unusable", "filtered", "expired")
_BAR = 20


def format_status(status: BatchStatus) -> str:
    """Return a status in words."""
    done = f"{status.done:,} of {status.total:,} done"
    rest = (
        *_failures(status),
        *_pending(status),
        *_undone(status),
        *_open(status),
        *_on_dead_hosts(status),
        f"charged: {format_cost(status.cost_usd, status.unpriced)}{_uncertain(status)}",
    )
    return ", ".join((f"{status.state}{_on_hosts(status)}: {done}", *rest))


def _on_hosts(status: BatchStatus) -> str:
    if not status.hosts:
        return ""
    return f" on {count_of(status.hosts, 'host')} (seen in the last {status.lease_seconds:.0f} s)"


def _failures(status: BatchStatus) -> Iterator[str]:
    if final := status.refused - status.refused_again:
        yield f"{final:,} refused"
    if status.refused_again:
        yield f"{status.refused_again:,} to request again"
    yield from (f"{number:,} {name}" for name in _CLASSES if (number := getattr(status, name)))


def _pending(status: BatchStatus) -> list[str]:
    return [f"{status.pending:,} pending"] if status.pending else []


def _undone(status: BatchStatus) -> Iterator[str]:
    if status.missing:
        yield f"{status.missing:,} missing"
    if status.passed_over:
        yield f"{count_of(status.passed_over, 'invalid row')} skipped"


def _open(status: BatchStatus) -> Iterator[str]:
    if status.in_flight and status.state != "running":
        yield f"{status.in_flight:,} in flight when the run stopped (may have been charged)"
    if status.at_other_hosts:
        yield f"{status.at_other_hosts:,} in flight at other hosts"
    if status.unfetched:
        yield f"{status.unfetched:,} charged and not fetched yet (run again to fetch)"


def _on_dead_hosts(status: BatchStatus) -> Iterator[str]:
    if status.dead_hosts:
        yield (
            f"{count_of(status.dead_hosts, 'host')} died with {status.on_dead_hosts:,} in flight (another host"
            " settles them)"
        )


def _uncertain(status: BatchStatus) -> str:
    return f" ({count_of(status.charges_unknown, 'charge')} uncertain)" if status.charges_unknown else ""


def retry_hint(status: BatchStatus) -> str | None:
    """Return the sentence about ambiguous images, None if there are none."""
    if not status.ambiguous:
        return None
    return (
        f"{status.ambiguous:,} may have been charged and did not come: run again with --retry-ambiguous to request them"
        " again, which may charge them twice"
    )


def format_cost(usd: float, unpriced: int) -> str:
    """Return a sum in words, with the number of charges whose price is not known."""
    return "price unknown" if unpriced and not usd else _sum(usd, unpriced)


def _sum(usd: float, unpriced: int) -> str:
    return f"{usd:,.2f} USD" + (f" and {unpriced:,} of unknown price" * bool(unpriced))


def format_plan(plan: Plan) -> str:
    """Return a plan in words."""
    earlier = plan.images - plan.to_do
    parts = [f"{count_of(plan.images, 'image')} in {count_of(plan.rows, 'row')}"]
    parts += [f"{earlier:,} finished in earlier runs"] if earlier else []
    unpriced = sum(share.to_do for share in plan.totals if share.usd is None)
    parts.append(f"{plan.to_do:,} to do for {_sum(plan.usd, unpriced)}")
    return ", ".join(parts)


@attrs.define(eq=False)
class _Output:
    """Standard output and standard error. Either may be closed or lost while the run continues."""

    on_lost: Callable[[], None] = lambda: None
    """Callback if nobody reads the output: a closed pipe, a closed terminal, a full disk."""

    def write(self, text: str, *, err: bool = False, newline: bool = True) -> None:
        """Write a text. Raises nothing: images in flight are paid for, with or without a reader."""
        try:
            echo(text, err=err, nl=newline)
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.on_lost()


@attrs.define(eq=False)
class PlainReporter(_Output):
    """For a file or a pipe: warnings and progress on stderr, the summary on stdout."""

    _codes: set[str] = attrs.field(factory=set[str])
    """Kinds of failures that were reported; errors.jsonl has all failures."""

    _failures_left: float = attrs.field(factory=lambda: time.monotonic() + FIRST_LINE_SECONDS)

    def planned(self, plan: Plan) -> None:
        """Print nothing yet: the sums are in the summary."""

    def note(self, text: str) -> None:
        """Print a warning on stderr."""
        self.write(f"Warning: {text}", err=True)

    def task_finished(self, outcome: Outcome) -> None:
        """Report an image that was not saved in its usual place, and the first failure of each kind."""
        if outcome.artifact is not None and outcome.path is not None and outcome.path.is_absolute():
            for warning in outcome.warnings:
                self.note(f"{outcome.id}: {warning}")
        if (error := outcome.error) is not None and (outcome.state != "pending" or is_unfetched(error)):
            code = code_of(error, outcome.state)
            if code not in self._codes:
                self._codes.add(code)
                is_fetched_later = outcome.state == "pending"
                text = f"{error.operation}: {without_python_advice(error.message)}; the next run fetches it"
                self.note(f"{outcome.id}: {text if is_fetched_later else format_error(error)}")

    def tick(self, batch: Batch) -> None:
        """Report the progress if it is time."""
        if (now := time.monotonic()) >= self._failures_left and (status := batch.status()) is not None:
            self._failures_left = now + NEXT_LINE_SECONDS
            self.write(format_status(status), err=True)

    def finished(self, status: BatchStatus, reason: str | None) -> None:
        """Print why the run stopped, and the summary."""
        if reason is not None:
            self.write(f"Stopped: {reason}", err=True)
        if (hint := retry_hint(status)) is not None:
            self.write(hint, err=True)
        self.write(format_status(status))


@attrs.define(eq=False)
class TerminalReporter(PlainReporter):
    """For a terminal: one moving line."""

    _ticks: deque[tuple[float, int]] = attrs.field(factory=lambda: deque[tuple[float, int]](maxlen=_REMEMBERED))

    def planned(self, plan: Plan) -> None:
        """Print the plan in one line."""
        self.write(format_plan(plan), err=True)

    def note(self, text: str) -> None:
        """Print a warning above the moving line."""
        self._wipe()
        PlainReporter.note(self, text)

    def tick(self, batch: Batch) -> None:
        """Draw the moving line again."""
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
            format_cost(status.cost_usd, status.unpriced),
            f"{_duration(status.pending / rate)} left" if rate else "",
            *(click.style(each, fg="yellow") for each in _failures(status)),
        ]
        self.write("\r" + "  ".join(filter(None, parts)) + "\033[K", err=True, newline=False)

    def finished(self, status: BatchStatus, reason: str | None) -> None:
        """Erase the moving line and print the summary."""
        self._wipe()
        PlainReporter.finished(self, status, reason)

    def _wipe(self) -> None:
        self.write("\r\033[K", err=True, newline=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@attrs.define(eq=False)
class JSONReporter(_Output):
    """For a program: one JSON object a line, each with its ``event``."""

    _status_time: float = 0.0

    def planned(self, plan: Plan) -> None:
        """Print the plan event."""
        self._print_event("plan", rows=plan.rows, pictures=plan.images, to_do=plan.to_do, usd=round(plan.usd, 6))

    def note(self, text: str) -> None:
        """Print a note event."""
        self._print_event("note", message=text)

    def task_finished(self, outcome: Outcome) -> None:
        """Print an event with the image's state."""
        error = outcome.error
        self._print_event(
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
        """Print a progress event every few seconds."""
        status = batch.status()
        if status is not None and (now := time.monotonic()) - self._status_time >= _STATUS_SECONDS:
            self._status_time = now
            self._print_event("progress", in_flight=batch.pace.in_flight, **_without(status, "in_flight"))

    def finished(self, status: BatchStatus, reason: str | None) -> None:
        """Print the end event."""
        self._print_event("end", reason=reason, **attrs.asdict(status))

    def _print_event(self, event: str, **more: object) -> None:
        self.write(json.dumps({"event": event, **more}))


def _without(status: BatchStatus, name: str) -> dict[str, object]:
    return {key: value for key, value in attrs.asdict(status).items() if key != name}
