"""Middleware that repeats requests. The one owner of retries: transports send each request once.

A request is repeated only if it is proved to have cost nothing, unless the caller has opted in to more.
"""

from __future__ import annotations

import asyncio
import random
import time

from impasto import (
    Call,
    ChargeUnknown,
    Handler,
    ImpastoError,
    Middleware,
    NotSent,
    ProviderFault,
    RateLimited,
    Retry,
    Unauthorized,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.ext import Options

from .gate import gate_of, model_pauses


class RetryBudget:
    """Counts a client's requests and retries of a minute, so that retries never multiply an outage."""

    WINDOW = 60.0

    def __init__(self) -> None:
        self._start_minute()

    def count_request(self) -> None:
        """Count a request."""
        if time.monotonic() - self._since > self.WINDOW:
            self._start_minute()
        self._requests += 1

    def try_spend(self, policy: Retry) -> bool:
        """Take one retry; return False if the budget is used up."""
        if time.monotonic() - self._since > self.WINDOW:
            self._start_minute()
        if self._retries >= policy.floor + policy.budget * self._requests:
            return False
        self._retries += 1
        return True

    def _start_minute(self) -> None:
        self._since = time.monotonic()
        self._requests = self._retries = 0


class _Retry:
    position = "retry"

    def __init__(self, budget: RetryBudget) -> None:
        self.budget = budget

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.method != "POST":  # polls repeat in the route, as often as their job needs
            try:
                return await next(wire)
            except Unauthorized as error:
                if not _may_authorize_again(error):
                    raise
            return await next(wire)
        self.budget.count_request()
        call = wire.call
        attempts = refusals = charges = authorizations = 0
        while True:
            try:
                return await next(wire)
            except Unauthorized as error:  # proved to be free, so it counts neither as a retry nor in the budget
                authorizations += 1
                if authorizations > 1 or not _may_authorize_again(error):
                    raise
                continue
            except (NotSent, RateLimited, ProviderFault, ChargeUnknown) as error:
                # The bill decides, not the class: a failure whose charge is unknown is retried only by permission.
                if error.billed != "no":
                    charges += 1
                    may_retry = call.retry.on_ambiguous and charges < call.retry.max_charges
                elif isinstance(error, NotSent | RateLimited):
                    attempts += 1
                    may_retry = error.retryable and attempts < call.retry.attempts
                else:
                    refusals += 1
                    may_retry = error.retryable and refusals <= call.retry.refused
                failure: ImpastoError = error
            # Outside the except blocks, so that a later failure does not carry this one as its context.
            if not may_retry:
                raise failure
            wait = _backoff(failure, attempts + refusals + charges, call)
            if not self._can_wait(wait, failure, wire):
                raise failure
            await asyncio.sleep(wait)

    def _can_wait(self, wait: float, failure: ImpastoError, wire: WireRequest) -> bool:
        """Return True if the call's time and the retry budget allow it. A 429 is outside the budget."""
        call = wire.call
        if isinstance(failure, RateLimited):
            pause = max(gate_of(call.account).remaining_pause(), model_pauses.remaining(wire))
            return max(wait, pause) < call.remaining()
        return wait < call.remaining() and self.budget.try_spend(call.retry)


def _may_authorize_again(error: Unauthorized) -> bool:
    """Return True if the provider's hook ``authorize`` has other headers, and the refused request cost nothing."""
    return error.retryable and error.billed == "no"


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


class RetryPlugin:
    """The plugin of the retry middleware. Each call has its own policy, each client one budget of retries."""

    def __init__(self, options: Options) -> None:
        self._budget = RetryBudget()

    @hookimpl
    def middleware(self) -> Middleware:
        """Return the middleware of a model."""
        return _Retry(self._budget)


plugin = RetryPlugin
