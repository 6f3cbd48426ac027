"""Which calls run in which worker: a table in shared memory, which a worker's sudden end leaves for others to find.

Each worker has a file of its own below the data directory, which it maps, locks and alone writes to: a call begins
and ends without a system call. A file that nobody holds a lock on is a dead worker's.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import attrs
from aiohttp import web

from impasto_plugins.gateway.errors import SERVER, Failure
from impasto_plugins.gateway.http.connection import has_left
from impasto_plugins.gateway.http.delivery import Delivery

SLOTS = 4096
LOST_SECONDS = 15 * 60.0
"""How long it is remembered that nobody can tell what became of a call."""

_SLOT = struct.Struct("<B?6xQ32s")  # state, keyed, generation, identity
_BYTES = SLOTS * _SLOT.size
_IDENTITY_AT = _SLOT.size - 32


class State(IntEnum):
    """A slot's. LEFT: the caller went away. LOST: it is over, and nobody can tell what became of it."""

    FREE = 0
    RUNNING = 1
    LEFT = 2
    LOST = 3


@attrs.define(eq=False)
class Flight:
    """A call that runs here."""

    slot: int
    request: web.BaseRequest | None
    delivery: Delivery | None = None
    """That of its answer, from when it is written until it is known to be read."""


@attrs.frozen(eq=False)
class Seen:
    """A call that runs, here or in another worker."""

    table: mmap.mmap
    at: int
    generation: int
    state: State

    def ended(self) -> bool:
        """Whether it is over. A dead worker's is over when that one's calls are taken over."""
        state, _, generation, _ = _SLOT.unpack_from(self.table, self.at)
        return state in (State.FREE, State.LOST) or generation != self.generation


class Flights:
    """This worker's table, and the way to those of others. ``find`` and ``others`` go to the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = secrets.token_hex(8)
        self._table = mmap.mmap(-1, _BYTES)  # where there is no disk, others can't see it
        self._number = -1
        self._free = list(range(SLOTS))
        self._flying: dict[int, Flight] = {}
        self._lost: deque[tuple[float, int]] = deque()
        self._generation = 0

    def open(self) -> None:
        """Makes this worker's table, which appears when it is locked. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = self._folder / f".{self.name}"
        self._number = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(self._number, "wb", closefd=False) as table:
            table.write(bytes(_BYTES))  # on the disk from the start: a full one would kill who writes later
        fcntl.flock(self._number, fcntl.LOCK_EX)
        self._table = mmap.mmap(self._number, _BYTES)
        hidden.rename(self._folder / self.name)

    def close(self) -> None:
        """Gives the table up: it goes where nothing stands in it, else it is for others to take over."""
        if self._number < 0:
            return
        if len(self._free) == SLOTS:
            (self._folder / self.name).unlink(missing_ok=True)
        fcntl.flock(self._number, fcntl.LOCK_UN)  # the map has a descriptor of its own, for as long as it lives
        os.close(self._number)
        self._number = -1

    def add(self, identity: bytes, request: web.BaseRequest | None, *, keyed: bool) -> Flight:
        """A call begins; ``keyed`` where its row says what it is. Raises Failure where too many run."""
        self._forget_lost()
        if not self._free:
            said = "the gateway runs as many calls as it may; nothing was sent, try again"
            raise Failure(503, said, SERVER, "overloaded", retry_after=1, should_retry=True)
        slot = self._free.pop()
        self._generation += 1
        _SLOT.pack_into(self._table, slot * _SLOT.size, State.FREE, keyed, self._generation, identity)
        self._table[slot * _SLOT.size] = State.RUNNING  # last: others read it
        flight = self._flying[slot] = Flight(slot, request)
        return flight

    def remove(self, flight: Flight) -> None:
        """A call is over, and what must be kept of it is kept."""
        del self._flying[flight.slot]
        self._table[flight.slot * _SLOT.size] = State.FREE
        self._free.append(flight.slot)

    def lose(self, flight: Flight) -> None:
        """A call is over, and what became of it can't be told."""
        del self._flying[flight.slot]
        self._table[flight.slot * _SLOT.size] = State.LOST
        self._lost.append((time.monotonic(), flight.slot))

    def mark(self) -> None:
        """Marks calls whose callers left: their repetitions may come to another worker."""
        for flight in self._flying.values():
            delivery = flight.delivery
            is_doubtful = delivery is not None and delivery.is_doubtful
            if is_doubtful or (flight.request is not None and has_left(flight.request)):
                self.mark_left(flight)

    def mark_left(self, flight: Flight) -> None:
        """Mark that a call's caller left."""
        self._table[flight.slot * _SLOT.size] = State.LEFT

    def find(self, identity: bytes) -> list[Seen]:
        """The calls of an identity in all workers, and those that were lost."""
        return [seen for table in self._tables() for seen in _seen(table, identity)]

    def others(self) -> list[Path]:
        """The tables of other workers, alive or dead."""
        try:
            return [each for each in self._folder.iterdir() if each.name != self.name and each.name[0] != "."]
        except OSError:  # not there
            return []

    def _tables(self) -> Iterator[mmap.mmap]:
        yield self._table
        for path in self.others():
            try:
                number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:  # it ended just now
                continue
            try:
                table = mmap.mmap(number, _BYTES)
            except ValueError:  # it is no table
                continue
            finally:
                os.close(number)
            yield table

    def _forget_lost(self) -> None:
        while self._lost and self._lost[0][0] < time.monotonic() - LOST_SECONDS:
            slot = self._lost.popleft()[1]
            self._table[slot * _SLOT.size] = State.FREE
            self._free.append(slot)


def _seen(table: mmap.mmap, identity: bytes) -> Iterator[Seen]:
    at = -1
    while (at := table.find(identity, at + 1)) >= 0:
        start = at - _IDENTITY_AT
        if start % _SLOT.size == 0:
            state, _, generation, _ = _SLOT.unpack_from(table, start)
            if state != State.FREE:
                yield Seen(table, start, generation, State(state))


@contextmanager
def taken_over(path: Path) -> Iterator[list[bytes]]:
    """What a dead worker's keyless calls were; its table is gone when this ends without an error.

    Raises OSError, BlockingIOError where the worker lives or another takes it over.
    """
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with mmap.mmap(number, _BYTES) as table:
            slots = _SLOT.iter_unpack(table[:])
            yield [identity for state, keyed, _, identity in slots if state != State.FREE and not keyed]
            path.unlink(missing_ok=True)
            table[:] = bytes(_BYTES)  # for those who wait for one of them
    finally:
        os.close(number)
