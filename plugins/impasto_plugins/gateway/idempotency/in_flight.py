"""Calls in flight in all workers: a table in shared memory that survives a worker's sudden end.

Each worker has a file below the data directory, which it maps, locks and alone writes to: a call begins and ends
without a system call. A file without a lock belongs to a dead worker.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import secrets
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import attrs
from aiohttp import web

from impasto.ext import StoredCall
from impasto_plugins.gateway.errors import APIError, overloaded
from impasto_plugins.gateway.http.connection import client_disconnected
from impasto_plugins.gateway.http.delivery import Delivery

SLOTS = 4096
LOST_SECONDS = 15 * 60.0
"""Seconds for which a call with an unknown outcome is remembered."""

_SLOT = struct.Struct("<B?6xQ32s")  # state, keyed, generation, identity
_BYTES = SLOTS * _SLOT.size
_IDENTITY_AT = _SLOT.size - 32

T = TypeVar("T")


class SlotState(IntEnum):
    """The state of a slot. ABANDONED: the caller left. LOST: the call is over, and its outcome is unknown."""

    FREE = 0
    RUNNING = 1
    ABANDONED = 2
    LOST = 3


@attrs.define(eq=False)
class InFlightCall:
    """A call that runs in this worker."""

    slot: int
    request: web.BaseRequest | None
    delivery: Delivery | None = None
    """The delivery of its response, from when it is written until it is known to be read."""
    jobs_row: StoredCall | None = None
    """The row of its jobs at the provider, if it has no other row."""

    def is_left(self) -> bool:
        """Return True if its caller left, or may have."""
        is_doubtful = self.delivery is not None and self.delivery.is_uncertain
        return is_doubtful or (self.request is not None and client_disconnected(self.request))


@attrs.frozen(eq=False)
class InFlightEntry:
    """A running call in any worker."""

    table: mmap.mmap
    offset: int
    generation: int
    state: SlotState

    def is_over(self) -> bool:
        """Return True if it is over. A dead worker's call is over when that worker's calls are taken over."""
        state, _, generation, _ = _SLOT.unpack_from(self.table, self.offset)
        return state in (SlotState.FREE, SlotState.LOST) or generation != self.generation


class InFlightTable:
    """This worker's table, and access to those of other workers. ``find`` and ``other_tables`` read the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = secrets.token_hex(8)
        self._table = mmap.mmap(-1, _BYTES)  # without a disk other workers can't see it
        self._fd = -1
        self._free = list(range(SLOTS))
        self._calls: dict[int, InFlightCall] = {}
        self._lost_slots: deque[tuple[float, int]] = deque()
        self._generation = 0

    def open(self) -> None:
        """Create this worker's table, visible once it is locked. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        temporary_path = self._folder / f".{self.name}"
        self._fd = os.open(temporary_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(self._fd, "wb", closefd=False) as table:
            table.write(bytes(_BYTES))  # on the disk from the start: a full one would kill who writes later
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._table = mmap.mmap(self._fd, _BYTES)
        temporary_path.rename(self._folder / self.name)

    def close(self) -> None:
        """Give the table up: delete it if it is empty, otherwise leave it for others to take over."""
        if self._fd < 0:
            return
        if len(self._free) == SLOTS:
            (self._folder / self.name).unlink(missing_ok=True)
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the map has a descriptor of its own, for as long as it lives
        os.close(self._fd)
        self._fd = -1

    @property
    def has_room(self) -> bool:
        """True if a call may stay here for a long time: half of the slots are for new ones."""
        return len(self._free) > SLOTS // 2

    def begin(self, identity: bytes, request: web.BaseRequest | None, *, has_key: bool) -> InFlightCall:
        """Add a call; ``has_key`` if its row identifies it. Raises APIError if too many run."""
        while self._lost_slots and self._lost_slots[0][0] < time.monotonic() - LOST_SECONDS:
            lost_slot = self._lost_slots.popleft()[1]
            self._table[lost_slot * _SLOT.size] = SlotState.FREE
            self._free.append(lost_slot)
        if not self._free:
            raise too_many_calls()
        # A reader that has found a slot compares its generation: the slot may belong to another call by then.
        slot = self._free.pop()
        self._generation += 1
        _SLOT.pack_into(self._table, slot * _SLOT.size, SlotState.FREE, has_key, self._generation, identity)
        self._table[slot * _SLOT.size] = SlotState.RUNNING  # last: others read it
        call = self._calls[slot] = InFlightCall(slot, request)
        return call

    def finish(self, call: InFlightCall) -> None:
        """Remove a call whose outcome is stored, if it has to be."""
        del self._calls[call.slot]
        self._table[call.slot * _SLOT.size] = SlotState.FREE
        self._free.append(call.slot)

    def mark_lost(self, call: InFlightCall) -> None:
        """Mark a call that is over with an unknown outcome."""
        del self._calls[call.slot]
        self._table[call.slot * _SLOT.size] = SlotState.LOST
        self._lost_slots.append((time.monotonic(), call.slot))

    def mark_disconnected(self) -> None:
        """Mark calls whose callers left: their retries may reach another worker."""
        for call in self._calls.values():
            if call.is_left():
                self.mark_abandoned(call)

    def mark_abandoned(self, call: InFlightCall) -> None:
        """Mark a call whose caller left."""
        self._table[call.slot * _SLOT.size] = SlotState.ABANDONED

    def find(self, identity: bytes) -> list[InFlightEntry]:
        """Return the calls with a fingerprint in all workers, and those with an unknown outcome."""
        return [entry for table in self._tables() for entry in _find_entries(table, identity)]

    def other_tables(self) -> list[Path]:
        """Return the tables of other workers, alive or dead."""
        try:
            return [each for each in self._folder.iterdir() if each.name != self.name and each.name[0] != "."]
        except OSError:  # not there
            return []

    def _tables(self) -> Iterator[mmap.mmap]:
        yield self._table
        for path in self.other_tables():
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:  # it ended just now
                continue
            try:
                table = mmap.mmap(fd, _BYTES)
            except ValueError:  # not a table
                continue
            finally:
                os.close(fd)
            yield table


def _find_entries(table: mmap.mmap, identity: bytes) -> Iterator[InFlightEntry]:
    offset = -1
    while (offset := table.find(identity, offset + 1)) >= 0:
        start = offset - _IDENTITY_AT
        if start % _SLOT.size == 0:
            state, _, generation, _ = _SLOT.unpack_from(table, start)
            if state != SlotState.FREE:
                yield InFlightEntry(table, start, generation, SlotState(state))


def too_many_calls() -> APIError:
    """Return the refusal of a call for which there is no place."""
    message = "the gateway runs too many calls; nothing was sent, try again"
    return overloaded(message, retry_after=1)


@contextmanager
def reclaim(path: Path) -> Iterator[list[bytes]]:
    """Yield a dead worker's calls without a key; its table is deleted when the block ends without an error.

    Raises OSError, BlockingIOError if the worker is alive or another takes it over.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with mmap.mmap(fd, _BYTES) as table:
            slots = _SLOT.iter_unpack(table[:])
            yield [identity for state, has_key, _, identity in slots if state != SlotState.FREE and not has_key]
            path.unlink(missing_ok=True)
            table[:] = bytes(_BYTES)  # for those who wait for one of them
    finally:
        os.close(fd)


