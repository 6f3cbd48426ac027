"""The one writer: a thread that does all disk work of a batch, and waits for the disk once for many jobs.

A job is a generator. It writes, and yields what must be on the disk before it continues: a folder, the ledger, or None
to let the others of its group write first. Jobs that come while the thread is busy form a group; they advance in step,
so that one wait serves all of them.
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
SyncTarget = Path | Literal["ledger"] | None
WriteSteps = Generator[SyncTarget, None, T]


@attrs.define(eq=False)
class _Job:
    steps: WriteSteps[Any]
    done: asyncio.Future[Any]
    outcome: Any = None
    error: BaseException | None = None
    waits_for: SyncTarget = None

    def advance(self, failed: BaseException | None) -> bool:
        """Take the next step; return False if it was the last."""
        try:
            self.waits_for = next(self.steps) if failed is None else self.steps.throw(failed)
        except StopIteration as end:
            self.outcome = end.value
        except BaseException as error:  # noqa: BLE001 - it is raised where the job is waited for
            self.error = error
        else:
            return True
        return False

    def resolve(self) -> None:
        if self.done.cancelled():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.outcome)


class Writer:
    """Runs jobs in a thread of its own, in the order of submission. Belongs to one loop."""

    def __init__(self, disk: Disk, ledger: Ledger) -> None:
        self._disk = disk
        self._ledger = ledger
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name="impasto-batch", daemon=True)
        self._thread.start()

    def submit(self, steps: WriteSteps[T]) -> asyncio.Future[T]:
        """Submit a job. It runs even if nobody waits for it. Waiting raises the job's error."""
        done: asyncio.Future[T] = self._loop.create_future()
        done.add_done_callback(_observe_exception)
        self._jobs.put(_Job(steps, done))
        return done

    def close(self) -> None:
        """Wait until all jobs are done. It blocks, and does nothing the second time."""
        self._jobs.put(None)
        self._thread.join()

    def _main(self) -> None:
        going = True
        while going:
            group = [job for job in self._gather() if job is not None]
            going = not self._is_over
            self._run(group)  # jobs that come meanwhile form the next group
            if group:  # futures belong to the loop's thread
                self._loop.call_soon_threadsafe(_resolve_all, group)

    _is_over = False

    def _gather(self) -> Sequence[_Job | None]:
        """Return the jobs submitted since the last time, at least one."""
        group = [self._jobs.get()]  # blocks while nothing is to do; the rest is taken without waiting
        try:
            while True:
                group.append(self._jobs.get_nowait())
        except Empty:
            self._is_over = None in group
            return group

    def _run(self, group: Sequence[_Job]) -> None:
        active = [job for job in group if job.advance(None)]
        while active:
            # One fsync of the ledger covers the rows of every job that waits for it: that is the group commit
            waited: set[SyncTarget] = {job.waits_for for job in active}
            failed = {wanted: self._wait_for(wanted) for wanted in waited}
            active = [job for job in active if job.advance(failed[job.waits_for])]

    def _wait_for(self, wanted: SyncTarget) -> OSError | None:
        try:
            if wanted == "ledger":
                self._ledger.sync()
            elif wanted is not None:
                self._disk.sync_folder(wanted)
        except OSError as error:
            return error
        return None


def _resolve_all(group: Sequence[_Job]) -> None:
    for job in group:
        job.resolve()


def _observe_exception(done: asyncio.Future[Any]) -> None:
    """Mark a job's error as retrieved: the missing row reports it, asyncio need not."""
    if not done.cancelled():
        done.exception()
