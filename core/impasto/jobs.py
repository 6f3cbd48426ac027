"""Jobs: a provider that accepts a request answers it later. Polls are free, and so is the request that cancels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import attrs

from .call import Call
from .call_errors import annotate, job_missing_error
from .errors import NotFound, ProviderFault, RateLimited, TransportError, UnusableResult
from .permission import Permission, running
from .policy import Retry
from .records import Handler, Pending, Result
from .wire import WireRequest, WireResponse

_POLL_SECONDS = 1.0
"""Seconds between polls if nobody says another time."""
_CANCEL_SECONDS = 5.0
_MAX_HURRIES = 8
"""Addresses of a job that are followed without a wait: an answer may lead to another without end."""
_MAX_RESULT_FETCHES = 3
"""Fetches of a finished job's result before it is taken for damaged."""


async def poll_job(
    call: Call,
    pending: Pending,
    chosen: float | None,
    send: Handler,
    normalize: Callable[[Call, WireResponse], Awaitable[Result | Pending]],
) -> Result:
    """Poll until the result is there; only the end of the job or of the time stops it.

    ``chosen``: the seconds between polls that the caller chose. A caller who gives up cancels the job, if it can be.
    """
    try:
        return await _poll(call, pending, chosen, send, normalize)
    except asyncio.CancelledError:  # of the caller, or of the deadline
        cancel = call.pending.cancel if call.pending is not None else None
        # A job on record is fetched later, by another process; a client that is closed has no connections.
        if cancel is not None and not call.is_recorded and not call.deadline.is_closed:
            await _cancel(call, cancel, send)
        raise


async def _poll(
    call: Call,
    pending: Pending,
    chosen: float | None,
    send: Handler,
    normalize: Callable[[Call, WireResponse], Awaitable[Result | Pending]],
) -> Result:
    accepted_at, poll = time.monotonic(), pending.poll or WireRequest()  # the route refuses a job without
    unusable = hurries = 0
    interval = _interval(call, pending, chosen)
    wait = 0.0 if pending.is_ready else interval if chosen is not None or pending.first is None else pending.first
    while True:
        call.pending, call.answer, call.retry_after = pending, None, 0.0
        await asyncio.sleep(wait)
        wait = interval
        try:
            outcome = await normalize(call, await send(poll.with_call(call)))
        except NotFound as error:
            annotate(error, call)  # it stays in the new one's context
            raise job_missing_error(error, call, time.monotonic() - accepted_at, pending) from None
        except UnusableResult:
            unusable += 1  # damaged on its way, perhaps
            if unusable == _MAX_RESULT_FETCHES or call.remaining() < interval:
                raise
        except RateLimited as error:
            if call.remaining() < max(interval, min(error.retry_after or 0.0, call.retry.max_wait)):
                raise
        except (TransportError, ProviderFault):
            pass
        else:
            if isinstance(outcome, Result):
                return outcome if outcome.cost or pending.cost is None else attrs.evolve(outcome, cost=pending.cost)
            if outcome.poll is not None:
                pending = _continued(pending, outcome)
                poll, interval = outcome.poll, _interval(call, pending, chosen)
                wait = interval
                if pending.is_ready and hurries < _MAX_HURRIES:
                    hurries, wait = hurries + 1, 0.0
        wait = max(wait, min(call.retry_after, call.retry.max_wait))


def _continued(pending: Pending, after: Pending) -> Pending:
    """Return the job with the address of a poll's answer, and what was known of it if the answer does not repeat it."""
    return attrs.evolve(
        after,
        id=pending.id,
        cost=after.cost or pending.cost,
        cancel=after.cancel or (None if after.is_ready else pending.cancel),  # a finished job is not cancelled
        interval=pending.interval if after.interval is None else after.interval,
        result_ttl=pending.result_ttl if after.result_ttl is None else after.result_ttl,
    )


def _interval(call: Call, pending: Pending, chosen: float | None) -> float:
    """Return the seconds between polls: the caller's, the job's or the provider's, which is a minimum at its host."""
    if chosen is not None:
        return chosen
    provider = call.account.provider
    interval = (provider.poll_interval or _POLL_SECONDS) if pending.interval is None else pending.interval
    return max(interval, provider.poll_interval) if provider.is_own_host(call.account.base_url) else interval


async def _cancel(call: Call, cancel: WireRequest, send: Handler) -> None:
    """Ask the provider to stop a job, once. It is a free call of its own: the evidence of ``call`` stays as it is."""
    once, scheduler = Retry(attempts=1, refused=0), call.deadline.scheduler
    own = Call(call.request, call.account, timeout=_CANCEL_SECONDS, retry=once, watch=scheduler)
    token = running.set(Permission(own))
    try:
        with own.deadline:
            own.deadline.start(_CANCEL_SECONDS)  # the wait for the key's rate counts: somebody gives up here
            await send(cancel.with_call(own))
        call.cancellation = "was cancelled"
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything: the caller's cancellation goes on
        call.cancellation = f"could not be cancelled ({type(error).__name__}) and continues at the provider"
    finally:
        running.reset(token)
