"""The one owner of retries. Tries again only what is proved to have cost nothing, unless the caller opted in."""

from __future__ import annotations

import asyncio
import random

from impasto import (
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


class _Retry:
    position = "retry"

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        if wire.method != "POST":
            return await next(wire)  # polls repeat in the route, as often as their job needs
        call = wire.call
        begun = faults = charges = 0
        while True:
            try:
                return await next(wire)
            except (NotSent, RateLimited) as error:
                begun += 1
                again = error.retryable and begun < call.retry.attempts
                failure: ImpastoError = error
            except ProviderFault as error:
                faults += 1
                again = error.retryable and error.billed == "no" and faults <= call.retry.refused
                failure = error
            except ChargeUnknown as error:
                charges += 1
                again = call.retry.on_ambiguous and charges < call.retry.max_charges
                failure = error
            wait = self._wait(failure, begun + faults + charges, wire)
            if not again or wait >= call.remaining():
                raise failure
            if not isinstance(failure, RateLimited) and not call.budget.spend(call.retry):
                raise failure
            await asyncio.sleep(wait)
            call.permits += 1

    @staticmethod
    def _wait(failure: ImpastoError, tries: int, wire: WireRequest) -> float:
        policy = wire.call.retry
        jittered = random.uniform(0, min(policy.cap, policy.base * 2 ** (tries - 1)))  # noqa: S311 - jitter, no secret
        # after a 429 the whole key is paused by the rate middleware; the jitter spreads what comes after
        return min(jittered, policy.base) if isinstance(failure, RateLimited) else jittered


class RetryPlugin:
    """Gives the retry middleware; its policy is each call's own."""

    @hookimpl
    def middleware(self) -> Middleware:
        return _Retry()


plugin = RetryPlugin()
