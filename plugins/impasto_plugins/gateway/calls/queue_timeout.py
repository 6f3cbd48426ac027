"""Limits a call's wait for its turn at a provider. Longer waits are refused with 429; nothing is charged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

import attrs

from impasto import Account, Handler, Middleware, NotSent, RateLimited, WireRequest, WireResponse, hookimpl
from impasto_plugins.middleware.gate import gate_of

T = TypeVar("T")


class QueueFull(RateLimited):
    """A call would wait too long for its turn; nothing was sent."""


_TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
"""Headers in which OpenAI's SDKs send their time-out, in seconds."""

max_queue_wait: ContextVar[float] = ContextVar("patience", default=math.inf)
"""The longest wait of the running request, in seconds."""


@attrs.define(eq=False)
class _QueueWait:
    """A call's wait for its turn. ``waits``: retry after a 429 or a failed connection, as no other deployment is left.

    Several images of one call are judged together: if one of them was answered, the others wait here.
    """

    timeout: asyncio.Timeout
    waits: bool
    in_flight: int = 0
    has_response: bool = False

    idle: asyncio.Event | None = None
    """Set while no request is in flight, once somebody waits for that."""

    async def must_retry_here(self) -> bool:
        """Return True if a temporary refusal must be retried here."""
        if not self.waits and self.in_flight:
            self.idle = self.idle or asyncio.Event()
            await self.idle.wait()
        return self.waits or self.has_response


_current_wait: ContextVar[_QueueWait | None] = ContextVar("_turn", default=None)


def read_max_queue_wait(headers: Mapping[str, str], maximum: float) -> float:
    """Return a request's own limit, at most ``maximum`` seconds."""
    for name in _TIMEOUT_HEADERS:
        if (text := headers.get(name)) is None:
            continue
        with suppress(ValueError):
            if (seconds := float(text)) > 0:
                maximum = min(maximum, seconds)
    return maximum


async def with_queue_timeout(account: Account, call: Callable[[], Awaitable[T]], *, waits: bool = True) -> T:
    """Run a call with or without waiting for its turn.

    Raises QueueFull before anything is sent if it would be late.
    """
    max_wait, gate = max_queue_wait.get(), gate_of(account)
    if (expected_wait := gate.estimate_wait(account)) > (max_wait if waits else 0):
        raise _queue_full_error(expected_wait)
    timeout = asyncio.timeout(None if max_wait == math.inf else max_wait)
    token = _current_wait.set(_QueueWait(timeout, waits))
    try:
        async with timeout:
            return await call()
    except TimeoutError:
        if not timeout.expired():
            raise
        raise _queue_full_error(max(gate.estimate_wait(account), 1.0)) from None
    finally:
        _current_wait.reset(token)


class QueueTimeout:
    """Middleware that stops the clock when a call's turn comes, and refuses retries that its caller won't wait for."""

    position = "inner"

    @hookimpl
    def middleware(self) -> Middleware:
        """Return itself: it keeps no state of its own."""
        return self

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        """Send the request on, and stop the clock of the queue timeout."""
        queue_wait = _current_wait.get()
        if queue_wait is None:  # a poll of a job, or work that no caller waits for
            return await next(wire)
        if queue_wait.timeout.expired():
            raise NotSent("the call waited too long for its turn; nothing was sent", retryable=False)
        if queue_wait.timeout.when() is not None:
            queue_wait.timeout.reschedule(None)
        queue_wait.in_flight += 1
        if queue_wait.idle is not None:
            queue_wait.idle.clear()
        try:
            response = await next(wire)
            queue_wait.has_response = True
            return response
        except (NotSent, RateLimited) as error:
            failure: NotSent | RateLimited = error
        finally:
            queue_wait.in_flight -= 1
            if queue_wait.idle is not None and not queue_wait.in_flight:
                queue_wait.idle.set()
        wait = (failure.retry_after or 0.0) if isinstance(failure, RateLimited) else 0.0
        if not await queue_wait.must_retry_here() or wait > max_queue_wait.get():
            failure.retryable = False
        raise failure


def _queue_full_error(seconds: float) -> QueueFull:
    message = (
        f"the calls that wait for this provider take another {seconds:.0f} s, longer than this call may wait;"
        " nothing was sent"
    )
    error = QueueFull(message, status=429)
    error.retry_after = seconds
    return error
