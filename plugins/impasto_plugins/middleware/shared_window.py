"""The rate window of a key for all processes of a machine: a file that each of them maps into its memory.

Each operation holds the file's lock for some microseconds. A process may be killed in the middle of one: at worst a
request is counted twice. Times are those of the machine's monotonic clock, which nobody can set.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import mmap
import os
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from impasto import RateLimit
from impasto.ext import machine_folder
from impasto_plugins.concurrency.seats import SEATS, Seat

from .window import Permit, estimate_wait, slack, wait_for_place

CAPACITY = 16_384
"""The largest number of requests in a window."""

RATES = "rates"
"""The folder of windows below that of a state."""

_log = logging.getLogger("impasto")

# The file is an array of words of 8 bytes. The words of its head:
_CLOCK, _ARRIVED, _PERMITS, _PAUSED_UNTIL, _HAD_429 = range(5)
# Behind it a ring of the times of arrival, then the permits: their numbers, the seats of their processes, and the times
# by which their requests must have arrived.
_TIMES = 8
_NUMBERS = _TIMES + CAPACITY
_SEATS = _NUMBERS + CAPACITY
_DUE = _SEATS + CAPACITY
_BYTES = 8 * (_DUE + CAPACITY)

_TRIES, _PATIENT_TRIES = 100, 5_000
_BUSY_SECONDS = 0.005
"""Seconds until the next try if another process holds the lock: it may have been stopped in the middle."""
_LOOK_SECONDS = 1.0
"""Seconds between looks for processes that ended."""


def machine_state() -> Path | None:
    """Return the user's folder of state, or None if it can't be written: a log line says so."""
    folder = machine_folder()
    try:
        seats = folder / SEATS
        seats.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(seats, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        _log.warning("can't write to %r (%s): other processes do not share the rate limit", str(folder), reason)
        return None
    return folder


class SharedWindow:
    """A window as ``Window`` is, in a file. Its owner lets one thread in at a time."""

    def __init__(self, fd: int, seat: Seat) -> None:
        self._fd, self._seat = fd, seat
        weakref.finalize(self, os.close, fd)
        memory = memoryview(mmap.mmap(fd, _BYTES))
        self._times, self._words = memory.cast("d"), memory.cast("Q")
        self._looked_at = -math.inf
        self._postponed: list[Callable[[], None]] = []

    @classmethod
    def open(cls, folder: Path, key: str, seat: Seat, now: float) -> SharedWindow:
        """Open the window of a key, and create it if it is missing. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < _BYTES:
                os.posix_fallocate(fd, 0, _BYTES)  # a disk that is full later would kill whoever writes
        except BaseException:
            os.close(fd)
            raise
        window = cls(fd, seat)
        with window._locked(now, _PATIENT_TRIES):  # after a restart of the machine the last pause is over
            return window

    def try_acquire(self, limit: RateLimit, now: float) -> Permit | float:
        """Return a permit if a request may go now, otherwise the seconds to wait before the next try."""
        with self._locked(now, _TRIES) as is_locked:
            if not is_locked:
                return _BUSY_SECONDS
            self._count_overdue(now)
            if (wait := self._wait(limit, now)) > 0 and self._count_ended(now):
                wait = self._wait(limit, now)
            count = self._words[_PERMITS]
            if wait > 0 or count >= CAPACITY:
                return wait or slack(limit)
            number = secrets.randbits(63)
            self._words[_NUMBERS + count], self._words[_SEATS + count] = number, self._seat.number
            self._times[_DUE + count] = math.inf  # until it is written
            self._words[_PERMITS] = count + 1
            return Permit(slack(limit), number=number)

    def estimate_wait(self, limit: RateLimit, ahead: int, now: float) -> float:
        """Return about how many seconds pass until a request may go that has so many ahead of it."""
        with self._locked(now, _TRIES):
            return estimate_wait(limit, ahead, now, list(self._newest(limit.requests)), self._words[_PERMITS])

    def mark_written(self, permit: Permit, now: float) -> None:
        """Note that all of the request was written."""
        self._change(now, partial(self._set_due, permit.number, now + permit.slack))

    def mark_arrived(self, permit: Permit, now: float) -> None:
        """Note that the request has arrived. Counting it twice changes nothing."""
        if not permit.is_counted:
            permit.is_counted = True
            self._change(now, partial(self._count, permit.number, now))

    def release(self, permit: Permit, now: float) -> None:
        """Take back the permit of a request that never left."""
        if not permit.is_counted:
            permit.is_counted = True
            self._change(now, partial(self._remove, permit.number))

    def restore_history(self, times: Iterable[float], now: float) -> None:
        """Count requests of earlier processes, each at its time, unless the file has counted them."""

        def restore() -> None:
            if not self._words[_ARRIVED]:
                for each in sorted(times):
                    self._append(each)

        self._change(now, restore)

    def pause(self, until: float, now: float) -> None:
        """Let nothing go until this time, and hold a key without a limit to its provider's from now on."""

        def pause() -> None:
            self._times[_PAUSED_UNTIL] = max(until, self.paused_until)
            self._words[_HAD_429] = 1

        self._change(now, pause)

    @property
    def paused_until(self) -> float:
        """The end of the last pause."""
        return self._times[_PAUSED_UNTIL]

    @property
    def had_429(self) -> bool:
        """True if the provider has refused a request of this key for its rate."""
        return self._words[_HAD_429] == 1

    @contextmanager
    def _locked(self, now: float, tries: int) -> Iterator[bool]:
        """Hold the lock. Yields False if another process holds it for long."""
        for _ in range(tries):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                os.sched_yield()
        else:
            yield False
            return
        try:
            if self._times[_CLOCK] > now + 1:  # the machine was started again, and its clock with it
                for index in range(CAPACITY):
                    self._times[_TIMES + index] = min(self._times[_TIMES + index], now)
                self._times[_PAUSED_UNTIL] = 0.0
            self._times[_CLOCK] = now
            postponed, self._postponed = self._postponed, []
            for change in postponed:
                change()
            yield True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _change(self, now: float, change: Callable[[], None]) -> None:
        with self._locked(now, _PATIENT_TRIES) as is_locked:
            if is_locked:
                change()
            else:
                self._postponed.append(change)

    def _wait(self, limit: RateLimit, now: float) -> float:
        count = self._words[_PERMITS]
        next_due = min(self._times[_DUE : _DUE + count], default=math.inf)
        free = limit.requests - count
        arrived = self._words[_ARRIVED]
        last = self._time(arrived - free) if 0 < free <= arrived else None
        return wait_for_place(limit, free, last, next_due, now)

    def _time(self, index: int) -> float:
        return self._times[_TIMES + index % CAPACITY]

    def _newest(self, number: int) -> Iterator[float]:
        arrived = self._words[_ARRIVED]
        return map(self._time, range(max(arrived - min(number, CAPACITY), 0), arrived))

    def _append(self, when: float) -> None:
        arrived = self._words[_ARRIVED]
        last = self._time(arrived - 1) if arrived else when
        self._times[_TIMES + arrived % CAPACITY] = max(when, last)  # sorted: one that was due may be noticed later
        self._words[_ARRIVED] = arrived + 1

    def _indexes(self, number: int) -> Iterator[int]:
        """Yield the places of a permit, the last one first: a process that was killed may have left it at two."""
        numbers = self._words[_NUMBERS : _NUMBERS + self._words[_PERMITS]].tolist()
        return (index for index in range(len(numbers) - 1, -1, -1) if numbers[index] == number)

    def _set_due(self, number: int, due: float) -> None:
        for index in self._indexes(number):
            self._times[_DUE + index] = due

    def _count(self, number: int, when: float) -> None:
        if not number or any(True for _ in self._indexes(number)):  # 0: of this process, before it shared its window
            self._append(when)  # first: whoever is killed here leaves a request that is counted twice
            self._remove(number)

    def _remove(self, number: int) -> None:
        for index in self._indexes(number):
            last = self._words[_PERMITS] - 1
            for part in (_NUMBERS, _SEATS, _DUE):
                self._words[part + index] = self._words[part + last]
            self._words[_PERMITS] = last

    def _count_overdue(self, now: float) -> None:
        """Count each request in transit at the time by which it must have arrived."""
        while count := self._words[_PERMITS]:
            due = min(self._times[_DUE : _DUE + count])
            if due > now:
                return
            index = list(self._times[_DUE : _DUE + count]).index(due)
            self._count(self._words[_NUMBERS + index], due)

    def _count_ended(self, now: float) -> bool:
        """Count the requests of processes that have ended, as if they arrived now. Return True if there are any."""
        if now - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = now
        count = self._words[_PERMITS]
        seats = set(self._words[_SEATS : _SEATS + count].tolist()) - {self._seat.number}
        dead = {each for each in seats if self._seat.has_ended(each)}
        for index in range(count - 1, -1, -1):
            if self._words[_SEATS + index] in dead:
                self._count(self._words[_NUMBERS + index], now)
        return bool(dead)