class MachineCalls(InFlightTable):
    """The calls of all workers of a machine; see CallsInFlight. A thread reads the tables."""

    leased = None
    notice_seconds = 0.1
    look_seconds = 1.0
    take_over_seconds = 60.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impasto-in-flight")
        """No long operation of another part delays it."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function that reads the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def start(self) -> None:
        """Create this worker's table. Raises OSError."""
        await self.run(self.open)

    async def aclose(self) -> None:
        """Give the table up."""
        closed = self._thread.submit(self.close)
        self._thread.shutdown(wait=False)  # what is queued runs to its end
        await asyncio.wrap_future(closed)

    async def worker(self) -> str:
        """Return the name of this worker."""
        return self.name

    def adopt(self, row: StoredCall) -> InFlightCall:
        """Add a call that was taken over. Raises APIError if too many run."""
        return self.begin(bytes.fromhex(row.id), None, has_key=True)

    async def share(self, call: InFlightCall) -> str:
        """Return the name of this worker."""
        return self.name

    async def look(self, identity: bytes) -> list[InFlightEntry]:
        """Return the calls with a fingerprint in all workers, and those with an unknown outcome."""
        return await self.run(lambda: self.find(identity))

    async def find_running(self, row: StoredCall) -> InFlightEntry | None:
        """Return the running call of a row, None if it is over or its worker died."""
        return next((each for each in await self.look(bytes.fromhex(row.id)) if not each.is_over()), None)

    @asynccontextmanager
    async def dead_workers(self) -> AsyncIterator[dict[str, list[bytes]]]:
        """Yield dead workers with their calls without a key, and then delete their tables."""
        with ExitStack() as tables:
            yield await self.run(lambda: self._lock_dead_tables(tables))
            await self.run(tables.close)

    def _lock_dead_tables(self, tables: ExitStack) -> dict[str, list[bytes]]:
        """Lock the tables of dead workers and return their calls without a key; closing ``tables`` deletes them."""
        dead: dict[str, list[bytes]] = {}
        for path in self.other_tables():
            with suppress(OSError, ValueError):  # it lives, another worker was faster, or it is not a table
                dead[path.name] = tables.enter_context(reclaim(path))
        return dead
