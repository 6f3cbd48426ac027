"""The one owner of rates: a sliding window per key and host for the whole process, and the pause after a 429.

All clients and loops of the process share a key's gate; its lock is a thread's and held for microseconds. Calls
wait in their own loop, in line: only the first of each line watches the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from weakref import WeakKeyDictionary

from impasto import (
    Account,
    Call,
    ChargeUnknown,
    Handler,
    Middleware,
    RateLimit,
    RateLimited,
    WireRequest,
    WireResponse,
    hookimpl,
)

DEFAULT_PAUSE = 60.0
"""Seconds to wait after a 429 that does not say how long."""

MARGIN = 1.05
"""How much longer than the provider's window ours is: sends do not all take equally long to arrive there."""

_FORGET_AFTER = 600.0


class _Line:
    """One loop's calls that wait at a gate, first come first served.

    Calls that have begun (polls and retries, whose time runs) wait for ``first`` only, others one at a time: a
    poll of a paid job passes thousands of new calls.
    """

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        self.others = asyncio.Lock()


class Gate:
    """One key's sends: whether the next may go."""

    def __init__(self) -> None:
        self.used = time.monotonic()
        self._lock = threading.Lock()
        self._sent: deque[float] = deque()
        self._widest = 0
        self._paused_until = 0.0
        self._met_429 = False
        self._waiting = 0
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()

    def take(self, account: Account) -> float:
        """0 where a send may go now, which is then counted; else the seconds until it may.

        A key that met a 429 is from then on held to the provider's documented limit.
        """
        with self._lock:
            now = self.used = time.monotonic()
            if now < self._paused_until:
                return self._paused_until - now
            limit = account.rate_limit or (account.provider.rate_limit if self._met_429 else None)
            if limit is not None and (wait := self._full_for(limit, now)) > 0:
                return wait
            return 0.0

    def _full_for(self, limit: RateLimit, now: float) -> float:
        sent = self._sent
        self._widest = max(self._widest, limit.requests)
        if len(sent) >= limit.requests and (wait := sent[-limit.requests] + limit.seconds * MARGIN - now) > 0:
            return wait
        sent.append(now)
        if len(sent) > self._widest:
            sent.popleft()
        return 0.0

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long."""
        with self._lock:
            self._met_429 = True
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def paused_for(self) -> float:
        """Seconds until the pause ends."""
        return max(self._paused_until - time.monotonic(), 0.0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return self.used < time.monotonic() - _FORGET_AFTER and not self._waiting and not self.paused_for()

    async def admit(self, call: Call) -> None:
        """Waits until the call may send. Raises RateLimited where its time would end before."""
        if not self._waiting and self.take(call.account) == 0:
            return
        begun = call.remaining() != float("inf")
        with self._lock:
            self._waiting += 1
            line = self._lines.setdefault(asyncio.get_running_loop(), _Line())
        try:
            if begun:
                await self._first(line, call)
            else:
                async with line.others:
                    await self._first(line, call)
        finally:
            with self._lock:
                self._waiting -= 1

    async def _first(self, line: _Line, call: Call) -> None:
        _check(self.paused_for(), call)
        async with line.first:
            while (wait := self.take(call.account)) > 0:
                _check(wait, call)
                await asyncio.sleep(wait)


def _check(wait: float, call: Call) -> None:
    if wait >= call.remaining():
        raise RateLimited(
            f"the key may send again in {wait:.1f} s, which is more than this call has left; nothing was sent",
            status=429,
        )


_gates: dict[str, Gate] = {}
_gates_lock = threading.Lock()


def gate_of(account: Account) -> Gate:
    """The process's gate for an account's key and host."""
    gate = _gates.get(account.fingerprint)
    if gate is None:
        with _gates_lock:
            for key in [key for key, old in _gates.items() if old.is_idle]:
                del _gates[key]
            gate = _gates.setdefault(account.fingerprint, Gate())
    return gate


class _Limit:
    position = "limit"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        call = wire.call
        gate = gate_of(call.account)
        await gate.admit(call)
        try:
            return await next(wire)
        except RateLimited as error:
            asked = error.retry_after
            gate.pause(min(DEFAULT_PAUSE if asked is None else asked, call.retry.max_wait))
            raise
        except ChargeUnknown as error:
            if error.status == 429:  # some proxy's word for it
                gate.pause(min(DEFAULT_PAUSE, call.retry.max_wait))
            raise


class LimitPlugin:
    """Gives the rate middleware; each call's account says its limit."""

    @hookimpl
    def middleware(self) -> Middleware:
        return _Limit()


plugin = LimitPlugin()
