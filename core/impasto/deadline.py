"""A call's deadline: like ``asyncio.timeout``, at about a third of its cost. See benchmarks/RESULTS.md."""

from __future__ import annotations

import asyncio
import contextvars
import math
from types import TracebackType

import attrs


class DeadlineScheduler:
    """One timer for all calls of a client, set for the earliest deadline.

    Calls end long before their deadlines, so a timer for each would almost always be cancelled.
    """

    def __init__(self) -> None:
        self.running: set[Deadline] = set()
        """The deadlines of calls that run. One that is taken out leaves the timer, which finds nothing to do then."""
        self.looks = math.inf
        """The time of the timer's next check, on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Cancel every running call."""
        for deadline in list(self.running):
            deadline.is_closed = True
            self._end(deadline)

    def set(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer."""
        self.looks = when
        if self._timer is not None:
            self._timer.cancel()
        # a context of its own: the caller's would be kept for as long as the timer
        self._timer = loop.call_at(when, self._check, loop, context=contextvars.Context())

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self.looks = None, math.inf
        now, next_end = loop.time(), math.inf
        # A scan of all when one may end: cheaper than a timer or a heap entry for each call, since few ever end.
        for deadline in list(self.running):
            if deadline.ends_at <= now:
                self._end(deadline)
            else:
                next_end = min(next_end, deadline.ends_at)
        if next_end != math.inf:
            self.set(next_end, loop)

    def _end(self, deadline: Deadline) -> None:
        self.running.remove(deadline)
        deadline.end()


@attrs.define(eq=False)
class Deadline:
    """Raises TimeoutError in its task ``seconds`` after ``start``, or when the scheduler closes."""

    scheduler: DeadlineScheduler
    ends_at: float = math.inf
    """The end, on the loop's clock."""
    is_over: bool = False
    """True if this deadline cancelled the task."""
    is_closed: bool = False
    """True if it did so before its time, because the client was closed."""
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    _task: asyncio.Task[object] = attrs.field(init=False)
    _cancelling: int = attrs.field(init=False)

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        self._task = task
        # a cancellation before this one is the caller's: only later ones may be this deadline's or somebody else's
        self._cancelling = task.cancelling()
        self.scheduler.running.add(self)

    def start(self, seconds: float) -> None:
        """Start the time. Later calls change nothing."""
        if self.ends_at == math.inf:
            self.ends_at = self._loop.time() + seconds
            if self.ends_at < self.scheduler.looks:
                self.scheduler.set(self.ends_at, self._loop)

    def extend(self, seconds: float) -> None:
        """End so many seconds from now, later than before."""
        self.ends_at = self._loop.time() + seconds

    def remaining(self) -> float:
        """Return the seconds left, or infinity before ``start``."""
        return self.ends_at if self.ends_at == math.inf else self.ends_at - self._loop.time()

    def is_cancelled(self) -> bool:
        """Return True if somebody else cancelled the task since it entered."""
        return self._task.cancelling() > self._cancelling

    def is_only_end(self) -> bool:
        """Return True if this deadline cancelled the task and nobody else did since it entered."""
        return self.is_over and self._task.cancelling() - 1 <= self._cancelling

    def is_in_task(self) -> bool:
        """Return True if the task that entered it runs. Whoever closes its coroutine is another, or none."""
        return asyncio.current_task(self._loop) is self._task

    def end(self) -> None:
        """Cancel the task."""
        self.is_over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.scheduler.running.discard(self)
        # uncancel() takes back this deadline's own cancellation. If the count is still higher than at the start,
        # the caller cancelled too: then CancelledError goes on, and not TimeoutError.
        if self.is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
