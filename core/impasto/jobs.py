"""Jobs: a provider that accepts a request answers it later. Polls are free, and so is the request that cancels."""

from __future__ import annotations

import asyncio
import time

import attrs

from .call import JOB_CANCELLED, Call
from .call_errors import annotate, job_missing_error, job_text, unfetched_error, unknown_charge_text
from .downloads import Normalize, fetch_images, with_bill
from .errors import (
    ChargeUnknown,
    ImpastoError,
    NotFound,
    PollExpired,
    ProviderFault,
    RateLimited,
    TransportError,
    UnusableResult,
)
from .interrupts import pass_interrupt, wait_for_end
from .permission import Permission, running
from .policy import Retry
from .records import Handler, Pending, Result
from .wire import WireRequest

_POLL_SECONDS = 1.0
"""Seconds between polls if nobody says another time."""
_LEAST_SECONDS = 0.01
"""Seconds between polls at least, whatever interval a provider's answer states."""
_CANCEL_SECONDS = 5.0
_TRANSIENT = (408, 425, 429)
_MAX_HURRIES = 8
"""Addresses of a job that are followed without a wait: an answer may lead to another without end."""
_MAX_RESULT_FETCHES = 3
"""Fetches of a finished job's result before it is taken for damaged, and of a new job before it is for missing."""
_PATIENCE = 4
"""The factor between the waits for these fetches: another host may learn of a new image or job some seconds later."""


@attrs.frozen
class JobPolling:
    """The polls of one call's job. ``chosen``: the seconds between polls that the caller chose."""

    call: Call
    chosen: float | None
    send: Handler
    normalize: Normalize

    async def run(self, pending: Pending) -> Result:
        """Poll until the result is there; only the end of the job or of the time stops it.

        A caller who gives up cancels the job, if it can be. A poll that is refused, or breaks the plugin, says nothing
        of the job: it runs on, and can be resumed with another key or a mended plugin.
        """
        call = self.call
        try:
            outcome = await self._poll(pending)
            return (
                outcome
                if isinstance(outcome, Result)
                else await fetch_images(call, outcome, self._poll, self.normalize)
            )
        except asyncio.CancelledError:  # of the caller, or of the deadline
            await self._give_up()
            raise
        except RateLimited as error:  # for longer than the caller waits
            if call.pending is not None:
                await self._give_up()
                error.message = f"{error.message}; {unknown_charge_text(call)}"
            raise

    async def _give_up(self) -> None:
        """Cancel the job, unless somebody fetches it later: from a record, or because it was only resumed."""
        call = self.call
        cancel = call.pending.cancel if call.pending is not None and call.request.job is None else None
        if cancel is None or call.is_recorded or call.deadline.is_closed:  # a closed client has no connections
            return
        # A task of its own, in which no further cancellation aborts it: its time is short, and one owner ends it.
        await wait_for_end(asyncio.create_task(_cancel(call, cancel, self.send)))

    async def _poll(self, pending: Pending) -> Result | Pending:
        """Return the result, or the end of a job whose images are to be fetched."""
        call = self.call
        accepted_at, poll = time.monotonic(), pending.poll or WireRequest()  # the route refuses a job without
        unusable = hurries = 0
        interval, first = self._interval(pending), pending.first
        wait = 0.0 if pending.is_ready else interval if self.chosen is not None or first is None else first
        while not pending.downloads:
            call.pending, call.answer, call.retry_after = pending, None, 0.0
            await asyncio.sleep(wait)
            wait = interval * _PATIENCE**unusable
            try:
                outcome = await self.normalize(call, await self.send(poll.with_call(call)))
            except PollExpired:  # the plugin's word: there is nothing to ask for again
                raise
            except NotFound as error:
                annotate(error, call)  # it stays in the new one's context
                missing = job_missing_error(error, call, time.monotonic() - accepted_at, pending)
                unusable += 1
                # The host that answers may not know a new job yet.
                if not isinstance(missing, ChargeUnknown) or self._is_last(unusable, wait):
                    raise self._given_up(missing, pending) from None
            except (UnusableResult, TransportError, ProviderFault) as error:
                # Damaged on its way, perhaps, or not there yet: a few times. A host that is down is asked again.
                if isinstance(error, UnusableResult) or (pending.is_ready and _is_refused(error)):
                    unusable += 1
                    if self._is_last(unusable, wait):
                        raise self._given_up(error, pending) from error.__cause__
            except RateLimited as error:
                if call.remaining() < max(interval, min(error.retry_after or 0.0, call.retry.max_wait)):
                    raise
            else:
                if isinstance(outcome, Result):
                    return with_bill(outcome, pending)
                wait = interval
                if outcome.poll is not None or outcome.downloads:
                    pending = _continued(pending, outcome)
                    poll, interval = outcome.poll or poll, self._interval(pending)
                    wait = interval
                    if pending.is_ready and hurries < _MAX_HURRIES:
                        hurries, wait = hurries + 1, 0.0
            wait = max(wait, min(call.retry_after, call.retry.max_wait))
        return pending

    def _given_up(self, error: ImpastoError, pending: Pending) -> ImpastoError:
        """Return the error for a result that is not asked for again in this call. It may be there later."""
        if not pending.is_ready or self.call.images_wait or not isinstance(error, ChargeUnknown | ProviderFault):
            return error  # of an image beside others ``fetch_images`` makes its own
        unfetched = unfetched_error(f"the result of job {job_text(pending.id)}", error, "it may have been charged")
        unfetched.raw, unfetched.request_id = getattr(error, "raw", b""), error.request_id
        return unfetched

    def _is_last(self, fetches: int, interval: float) -> bool:
        return fetches == _MAX_RESULT_FETCHES or self.call.remaining() < interval

    def _interval(self, pending: Pending) -> float:
        """Return the seconds between polls: the caller's, the job's or the provider's, a minimum at its own host."""
        if self.chosen is not None:
            return self.chosen
        provider = self.call.account.provider
        interval = (provider.poll_interval or _POLL_SECONDS) if pending.interval is None else pending.interval
        own = provider.is_own_host(self.call.account.base_url)
        return max(interval, provider.poll_interval if own else _LEAST_SECONDS)


