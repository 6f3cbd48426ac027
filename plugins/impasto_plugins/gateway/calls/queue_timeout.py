"""A call's wait for its turn at a provider: no longer than its caller's. What would take longer is refused, unspent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

import attrs

from impasto import Account, Handler, Middleware, NotSent, RateLimited, WireRequest, WireResponse, hookimpl
from impasto_plugins.middleware.limit import gate_of

T = TypeVar("T")

_TOLD = ("x-stainless-read-timeout", "x-stainless-timeout")
"""How OpenAI's SDKs tell how long they wait for an answer, in seconds."""

patience: ContextVar[float] = ContextVar("patience", default=math.inf)
"""How long the running request may wait for its turn, in seconds."""


@attrs.define(eq=False)
class _Turn:
    """A call's wait for its turn. ``waits``: a key that is held back is waited for; no other deployment is left.

    Several images of one call are judged together: if one of them was answered, the others are waited for here.
    """

    timeout: asyncio.Timeout
    waits: bool
    in_flight: int = 0
    has_answer: bool = False
    _idle: asyncio.Event | None = None

    def begin(self) -> None:
        """Count a request that goes out."""
        self.in_flight += 1
        if self._idle is not None:
            self._idle.clear()

    def end(self) -> None:
        """Count a request that is over."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    async def must_wait(self) -> bool:
        """Return True if what was refused for now has to be sent here again."""
        if not self.waits and self.in_flight:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()
        return self.waits or self.has_answer


_turn: ContextVar[_Turn | None] = ContextVar("_turn", default=None)


def patience_of(headers: Mapping[str, str], most: float) -> float:
    """Return the seconds that a request gives for it, at most ``most``."""
    for name in _TOLD:
        if (given := headers.get(name)) is None:
            continue
        with suppress(ValueError):
            if (seconds := float(given)) > 0:
                most = min(most, seconds)
    return most


async def in_time(account: Account, call: Callable[[], Awaitable[T]], *, waits: bool = True) -> T:
    """Make a call that waits for its turn, or does not. Raises RateLimited, before anything is sent, if it is late."""
    longest, gate = patience.get(), gate_of(account)
    if (expected := gate.wait(account)) > (longest if waits else 0):
        raise _too_long(expected)
    timeout = asyncio.timeout(None if longest == math.inf else longest)
    token = _turn.set(_Turn(timeout, waits))
    try:
        async with timeout:
            return await call()
    except TimeoutError:
        if not timeout.expired():
            raise
        raise _too_long(max(gate.wait(account), 1.0)) from None
    finally:
        _turn.reset(token)


class QueueTimeout:
    """Middleware that ends the wait for a turn when the turn comes, and a retry that the caller would not wait for."""

    position = "inner"

    @hookimpl
    def middleware(self) -> Middleware:
        """Return itself: it keeps no state of its own."""
        return self

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        turn = _turn.get()
        if turn is None:  # a poll of a job, or work that no caller waits for
            return await next(wire)
        if turn.timeout.expired():
            raise NotSent("its turn came too late; nothing was sent", retryable=False)
        if turn.timeout.when() is not None:
            turn.timeout.reschedule(None)
        turn.begin()
        try:
            answer = await next(wire)
            turn.has_answer = True
            return answer
        except RateLimited as error:
            refused = error
        finally:
            turn.end()
        if not await turn.must_wait() or (refused.retry_after or 0.0) > patience.get():
            refused.retryable = False
        raise refused


def _too_long(seconds: float) -> RateLimited:
    said = f"as many calls wait for this provider as can be made in time, for {seconds:.0f} s to come; nothing was sent"
    error = RateLimited(said, status=429)
    error.retry_after = seconds
    return error
