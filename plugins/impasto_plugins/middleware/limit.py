"""The one owner of rates: a sliding window per key and host for the whole process, and the pause after a 429.

All clients and loops of the process share a key's gate; its lock is a thread's and held for microseconds. Calls
wait in a queue of their own loop: only the first of each queue watches the clock.
"""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from weakref import WeakKeyDictionary

import attrs

from impasto import (
    Account,
    Call,
    ChargeUnknown,
    Handler,
    Middleware,
    NotSent,
    RateLimit,
    RateLimited,
    WireRequest,
    WireResponse,
    hookimpl,
)

_LEAST_KEPT = 1_000
"""Sends that are remembered at least, so that a client with a wider limit than the others can count them."""

_FORGET_AFTER = 600.0


def slack(limit: RateLimit) -> float:
    """Return the longest time in seconds that a send can take to arrive once all of it is written."""
    return 0.1 + 0.04 * limit.seconds


@attrs.define(eq=False)
class Send:
    """Permission for one request.

    ``slack``: seconds after writing it at which the provider has counted it for certain.
    """

    slack: float
    is_counted: bool = False


class Window:
    """A sliding window as the provider sees it: a send counts when it arrives, not when it was permitted.

    The moment of arrival is unknown, but it is before the answer. So a send is counted at its answer, or ``slack``
    seconds after all of it was written if the answer takes longer (a generation takes many seconds). The time to
    connect and to upload is not known in advance.
    """

    def __init__(self) -> None:
        self._not_counted = 0
        self._travelling: deque[tuple[float, Send]] = deque()
        """Sends that are written, with the time by which each must have arrived."""
        self._counted: deque[float] = deque()
        self._history_length = _LEAST_KEPT

    def try_acquire(self, limit: RateLimit, now: float) -> Send | float:
        """Return a permit if a send may go now, otherwise the seconds to wait before the next try."""
        self._history_length = max(self._history_length, limit.requests)
        self._settle(now)
        counted, free = self._counted, limit.requests - self._not_counted
        if free <= 0:
            return self._travelling[0][0] - now if self._travelling else slack(limit)
        if len(counted) >= free and (wait := counted[-free] + limit.seconds - now) > 0:
            return wait
        self._not_counted += 1
        return Send(slack(limit))

    def wait(self, limit: RateLimit, ahead: int, now: float) -> float:
        """Return about how many seconds pass until a send may go that has so many ahead of it."""
        leave = [when + limit.seconds - now for when in self._counted if when + limit.seconds > now]
        leave += [slack(limit) + limit.seconds] * self._not_counted
        free = limit.requests - len(leave)
        if ahead < free:
            return 0.0
        leave += [limit.seconds] * free  # the first of those ahead, who go now
        rounds, place = divmod(ahead - free, limit.requests)
        return rounds * limit.seconds + sorted(leave)[place]

    def written(self, send: Send, now: float) -> None:
        """Note that all of the send was written."""
        self._travelling.append((now + send.slack, send))

    def count(self, send: Send, now: float) -> None:
        """Note that the send has arrived. Counting it twice changes nothing."""
        self._settle(now)
        self._count(send, now)

    def give_back(self, send: Send) -> None:
        """Return a permit whose send never left."""
        if not send.is_counted:
            send.is_counted = True
            self._not_counted -= 1

    def _settle(self, now: float) -> None:
        travelling = self._travelling
        while travelling and (travelling[0][1].is_counted or travelling[0][0] <= now):
            due, send = travelling.popleft()
            self._count(send, due)

    def _count(self, send: Send, when: float) -> None:
        if not send.is_counted:
            self.give_back(send)
            last = self._counted[-1] if self._counted else when
            self._counted.append(max(when, last))
            if len(self._counted) > self._history_length:
                self._counted.popleft()

    def recall(self, sent: Iterable[float]) -> None:
        """Count sends of an earlier process, each at its time."""
        self._counted = deque(sorted((*self._counted, *sent))[-self._history_length :])


class _Line:
    """One loop's calls that wait at a gate, first come, first served.

    Calls that have started (polls and retries, whose time runs) wait for ``first`` only, others one at a time: a
    poll of a paid job passes thousands of new calls.
    """

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        self.others = asyncio.Lock()


