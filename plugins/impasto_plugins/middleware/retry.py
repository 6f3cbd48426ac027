"""Middleware that repeats requests. The one owner of retries: transports send each request once.

A request is repeated only if it is proved to have cost nothing, unless the caller has opted in to more.
"""

from __future__ import annotations

import asyncio
import random

from impasto import (
    Call,
    ChargeUnknown,
    Handler,
    ImpastoError,
    Middleware,
    NotSent,
    ProviderFault,
    RateLimited,
    WireRequest,
    WireResponse,
    hookimpl,
)

from .gate import gate_of, model_pauses


class _Retry:
    position = "retry"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.method != "POST":
            return await next(wire)  # polls repeat in the route, as often as their job needs
        call = wire.call
        attempts = refusals = charges = 0
        while True:
            try:
                return await next(wire)
            except (NotSent, RateLimited) as error:
                attempts += 1
                may_retry = error.retryable and attempts < call.retry.attempts
                failure: ImpastoError = error
            except (ProviderFault, ChargeUnknown) as error:
                # The bill decides, not the class: a fault whose charge is unknown is retried only by permission.
                if error.billed == "no":
                    refusals += 1
                    may_retry = error.retryable and refusals <= call.retry.refused
                else:
                    charges += 1
                    may_retry = call.retry.on_ambiguous and charges < call.retry.max_charges
                failure = error
            # Outside the except blocks, so that a later failure does not carry this one as its context.
            if not may_retry:
                raise failure
            wait = _backoff(failure, attempts + refusals + charges, call)
            if not _can_wait(wait, failure, wire):
                raise failure
            await asyncio.sleep(wait)


def _backoff(failure: ImpastoError, tries: int, call: Call) -> float:
    """Return the seconds to wait: full jitter, doubling.

    After a 429 with a time the gate holds the key back, and jitter spreads what follows. After a 429 without one each
    call backs off by itself, twice as long as after other failures: 1 s at first by default.

    The last try of a request that never left waits its whole time: earlier jitter has spread the calls, and an outage
    of ``base * 2 ** (attempts - 2)`` seconds (2 by default) is then always outlasted.
    """
    policy = call.retry
    longest = policy.base * 2.0 ** min(tries - 1, 60)  # 2 ** 1024 is no float
    if isinstance(failure, RateLimited):
        longest = longest * 2 if failure.retry_after is None else policy.base
    longest = min(policy.cap, longest)
    if isinstance(failure, NotSent) and 1 < tries == policy.attempts - 1:
        return longest
    return random.uniform(0, longest)  # noqa: S311 - jitter, no secret


def _can_wait(wait: float, failure: ImpastoError, wire: WireRequest) -> bool:
    """Return True if the call's time and the retry budget allow it. A 429 is outside the budget."""
    call = wire.call
    if isinstance(failure, RateLimited):
        pause = max(gate_of(call.account).remaining_pause(), model_pauses.remaining(wire))
        return max(wait, pause) < call.remaining()
    return wait < call.remaining() and call.budget.try_spend(call.retry)


class RetryPlugin:
    """The plugin of the retry middleware. Each call has its own policy."""

    @hookimpl
    def middleware(self) -> Middleware:
        """Return the middleware, which keeps no state of its own."""
        return _Retry()


plugin = RetryPlugin()
