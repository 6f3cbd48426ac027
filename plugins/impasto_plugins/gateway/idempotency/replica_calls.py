"""Calls in flight in all replicas of a gateway: rows of a store, each of a worker with a lease.

A call with an Idempotency-Key, and a job, has a row of its own already, which names its worker. Of the others only
those of an SDK, which may come again, get a row before they are sent. What becomes of a row is written behind the call:
until then it seems to run on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
from aiohttp import web

from impasto import NotSent
from impasto.ext import (
    RENEW_SECONDS,
    CallInFlight,
    LimitReached,
    ReplicaStore,
    Reservation,
    StateError,
    StoredCall,
    Use,
)
from impasto_plugins.gateway.errors import charge_unknown_error

from .in_flight import LOST_SECONDS, SLOTS, InFlightCall, SlotState, too_many_calls
from .serialization import dump_outcome

_RETRY_SECONDS = 0.5
"""Seconds until changes are written again that the store did not take."""

_STATES = {"running": SlotState.RUNNING, "abandoned": SlotState.ABANDONED, "lost": SlotState.LOST}

_log = logging.getLogger("impasto.gateway")


@attrs.frozen(eq=False)
class FoundRow:
    """A call that was found. That one of another replica is over is found out by another look."""

    state: SlotState
    is_over: Callable[[], bool]


@attrs.define(eq=False)
class _Running:
    """A call of this worker. ``worker``: the name under which others find it; ``row``: that of its row in flight."""

    call: InFlightCall
    identity: bytes
    has_key: bool
    row: str
    worker: str = ""
    state: SlotState = SlotState.RUNNING

    @property
    def has_row(self) -> bool:
        return bool(self.worker) and not self.has_key


class ReplicaCalls:
    """The calls of this worker and of others in a store; see CallsInFlight."""

    notice_seconds = 0.5
    look_seconds = 0.05
    take_over_seconds = RENEW_SECONDS

    def __init__(self, store: ReplicaStore) -> None:
        self._calls_table, self._workers, self._lease = store.calls, store.workers, store.lease
        self._name, self._number = secrets.token_hex(8), 0
        self._calls: dict[int, _Running] = {}
        self._keyed: dict[bytes, _Running] = {}
        """The calls with a row of their own, by its id."""
        self._own_workers: set[str] = set()
        self._marked: dict[str, str] = {}
        self._over: set[str] = set()
        self._lost_rows: set[str] = set()
        """The rows of calls that are over, with an outcome that nobody knows."""
        self._expiring: deque[tuple[float, str]] = deque()
        self._has_changes = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def leased(self) -> ReplicaCalls:
        """These calls."""
        return self

    @property
    def has_room(self) -> bool:
        """True if a call may stay here for a long time."""
        return len(self._calls) < SLOTS // 2

    async def start(self) -> None:
        """Do nothing: this worker is there with its first call."""

    async def aclose(self) -> None:
        """Write the last changes. Raises StateError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._write()

    async def worker(self) -> str:
        """Return the name of this worker, whose lease is valid. Raises StateError."""
        worker = await self._lease.hold()
        self._own_workers.add(worker)
        return worker

    def begin(self, identity: bytes, request: web.BaseRequest | None, *, has_key: bool) -> InFlightCall:
        """Add a call; ``has_key`` if its row identifies it. Raises APIError if too many run."""
        if len(self._calls) >= SLOTS:
            raise too_many_calls()
        return self._add(identity, request, has_key=has_key)

    def adopt(self, row: StoredCall) -> InFlightCall:
        """Add a call that was taken over, however many run."""
        return self._add(bytes.fromhex(row.id), None, has_key=True, worker=row.worker)

    async def share(self, call: InFlightCall) -> str:
        """Return the name under which other workers find a call that has a row of its own. Raises StateError."""
        running = self._calls[call.slot]
        running.worker = await self.worker()
        return running.worker

    async def begin_row(self, call: InFlightCall, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
        """Let other workers find a call before it is sent, and reserve uses of a key. Raises StateError."""
        running = self._calls[call.slot]

        async def begin(_: str) -> Reservation | LimitReached:
            row = CallInFlight(id=running.row, identity=running.identity, worker=await self.share(call))
            return await self._workers.begin_call(row, key=key, uses=uses)

        return await self._lease.use(begin)

    def check_lease(self, call: InFlightCall) -> None:
        """Raise NotSent if others may have taken over the call."""
        running = self._calls.get(call.slot)
        if running is None or not running.worker:
            return
        if not self._lease.is_valid or self._lease.worker != running.worker:
            raise NotSent(
                "this gateway was cut off from its state for so long that others may have taken over the call"
            )

    def finish(self, call: InFlightCall) -> None:
        """Remove a call whose outcome is stored, if it has to be."""
        running = self._remove(call)
        if running.has_row:
            self._end(running.row)

    def mark_lost(self, call: InFlightCall) -> None:
        """Mark a call that is over with an unknown outcome."""
        running = self._remove(call)
        if running.has_key:
            self._lost_rows.add(running.identity.hex())
            self._write_soon()
        elif running.has_row:
            self._mark(running, SlotState.LOST)
            self._expiring.append((time.monotonic(), running.row))

    def mark_disconnected(self) -> None:
        """Mark calls whose callers left."""
        for running in self._calls.values():
            if running.call.is_left():
                self._mark(running, SlotState.ABANDONED)

    def mark_abandoned(self, call: InFlightCall) -> None:
        """Mark a call whose caller left."""
        self._mark(self._calls[call.slot], SlotState.ABANDONED)

    async def look(self, identity: bytes) -> Sequence[FoundRow]:
        """Return the calls with a fingerprint in all workers, and those with an unknown outcome. Raises StateError."""
        rows = {each.id: _STATES[each.state] for each in await self._workers.find_calls(identity)}
        rows |= {row: _STATES[state] for row, state in self._marked.items() if row in rows}
        own = [each for each in self._calls.values() if each.identity == identity and not each.has_key]
        for row in (*self._over, *(each.row for each in own)):  # these are known better here
            rows.pop(row, None)
        return [*map(self._found, own), *(FoundRow(state, _is_not_known_to_be_over) for state in rows.values())]

    async def find_running(self, row: StoredCall) -> FoundRow | None:
        """Return the running call of a row, None if it is over."""
        if (running := self._keyed.get(bytes.fromhex(row.id))) is not None:
            return self._found(running)
        return None if row.worker in self._own_workers else FoundRow(SlotState.RUNNING, _is_not_known_to_be_over)

    @asynccontextmanager
    async def dead_workers(self) -> AsyncIterator[dict[str, Sequence[bytes]]]:
        """Yield workers whose leases have ended, with their calls without a key. Raises StateError.

        They are not taken for dead while they may not have had the time to renew their leases, since the store was
        away, nor is this process itself as long as it runs calls under its former name.
        """
        own = {each.worker for each in self._calls.values()}
        dead: dict[str, Sequence[bytes]] = {}
        if not self._lease.has_just_lapsed:
            found = await self._workers.dead()
            dead = {worker: identities for worker, identities in found.items() if worker not in own}
        yield dead
        if dead:
            await self._workers.remove(dead)

    def _add(
        self, identity: bytes, request: web.BaseRequest | None, *, has_key: bool, worker: str = ""
    ) -> InFlightCall:
        self._number += 1
        call = InFlightCall(self._number, request)
        running = self._calls[call.slot] = _Running(call, identity, has_key, f"{self._name}-{call.slot}", worker)
        if has_key:
            self._keyed[identity] = running
        return call

    def _remove(self, call: InFlightCall) -> _Running:
        running = self._calls.pop(call.slot)
        if self._keyed.get(running.identity) is running:
            del self._keyed[running.identity]
        return running

    def _found(self, running: _Running) -> FoundRow:
        return FoundRow(running.state, lambda: running.call.slot not in self._calls)

    def _mark(self, running: _Running, state: SlotState) -> None:
        if running.state != state:
            running.state = state
            if running.has_row:
                self._marked[running.row] = state.name.lower()
                self._write_soon()

    def _end(self, row: str) -> None:
        self._marked.pop(row, None)
        self._over.add(row)
        self._write_soon()

    def _write_soon(self) -> None:
        self._has_changes.set()
        if self._task is None:
            self._task = asyncio.create_task(self._write_changes())

    async def _write_changes(self) -> None:
        while True:
            await self._has_changes.wait()
            try:
                await self._write()
            except StateError:  # it seems to run until the store is there again
                await asyncio.sleep(_RETRY_SECONDS)

    async def _write(self) -> None:
        """Write all changes. Those that fail stay. Raises StateError."""
        self._has_changes.clear()
        while self._expiring and self._expiring[0][0] < time.monotonic() - LOST_SECONDS:
            self._over.add(self._expiring.popleft()[1])
        try:
            for row, state in list(self._marked.items()):
                await self._workers.mark_call(row, state)
                if self._marked.get(row) == state:
                    del self._marked[row]
            if over := frozenset(self._over):
                await self._workers.end_calls(over)
                self._over -= over
            for id in list(self._lost_rows):
                await self._calls_table.update(id, state="failed", outcome=dump_outcome(charge_unknown_error()))
                self._lost_rows.discard(id)
        except BaseException:
            self._has_changes.set()
            raise


def _is_not_known_to_be_over() -> bool:
    return False
