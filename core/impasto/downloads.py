"""Downloads: the images of an answer that has their addresses only. To fetch them is free, as often as needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import attrs

from .call import Call
from .call_errors import address_problem, annotate, plugin_error, timeout_error
from .errors import BrokenPlugin, ImpastoError, UnusableResult
from .fanout import arrived_text, combine_results, combined_error, run_each
from .interrupts import pass_interrupt
from .records import Artifact, Download, Pending, Result

Poll = Callable[[Pending], Awaitable[Result | Pending]]


async def fetch_images(call: Call, pending: Pending, poll: Poll) -> Result:
    """Fetch the images of a job that has ended, side by side. One that can't be fetched fails alone.

    Those that came before the call's time was over, or before the caller gave up, are not lost.
    """
    call.pending = None  # it has ended: there is nothing to cancel
    outcomes: list[Result | ImpastoError | None] = [None] * len(pending.downloads)

    async def fetch(download: Download) -> Result:
        try:
            return await _fetch(call, pending, download, poll)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            pass_interrupt(error)
            call.refusal = None  # the image was made, so no answer to its download proves that it was free
            if isinstance(error, BrokenPlugin) or not isinstance(error, ImpastoError):
                raise annotate(plugin_error(error, call), call) from error
            annotate(error, call)
            raise

    try:
        await run_each(pending.downloads, fetch, outcomes, [])
    except asyncio.CancelledError as cancelled:
        if not call.deadline.is_only_end():
            if any(isinstance(each, Result) for each in outcomes):
                result = _result(pending, outcomes).completed(call.price, call.request)
                vars(cancelled)["result"] = result
                cancelled.add_note(arrived_text(call.request, len(result.artifacts)))
            raise
        outcomes = [annotate(timeout_error(call), call) if each is None else each for each in outcomes]
    result = _result(pending, outcomes)
    if not result.artifacts:
        raise combined_error([each.error for each in result.errors])
    return result


async def _fetch(call: Call, pending: Pending, download: Download, poll: Poll) -> Result:
    if problem := address_problem(download.request, call):
        raise UnusableResult(problem)
    found = await poll(Pending(id=pending.id, poll=download.request, result_ttl=pending.result_ttl, is_ready=True))
    if isinstance(found, Pending):
        raise UnusableResult("the address of an image leads to further addresses")
    return attrs.evolve(found, artifacts=tuple(_with_statements(each, download) for each in found.artifacts))


def _with_statements(artifact: Artifact, download: Download) -> Artifact:
    """Return the artifact with what the answer states of it."""
    seed = artifact.seed if download.seed is None else download.seed
    return attrs.evolve(artifact, seed=seed, finish_reason=download.finish_reason or artifact.finish_reason)


def _result(pending: Pending, outcomes: Sequence[Result | ImpastoError | None]) -> Result:
    """Return one result of the downloads and of the answer's own errors, in the order of their numbers."""
    pairs = zip(pending.downloads, outcomes, strict=True)
    by_index = [(each.index, outcome) for each, outcome in pairs if outcome is not None]  # a number may come twice
    by_index += [(each.index, each.error) for each in pending.errors]
    in_order = sorted(by_index, key=lambda pair: pair[0])
    return with_bill(combine_results([(outcome, 1) for _, outcome in in_order], of_requests=False), pending)


def with_bill(result: Result, pending: Pending) -> Result:
    """Return the result with the cost and usage that the provider stated for the job, if it has none of its own."""
    if pending.cost is None and pending.usage is None:
        return result
    return attrs.evolve(result, cost=result.cost or pending.cost, usage=result.usage or pending.usage)
