"""A call's deadline: ``asyncio.timeout``, in a plain ``with`` and armed later."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class Deadline:
    """Ends the task that entered it, with TimeoutError, ``seconds`` after ``start``.

    Does what ``asyncio.timeout`` does and in the same way, but for entering: its two coroutines and state
    checks cost a tenth of a call's dispatch (see benchmarks/RESULTS.md).
    """

    def __init__(self) -> None:
        self._ends = math.inf
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        self._task = task
        self._cancelling = task.cancelling()

    def start(self, seconds: float) -> None:
        """From here the time runs. Later calls change nothing."""
        if self._timer is None:
            self._ends = self._loop.time() + seconds
            self._timer = self._loop.call_at(self._ends, self._expire)

    def remaining(self) -> float:
        """Seconds left, or infinity before ``start``."""
        return self._ends if self._timer is None else self._ends - self._loop.time()

    @property
    def is_over(self) -> bool:
        """Whether it ended the task."""
        return self._expired

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A cancellation that came from outside too is the caller's, and goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
