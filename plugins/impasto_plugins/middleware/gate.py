"""The gate of a key: decides when its next request may go, and keeps the pause after a 429.

All clients and loops of the process share a key's gate; its lock is a thread's and held for microseconds. Calls
wait in a queue of their own loop: only the first of each queue watches the clock.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from impasto import Account, Call, ConfigError, RateLimit, RateLimited, WireRequest

from .window import Permit, Window, slack

if TYPE_CHECKING:
    from .shared_window import SharedWindow
    from .store_window import StoreWindow

_IDLE_SECONDS = 600.0
"""Seconds after which a gate that nobody uses is removed."""


class _Queue:
    """One loop's calls that wait at a gate, first come, first served.

    Calls that have started (polls and retries, whose time runs) wait for ``first`` only, others one at a time: a
    poll of a paid job passes thousands of new calls.
    """

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        self.others = asyncio.Lock()


class Gate:
    """The requests of one key."""

    def __init__(self) -> None:
        self.last_used = time.monotonic()
        self._lock = threading.Lock()
        self._window: Window | SharedWindow = Window()
        self.is_shared = False
        """True if the processes of this machine share its window."""
        self._next_try = 0.0
        """The time of the next try that a store's window gave."""
        self._waiting = 0
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def acquire(self, call: Call, window: StoreWindow | None = None) -> Permit | None:
        """Wait until the call may send. Raises RateLimited if its time would end before.

        ``window``: that of a store, which replicas share; it takes the place of the gate's own. Raises NotSent if the
        store can't be used.
        """
        if not self._waiting:  # nobody is ahead: no lock of a queue is needed
            account = call.account
            permit = self._try_acquire(account) if window is None else await self._try_window(account, window)
            if permit is None or isinstance(permit, Permit):
                return permit
        with self._lock:
            self._waiting += 1
            queue = self._queues.setdefault(asyncio.get_running_loop(), _Queue())
        try:
            # Its time runs: it goes before all calls that have not started, whose time begins with their turn.
            if call.remaining() != math.inf:
                return await self._wait_at_front(queue, call, window)
            async with queue.others:
                return await self._wait_at_front(queue, call, window)
        finally:
            with self._lock:
                self._waiting -= 1

    def estimate_wait(self, account: Account) -> float:
        """Return about how many seconds a new call would wait."""
        with self._lock:
            now, limit = time.monotonic(), self._limit(account)
            queue_wait = self._window.estimate_wait(limit, self._waiting, now) if limit is not None else 0.0
            return max(self._window.paused_until - now, self._next_try - now + queue_wait, queue_wait, 0.0)

    def mark_written(self, permit: Permit) -> None:
        """Note that all of the request was written."""
        with self._lock:
            self._window.mark_written(permit, time.monotonic())

    def mark_arrived(self, permit: Permit) -> None:
        """Note that the request was answered, or given up."""
        with self._lock:
            self._window.mark_arrived(permit, time.monotonic())

    def release(self, permit: Permit) -> None:
        """Take back the permit of a request that never left."""
        with self._lock:
            self._window.release(permit, time.monotonic())

    def restore_history(self, ages: Iterable[float], limit: RateLimit) -> None:
        """Count requests of another process with this key. ``ages`` are in seconds by the wall clock.

        Each may have arrived as late as its slack allows, and never later than now, however that clock was set.
        """
        with self._lock:
            now = time.monotonic()
            self._window.restore_history((now - max(age - slack(limit), 0.0) for age in ages), now)

    def share(self, window: SharedWindow) -> None:
        """Use a window that processes share from now on."""
        with self._lock:
            self._window, self.is_shared = window, True

    def pause(self, seconds: float) -> None:
        """Stop all requests for so many seconds. A pause is never made shorter."""
        with self._lock:
            now = time.monotonic()
            self._window.pause(now + seconds, now)

    def remaining_pause(self) -> float:
        """Return the seconds until the pause ends."""
        return max(self._window.paused_until - time.monotonic(), 0.0)

    @property
    def is_idle(self) -> bool:
        """Return True if removing the gate would lose nothing."""
        is_unused = self.last_used < time.monotonic() - _IDLE_SECONDS
        return is_unused and not self._waiting and not self.remaining_pause()

    async def _wait_at_front(self, queue: _Queue, call: Call, window: StoreWindow | None) -> Permit | None:
        # Before the lock: behind others it would learn only at its turn that the pause is too long.
        raise_if_too_long(self.remaining_pause(), call)
        async with queue.first:
            # A loop: another thread may take the place, or a 429 may pause the key, while this call sleeps.
            while True:
                account = call.account
                wait = self._try_acquire(account) if window is None else await self._try_window(account, window)
                if wait is None or isinstance(wait, Permit):
                    return wait
                raise_if_too_long(wait, call)
                await asyncio.sleep(wait)

    async def _try_window(self, account: Account, window: StoreWindow) -> Permit | float | None:
        """Return what ``_try_acquire`` does, by the window of a store."""
        self.last_used = time.monotonic()
        if (pause := self.remaining_pause()) > 0:
            return pause
        if (limit := self._limit(account)) is None:
            return None
        answer = await window.acquire(account.fingerprint, limit)
        self._next_try = time.monotonic() + answer if isinstance(answer, float) else 0.0
        return answer

    def _try_acquire(self, account: Account) -> Permit | float | None:
        """Return a permit (None if no limit counts the request), or the seconds until one is available."""
        with self._lock:
            now = self.last_used = time.monotonic()
            if now < (end := self._window.paused_until):
                return end - now
            limit = self._limit(account)
            return self._window.try_acquire(limit, now) if limit is not None else None

    def _limit(self, account: Account) -> RateLimit | None:
        """Return the account's limit; after a 429 also a key without one has its provider's documented limit."""
        return account.rate_limit or (account.provider.rate_limit if self._window.had_429 else None)