class Gate:
    """The sends of one key: decides when the next may go."""

    def __init__(self) -> None:
        self.used = time.monotonic()
        self._lock = threading.Lock()
        self._window = Window()
        self._paused_until = 0.0
        self._met_429 = False
        self._waiting = 0
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()

    def _take(self, account: Account) -> Send | float | None:
        """Return a permit (None if no limit counts the send), or the seconds until one is available.

        After a 429 a key is held to the provider's documented limit.
        """
        with self._lock:
            now = self.used = time.monotonic()
            if now < self._paused_until:
                return self._paused_until - now
            limit = self._limit(account)
            return self._window.try_acquire(limit, now) if limit is not None else None

    def _limit(self, account: Account) -> RateLimit | None:
        return account.rate_limit or (account.provider.rate_limit if self._met_429 else None)

    def wait(self, account: Account) -> float:
        """Return about how many seconds a new call would wait."""
        with self._lock:
            now, limit = time.monotonic(), self._limit(account)
            queued = self._window.wait(limit, self._waiting, now) if limit is not None else 0.0
            return max(self._paused_until - now, queued, 0.0)

    def written(self, send: Send) -> None:
        """Note that all of the send was written."""
        with self._lock:
            self._window.written(send, time.monotonic())

    def arrived(self, send: Send) -> None:
        """Note that the send was answered, or given up."""
        with self._lock:
            self._window.count(send, time.monotonic())

    def give_back(self, send: Send) -> None:
        """Return a permit whose send never left."""
        with self._lock:
            self._window.give_back(send)

    def restore_history(self, ages: Iterable[float], limit: RateLimit) -> None:
        """Count sends of another process with this key. ``ages`` are in seconds by the wall clock.

        Each may have arrived as late as its slack allows, and never later than now, however that clock was set.
        """
        with self._lock:
            now = time.monotonic()
            self._window.recall(now - max(age - slack(limit), 0.0) for age in ages)

    def pause(self, seconds: float) -> None:
        """Stop all sends for so many seconds."""
        with self._lock:
            self._met_429 = True
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def paused_for(self) -> float:
        """Return the seconds until the pause ends."""
        return max(self._paused_until - time.monotonic(), 0.0)

    @property
    def is_idle(self) -> bool:
        """Return True if forgetting the gate would lose nothing."""
        return self.used < time.monotonic() - _FORGET_AFTER and not self._waiting and not self.paused_for()

    async def acquire(self, call: Call) -> Send | None:
        """Wait until the call may send. Raises RateLimited if its time would end before."""
        if not self._waiting:
            send = self._take(call.account)
            if send is None or isinstance(send, Send):
                return send
        with self._lock:
            self._waiting += 1
            line = self._lines.setdefault(asyncio.get_running_loop(), _Line())
        try:
            if call.remaining() != math.inf:
                return await self._first(line, call)
            async with line.others:
                return await self._first(line, call)
        finally:
            with self._lock:
                self._waiting -= 1

    async def _first(self, line: _Line, call: Call) -> Send | None:
        _check(self.paused_for(), call)
        async with line.first:
            while isinstance(wait := self._take(call.account), int | float):
                _check(wait, call)
                await asyncio.sleep(wait)
            return wait


def _check(wait: float, call: Call) -> None:
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
            for key in [key for key, old in _gates.items() if old.is_idle]:
                del _gates[key]
            gate = _gates.setdefault(account.fingerprint, Gate())
    return gate


_model_pauses: dict[tuple[str, str], float] = {}
"""The end of each model's pause, by the account's fingerprint and the model's target."""


def model_paused_for(wire: WireRequest) -> float:
    """Return the seconds for which a model sends nothing, though its account's others do."""
    if not _model_pauses:
        return 0.0
    with _gates_lock:
        left = _model_pauses.get(key := _model_of(wire), 0.0) - time.monotonic()
        if left <= 0:
            _model_pauses.pop(key, None)
        return max(left, 0.0)


def _pause_model(wire: WireRequest, seconds: float) -> None:
    until = time.monotonic() + seconds
    with _gates_lock:
        for key in [key for key, ends in _model_pauses.items() if ends < time.monotonic()]:
            del _model_pauses[key]
        _model_pauses[_model_of(wire)] = max(until, _model_pauses.get(_model_of(wire), 0.0))


def _model_of(wire: WireRequest) -> tuple[str, str]:
    return wire.call.account.fingerprint, wire.target


class _Limit:
    position = "limit"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        call = wire.call
        gate = gate_of(call.account)
        while _model_pauses and (wait := model_paused_for(wire)) > 0:
            _check(wait, call)
            await asyncio.sleep(wait)
        send = await gate.acquire(call)
        if send is not None:
            call.on_written = functools.partial(gate.written, send)
        try:
            return await next(wire)
        except NotSent:
            if send is not None:
                gate.give_back(send)
            raise
        except RateLimited as error:
            # Without a time to wait each call backs off by itself, see the retry middleware: the key is not locked.
            if error.retry_after is not None and error.per_model:
                _pause_model(wire, min(error.retry_after, call.retry.max_wait))
            elif not error.per_model:
                gate.pause(min(error.retry_after or 0.0, call.retry.max_wait))
            raise
        except ChargeUnknown as error:
            if error.pause:
                gate.pause(min(error.pause, call.retry.max_wait))
            raise
        finally:
            if send is not None:
                gate.arrived(send)


class LimitPlugin:
    """The plugin of the rate middleware. Each call's account has its limit."""

    @hookimpl
    def middleware(self) -> Middleware:
        return _Limit()


plugin = LimitPlugin()
