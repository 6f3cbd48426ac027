"""The one owner of rates: a sliding window per key and host for the whole process, and the pause after a 429.

Shared by all clients and loops of the process, so nothing here belongs to a loop: a call asks when it may go,
and sleeps in its own loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque

from impasto import Account, Handler, Middleware, RateLimit, RateLimited, WireRequest, WireResponse, hookimpl

DEFAULT_PAUSE = 60.0
"""Seconds to wait after a 429 that does not say how long."""


class Gate:
    """One key's sends: when the next may go. Grants are handed out in order, so waiting is fair."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._granted: deque[float] = deque()
        self._paused_until = 0.0
        self._met_429 = False
        self.used = time.monotonic()

    def grant(self, limit: RateLimit | None, documented: RateLimit | None, longest: float) -> float | None:
        """The time (monotonic) at which a send may go, taken; None where that is more than ``longest`` seconds off.

        A key that met a 429 is from then on held to the provider's documented limit.
        """
        with self._lock:
            now = self.used = time.monotonic()
            window = limit or (documented if self._met_429 else None)
            at = max(now, self._paused_until)
            if window is not None:
                granted = self._granted
                while len(granted) > window.requests:
                    granted.popleft()
                if len(granted) == window.requests:
                    at = max(at, granted[0] + window.seconds)
            if at - now > longest:
                return None
            if window is not None:
                self._granted.append(at)
            return at

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long."""
        with self._lock:
            self._met_429 = True
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def is_paused_after(self, granted: float) -> bool:
        """Whether a pause has come over a grant since it was given."""
        return self._paused_until > max(granted, time.monotonic())

    def seed(self, sent: list[float]) -> None:
        """Counts sends of an earlier process (times on this machine's monotonic clock)."""
        with self._lock:
            self._granted.extendleft(sorted(sent, reverse=True))


_gates: dict[str, Gate] = {}
_gates_lock = threading.Lock()
_FORGET_AFTER = 600.0


def gate_of(account: Account) -> Gate:
    """The process's gate for an account's key and host."""
    gate = _gates.get(account.fingerprint)
    if gate is None:
        with _gates_lock:
            stale = time.monotonic() - _FORGET_AFTER
            for key in [key for key, old in _gates.items() if old.used < stale]:
                del _gates[key]
            gate = _gates.setdefault(account.fingerprint, Gate())
    return gate


class _Limit:
    position = "limit"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        call = wire.call
        account = call.account
        gate = gate_of(account)
        while True:
            granted = gate.grant(account.rate_limit, account.provider.rate_limit, call.remaining())
            if granted is None:
                raise _no_time_left()
            if (wait := granted - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if not gate.is_paused_after(granted):
                break
        try:
            return await next(wire)
        except RateLimited as error:
            asked = error.retry_after
            pause = min(DEFAULT_PAUSE if asked is None else asked, call.retry.max_wait)
            gate.pause(pause)
            error.retryable = pause < call.remaining()
            raise


def _no_time_left() -> RateLimited:
    error = RateLimited("the key is paused for longer than this call has left; nothing was sent", status=429)
    error.retryable = False
    return error


class LimitPlugin:
    """Gives the rate middleware; each call's account says its limit."""

    @hookimpl
    def middleware(self) -> Middleware:
        return _Limit()


plugin = LimitPlugin()
