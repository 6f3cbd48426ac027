"""Downloads: the images of an answer that has their addresses only. To fetch them is free, as often as needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from .call import Call
from .call_errors import annotate, cancelled_error, timeout_error, unfetched_error
from .errors import ChargeUnknown, ContentFiltered, ImpastoError, JobFailed, PollExpired, UnusableResult
from .fanout import combine_results, combined_error, run_each
from .interrupts import pass_interrupt
from .records import Artifact, Download, Pending, Result
from .result_checks import address_problem
from .wire import WireResponse

Poll = Callable[[Pending], Awaitable[Result | Pending]]
Normalize = Callable[[Call, WireResponse], Awaitable[Result | Pending]]


async def fetch_images(call: Call, pending: Pending, poll: Poll, normalize: Normalize) -> Result:
    """Fetch the images of a job that has ended, side by side. One that can't be fetched fails alone.

    Those that came before the call's time was over, or before the caller gave up, are not lost. The result has the
    ``request_id`` of the answer with the addresses: their host may be another company's. The errors of images that did
    not come have it if theirs is unknown, and that answer as ``raw``.
    """
    answer, request_id = (call.answer.body, call.answer.request_id) if call.answer is not None else (b"", None)
    call.pending, call.images_wait = None, True  # it has ended: there is nothing to cancel
    outcomes: list[Result | ImpastoError | None] = [None] * len(pending.downloads)

    def failure(error: ImpastoError, download: Download) -> ImpastoError:
        call.refusal = None  # the image was made, so no answer to its download proves that it was free
        url = download.request.url or ""
        is_alone = url in pending.id.split(" ")
        error.id = url if is_alone else pending.id
        error.request_id = error.request_id or request_id
        if isinstance(error, UnusableResult | ChargeUnknown):
            error.raw = error.raw or answer
        annotate(error, call)
        error.count = 1 if is_alone else error.count
        error.cost = None  # that of the job is for all images
        return error

    async def fetch(download: Download) -> Result:
        try:
            return await _fetch(call, pending, download, poll, normalize)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a plugin may raise anything: the other images are kept
            pass_interrupt(error)
            unfetched = failure(_unfetched(error, download), download)
            if unfetched is error:
                raise
            raise unfetched from error

    def result(rest: Callable[[Call], ImpastoError] | None = None) -> Result:
        pairs = [*zip(pending.downloads, outcomes, strict=True)]
        if rest is not None:
            call.answer = None  # the last one that was read is another image's
            pairs = [(each, failure(rest(call), each) if outcome is None else outcome) for each, outcome in pairs]
        return _combined(pending, pairs, request_id)

    try:
        await run_each(pending.downloads, fetch, outcomes, {})
        found = result()
    except asyncio.CancelledError as cancelled:
        if not call.deadline.is_only_end():
            if any(isinstance(each, Result) for each in outcomes):
                vars(cancelled)["result"] = result(cancelled_error).completed(call.price, call.request)
            raise
        found = result(timeout_error)
    if not found.artifacts:
        error = combined_error([each.error for each in found.errors])
        error.id, error.count = pending.id, call.request.count  # of all, not of the first image alone
        raise error
    return found


async def _fetch(call: Call, pending: Pending, download: Download, poll: Poll, normalize: Normalize) -> Result:
    if download.response is not None:
        found = await normalize(call, download.response)
    elif problem := address_problem(download.request, call):
        raise UnusableResult(problem)
    else:
        found = await poll(Pending(id=pending.id, poll=download.request, result_ttl=pending.result_ttl, is_ready=True))
    if isinstance(found, Pending):
        raise UnusableResult("the address of an image leads to further addresses")
    return attrs.evolve(found, artifacts=tuple(_with_statements(each, download) for each in found.artifacts))


def _unfetched(error: BaseException, download: Download) -> ImpastoError:
    """Return the error for an image that could not be fetched: it can be later, unless the plugin says otherwise."""
    if isinstance(error, ContentFiltered | JobFailed | PollExpired | UnusableResult):
        return error
    unfetched = unfetched_error(f"image {download.index + 1}", error, "it was charged")
    unfetched.billed = "yes"
    return unfetched


def _with_statements(artifact: Artifact, download: Download) -> Artifact:
    """Return the artifact with what the answer states of it."""
    seed = artifact.seed if download.seed is None else download.seed
    return attrs.evolve(
        artifact,
        seed=seed,
        finish_reason=download.finish_reason or artifact.finish_reason,
        revised_prompt=download.revised_prompt or artifact.revised_prompt,
    )


def _combined(
    pending: Pending, pairs: list[tuple[Download, Result | ImpastoError | None]], request_id: str | None
) -> Result:
    """Return one result of the downloads and of the answer's own errors, in the order of their numbers."""
    by_index = [(each.index, outcome) for each, outcome in pairs if outcome is not None]  # a number may come twice
    by_index += [(each.index, each.error) for each in pending.errors]
    in_order = sorted(by_index, key=lambda pair: pair[0])
    combined = combine_results([(outcome, 1) for _, outcome in in_order], of_requests=False)
    return with_bill(attrs.evolve(combined, request_id=request_id or combined.request_id), pending)


def with_bill(result: Result, pending: Pending) -> Result:
    """Return the result with the cost and usage that the provider stated for the job, if it has none of its own."""
    if pending.cost is None and pending.usage is None:
        return result
    return attrs.evolve(result, cost=result.cost or pending.cost, usage=result.usage or pending.usage)
