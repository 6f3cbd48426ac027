"""The one owner of retries. It only retries what is proved to have cost nothing, unless the caller opted in."""

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

from .limit import gate_of, model_paused_for


class _Retry:
    position = "retry"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.method != "POST":
            return await next(wire)  # polls repeat in the route, as often as their job needs
        call = wire.call
        attempts = refused = charges = 0
        while True:
            try:
                return await next(wire)
            except (NotSent, RateLimited) as error:
                attempts += 1
                again = error.retryable and attempts < call.retry.attempts
                failure: ImpastoError = error
            except (ProviderFault, ChargeUnknown) as error:
                if error.billed == "no":
                    refused += 1
                    again = error.retryable and refused <= call.retry.refused
                else:
                    charges += 1
                    again = call.retry.on_ambiguous and charges < call.retry.max_charges
                failure = error
            if not again or not _may_wait(wait := _wait(failure, attempts + refused + charges, call), failure, wire):
                raise failure
            await asyncio.sleep(wait)


def _wait(failure: ImpastoError, tries: int, call: Call) -> float:
    """Return the seconds to wait: full jitter, doubling.

    After a 429 with a time the gate holds the key back, and jitter spreads what follows. After a 429 without one each
    call backs off by itself, twice as long as after other failures: 1 s at first by default.

    The last try of a request that never left waits its whole time: earlier jitter has spread the calls, and an outage
    of ``base * 2 ** (attempts - 2)`` seconds (2 by default) is then always outlasted.
    """
    policy = call.retry
    longest = policy.base * 2.0 ** min(tries - 1, 60)
    if isinstance(failure, RateLimited):
        longest = longest * 2 if failure.retry_after is None else policy.base
    longest = min(policy.cap, longest)
    if isinstance(failure, NotSent) and 1 < tries == policy.attempts - 1:
        return longest
    return random.uniform(0, longest)  # noqa: S311 - jitter, no secret


def _may_wait(wait: float, failure: ImpastoError, wire: WireRequest) -> bool:
    """Return True if the call's time and the retry budget allow it. A 429 is outside the budget."""
    call = wire.call
    if isinstance(failure, RateLimited):
        return max(wait, gate_of(call.account).paused_for(), model_paused_for(wire)) < call.remaining()
    return wait < call.remaining() and call.budget.try_spend(call.retry)


class RetryPlugin:
    """The plugin of the retry middleware. Each call has its own policy."""

    @hookimpl
    def middleware(self) -> Middleware:
        return _Retry()


plugin = RetryPlugin()
