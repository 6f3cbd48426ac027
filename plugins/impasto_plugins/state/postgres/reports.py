"""Reports of arrivals and ends, for which nobody waits: those of some moments are one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from impasto.ext import StateError

from .pool import ConnectionPool


class _Report:
    """Arrivals and ends that are sent together."""

    def __init__(self) -> None:
        self.arrived: set[int] = set()
        self.over: set[str] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.is_sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class ReportQueue:
    """Collects reports, each for as long as it can wait."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._next: _Report | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, *, arrived: Collection[int] = (), over: Collection[str] = (), within: float) -> None:
        """Report the arrival of requests and the ends of calls in so many seconds, or earlier. Raises StateError."""
        if self._next is None:
            self._next = _Report()
        report, when = self._next, asyncio.get_running_loop().time() + within
        report.arrived.update(arrived)
        report.over.update(over)
        if report.timer is None or when < report.timer.when():
            if report.timer is not None:
                report.timer.cancel()
            report.timer = asyncio.get_running_loop().call_at(when, self._begin)
        await asyncio.shield(report.is_sent)

    def _begin(self) -> None:
        report, self._next = self._next, None
        if report is not None:
            task = asyncio.create_task(self._send(report))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, report: _Report) -> None:
        try:
            await self._pool.fetch("SELECT {s}.report($1, $2)", list(report.arrived), list(report.over))
        except StateError as error:
            report.is_sent.set_exception(error)
            report.is_sent.exception()  # those who wait for it may have been cancelled
        else:
            report.is_sent.set_result(None)