def raise_if_too_long(wait: float, call: Call) -> None:
    """Raise RateLimited if a wait takes at least as long as the call has left."""
    if wait >= call.remaining():
        error = RateLimited(f"the key may send again in {wait:.1f} s, which is more than the call has left", status=429)
        error.retry_after = wait
        raise error


_gates: dict[str, Gate] = {}
_gates_lock = threading.Lock()


def gate_of(account: Account) -> Gate:
    """Return the process's gate for an account's key and host."""
    gate = _gates.get(account.fingerprint)
    if gate is None:
        with _gates_lock:
            # Removed when a new key comes, so that a server with many keys needs no timer for it.
            for key in [key for key, old in _gates.items() if old.is_idle]:
                del _gates[key]
            gate = _gates.setdefault(account.fingerprint, Gate())
    return gate


_sharing_lock = threading.Lock()


async def share(gate: Gate, account: Account, state: Path) -> None:
    """Put the window of a key's gate into the folder of a machine's state. Raises ConfigError."""
    await asyncio.to_thread(_share, gate, account, state)


def _share(gate: Gate, account: Account, state: Path) -> None:
    from impasto_plugins.concurrency.seats import SEATS, seat_in  # few clients have a state

    from .shared_window import CAPACITY, RATES, SharedWindow

    limit = account.rate_limit
    if limit is not None and limit.requests > CAPACITY:
        raise ConfigError(f"rate_limit: processes can share at most {CAPACITY:,} requests, not {limit.requests:,}")
    with _sharing_lock:
        if gate.is_shared:
            return
        try:
            window = SharedWindow.open(state / RATES, account.fingerprint, seat_in(state / SEATS), time.monotonic())
        except OSError as error:
            raise ConfigError(f"state: can't use {str(state)!r}: {error.strerror}; give another folder") from None
        gate.share(window)


def _forget_in_child() -> None:
    """Forget the parent's gates in a forked process: its permits are the parent's."""
    global _gates_lock, _sharing_lock  # another thread of the parent may have had them
    _gates_lock, _sharing_lock = threading.Lock(), threading.Lock()
    _gates.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class ModelPauses:
    """Pauses of single models, while the other models of their accounts go on: quotas of some providers are a model's.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], float] = {}
        """The end of each pause, by the account's fingerprint and the model's target."""
        self._lock = threading.Lock()

    def remaining(self, wire: WireRequest) -> float:
        """Return the seconds for which the model of a request is paused."""
        if not self._ends:
            return 0.0
        key = _model_key(wire)
        with self._lock:
            seconds = self._ends.get(key, 0.0) - time.monotonic()
            if seconds <= 0:
                self._ends.pop(key, None)
            return max(seconds, 0.0)

    def pause(self, wire: WireRequest, seconds: float) -> None:
        """Stop a model's requests for so many seconds. A pause is never made shorter."""
        now = time.monotonic()
        with self._lock:
            self._ends = {key: end for key, end in self._ends.items() if end >= now}
            key = _model_key(wire)
            self._ends[key] = max(now + seconds, self._ends.get(key, 0.0))


def _model_key(wire: WireRequest) -> tuple[str, str]:
    return wire.call.account.fingerprint, wire.target


model_pauses = ModelPauses()
"""The pauses of the process's models."""