def _is_refused(error: ImpastoError) -> bool:
    """Return True for an answer that comes again and again: the address has expired, or the plugin can't read it.

    A fault in the provider's own words is its answer, unlike that of a proxy which can't reach it.
    """
    if isinstance(error, ProviderFault):
        return True
    status = error.status if isinstance(error, TransportError) else None
    return status is not None and 200 <= status < 500 and status not in _TRANSIENT


def _continued(pending: Pending, after: Pending) -> Pending:
    """Return the job with the address of a poll's answer, and what was known of it if the answer does not repeat it."""
    return attrs.evolve(
        after,
        id=pending.id,
        cost=after.cost or pending.cost,
        usage=after.usage or pending.usage,
        cancel=after.cancel
        or (None if after.is_ready or after.downloads else pending.cancel),  # a finished job is not cancelled
        interval=pending.interval if after.interval is None else after.interval,
        result_ttl=pending.result_ttl if after.result_ttl is None else after.result_ttl,
    )


async def _cancel(call: Call, cancel: WireRequest, send: Handler) -> None:
    """Ask the provider to stop a job, once. It is a free call of its own: the evidence of ``call`` stays as it is."""
    once, scheduler = Retry(attempts=1, refused=0), call.deadline.scheduler
    own = Call(call.request, call.account, timeout=_CANCEL_SECONDS, retry=once, watch=scheduler)
    running.set(Permission(own))  # in this task alone
    try:
        with own.deadline:
            own.deadline.start(_CANCEL_SECONDS)  # the wait for the key's rate counts: somebody gives up here
            await send(cancel.with_call(own))
        call.cancellation = JOB_CANCELLED
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything: the caller's cancellation goes on
        pass_interrupt(error)
        is_success = isinstance(error, ChargeUnknown) and 200 <= (error.status or 0) < 300  # an empty 204 has no result
        problem = f"could not be cancelled ({type(error).__name__}) and continues at the provider"
        call.cancellation = JOB_CANCELLED if is_success else problem
