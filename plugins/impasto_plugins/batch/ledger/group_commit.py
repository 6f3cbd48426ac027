"""The one writer: a thread that does all of a batch's work on the disk, and waits for the disk once for many.

A job is a generator. It writes, and yields what must be on the disk before it goes on: a folder, the ledger, or None
where it only lets the others of its group write too. Jobs that came while the thread was busy make a group; they go
on in step, so that one wait serves them all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

import attrs

from .filesystem import Disk
from .log import Ledger

T = TypeVar("T")
Wanted = Path | Literal["ledger"] | None
Steps = Generator[Wanted, None, T]


@attrs.define(eq=False)
class _Job:
    steps: Steps[Any]
    done: asyncio.Future[Any]
    outcome: Any = None
    error: BaseException | None = None
    waits_for: Wanted = None

    def go_on(self, failed: BaseException | None) -> bool:
        """Takes the next step; False where it was the last."""
        try:
            self.waits_for = next(self.steps) if failed is None else self.steps.throw(failed)
        except StopIteration as end:
            self.outcome = end.value
        except BaseException as error:  # noqa: BLE001 - it is raised where the job is waited for
            self.error = error
        else:
            return True
        return False

    def tell(self) -> None:
        if self.done.cancelled():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.outcome)


class Writer:
    """Runs jobs in a thread of its own, in the order in which they came. Belongs to one loop."""

    def __init__(self, disk: Disk, ledger: Ledger) -> None:
        self._disk = disk
        self._ledger = ledger
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name="impasto-batch", daemon=True)
        self._thread.start()

    def post(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Begins a job. It is done though nobody waits for it. Raises, where it is waited for, what the job did."""
        done: asyncio.Future[T] = self._loop.create_future()
        done.add_done_callback(_look_at)
        self._jobs.put(_Job(steps, done))
        return done

    async def aclose(self) -> None:
        """Waits until all jobs are done."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        going = True
        while going:
            group = [job for job in self._gathered() if job is not None]
            going = not self._is_over
            self._run(group)
            if group:
                self._loop.call_soon_threadsafe(_tell, group)

    _is_over = False

    def _gathered(self) -> Sequence[_Job | None]:
        """What came since the last time, and at least one."""
        group = [self._jobs.get()]
        try:
            while True:
                group.append(self._jobs.get_nowait())
        except Empty:
            self._is_over = None in group
            return group

    def _run(self, group: Sequence[_Job]) -> None:
        active = [job for job in group if job.go_on(None)]
        while active:
            waited: set[Wanted] = {job.waits_for for job in active}
            failed = {wanted: self._wait_for(wanted) for wanted in waited}
            active = [job for job in active if job.go_on(failed[job.waits_for])]

    def _wait_for(self, wanted: Wanted) -> OSError | None:
        try:
            if wanted == "ledger":
                self._ledger.sync()
            elif wanted is not None:
                self._disk.sync_folder(wanted)
        except OSError as error:
            return error
        return None


def _tell(group: Sequence[_Job]) -> None:
    for job in group:
        job.tell()


def _look_at(done: asyncio.Future[Any]) -> None:
    """An error of a job that nobody waits for has been told in the ledger's absence of a row; asyncio need not."""
    if not done.cancelled():
        done.exception()
