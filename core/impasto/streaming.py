"""Streams: a provider's events read to the paid result, and a call as a generator of partial results."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs

from .call import Call
from .call_errors import answer_fault
from .costs import Usage
from .errors import ChargeUnknown, ImpastoError, UnusableResult
from .fanout import combine_results, combined_error, result_of_cancelled
from .interrupts import pass_interrupt, wait_for_end
from .records import MAX_ARTIFACTS, Artifact, EventOutcome, Partial, Request, Result
from .result_checks import checked_result, result_problem
from .server_events import EVENT_STREAM, EventParser, ServerEvent
from .wire import LARGE_BYTES, WireResponse, has_too_many_values

if TYPE_CHECKING:
    from .client import Client
    from .operation import Operation

GRACE_SECONDS = 5.0
"""Seconds for a stream to end after its result, which is not given up for what may follow, or after an error."""

MAX_WAITING = 8
"""Partial results that wait for a slow reader, who misses the older ones."""

NormalizeEvent = Callable[..., EventOutcome | tuple[EventOutcome, ...] | None]


def is_event_stream(response: WireResponse) -> bool:
    """Return True for the head of a successful stream of events. A refusal is an ordinary answer."""
    return response.stream is not None and response.media_type == EVENT_STREAM and 200 <= response.status < 300


async def read_stream(
    call: Call, response: WireResponse, normalize: NormalizeEvent, operation: Operation
) -> tuple[WireResponse, ImpastoError | None]:
    """Read a stream of events to its end; return the answer with its result, or the error that an event means.

    Several results are one with the images of all. The answer's body is their events, and the last that counts the
    tokens of all. Raises ChargeUnknown and UnusableResult.
    """
    stream = response.stream
    assert stream is not None  # noqa: S101 - the route asks only for those
    call.answer, loop = response, asyncio.get_running_loop()
    joined = _Joined()
    fault: UnusableResult | None = None
    failure: ImpastoError | None = None
    has_all = False
    try:
        async with asyncio.timeout(None) as grace, aclosing(stream.events(call.hold)) as events:
            async for event in events:
                try:
                    outcomes = await _normalized(event, call, normalize, operation, response)
                except UnusableResult as error:  # the paid image may still come
                    error.raw = error.raw or stream.received
                    fault = fault or error
                    continue
                except ImpastoError as error:
                    if joined.result is not None:
                        break  # the image is there, whatever the provider says after it
                    failure, outcomes = failure or error, ()  # an image that comes all the same is paid
                for outcome in outcomes:
                    if isinstance(outcome, Partial):
                        call.artifacts = (outcome.artifact,)
                        if call.on_partial is not None:
                            call.on_partial(outcome)
                    elif isinstance(outcome, Result) and call.has_odd_result:
                        joined.add(checked_result(outcome, call), stream.received)
                    else:
                        joined.add(outcome, stream.received)
                if (found := joined.result) is not None:
                    call.artifacts = found.artifacts
                    has_all = len(found.artifacts) + len(found.errors) >= call.request.count
                    if len(found.artifacts) >= MAX_ARTIFACTS:
                        break
                if (has_all or failure) and grace.when() is None:  # once: results may come without end
                    grace.reschedule(loop.time() + min(GRACE_SECONDS, call.remaining() / 2))
    except TimeoutError:
        if joined.result is None and failure is None:
            raise
    except ChargeUnknown as error:
        if joined.result is None and failure is None:
            error.raw, error.request_id = stream.received, response.request_id
            raise
    if joined.result is None and failure is not None:
        return response, failure
    if joined.result is None:
        message = "the provider's stream ended without a result; it may have been charged"
        raise fault or ChargeUnknown(
            message, status=response.status, raw=stream.received, request_id=response.request_id
        )
    return attrs.evolve(response, stream=None, body=joined.events(), result=joined.whole()), None


async def _normalized(
    event: ServerEvent, call: Call, normalize: NormalizeEvent, operation: Operation, response: WireResponse
) -> tuple[EventOutcome, ...]:
    """Return what an event means, each part of it checked."""
    problem, cause = "", None
    work = partial(normalize, request=call.request, event=event)
    try:
        is_large = len(event.data) >= LARGE_BYTES
        if is_large and has_too_many_values(event.data):
            raise UnusableResult("an event of the answer has more values than are read")
        outcome = await asyncio.to_thread(work) if is_large else work()
    except (ImpastoError, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a plugin makes of a paid answer, its bytes are kept
        pass_interrupt(error)
        problem, cause = answer_fault(error, operation, attrs.evolve(response, body=event.data.encode())), error
    else:
        outcomes = _outcomes(outcome)
        if not (problem := next(filter(None, (_event_problem(each, call) for each in outcomes)), "")):
            return tuple(
                attrs.evolve(each, request_id=response.request_id)
                if isinstance(each, Result) and each.request_id is None
                else each
                for each in outcomes
            )
    raise UnusableResult(problem, media_type=response.media_type, request_id=response.request_id) from cause


def _outcomes(outcome: object) -> tuple[EventOutcome, ...]:
    if outcome is None:
        return ()
    return cast("tuple[EventOutcome, ...]", outcome if isinstance(outcome, tuple) else (outcome,))


def _event_problem(outcome: object, call: Call) -> str:
    """Return the reason why a part of an event can't be used, empty if it can."""
    if isinstance(outcome, Usage):
        return ""
    if isinstance(outcome, Partial):
        artifact, index = cast("tuple[object, object]", (outcome.artifact, outcome.index))
        is_valid = isinstance(artifact, Artifact) and type(index) is int
        return "" if is_valid else "a Partial of the plugin must have an Artifact and its number"
    if not isinstance(outcome, Result):
        return f"normalize_event returned {type(outcome).__name__}, not a Partial, a Result, a Usage or None"
    if not (problem := result_problem(outcome, call)) and not outcome.artifacts:  # each image has its error
        raise combined_error([each.error for each in outcome.errors])
    return problem


@attrs.define
class _Joined:
    """The results of a stream so far as one, and the tokens that were counted for all of it after the last image."""

    result: Result | None = None
    _usage: Usage | None = None
    _images: bytes = b""
    _count: bytes = b""

    def add(self, outcome: Result | Usage, received: bytes = b"") -> None:
        """Add what an event means; ``received`` are its bytes."""
        if isinstance(outcome, Usage):
            self._usage, self._count = outcome, received
        else:
            self.result, self._usage = _joined(self.result, outcome), None
            self._images, self._count = self._images + received, b""

    def whole(self) -> Result | None:
        """Return the result, with the tokens of all in place of those of its parts."""
        if self.result is None or self._usage is None:
            return self.result
        return attrs.evolve(self.result, usage=self._usage)

    def events(self) -> bytes:
        """Return the events that this result comes from."""
        return self._images if self._images.endswith(self._count) else self._images + self._count


def _joined(before: Result | None, after: Result) -> Result:
    """Return the images of both results of a stream; one that comes twice counts once."""
    if before is None:
        return after
    earlier = [each.data for each in before.artifacts]
    new = tuple(each for each in after.artifacts if each.data not in earlier)
    if len(after.artifacts) - len(new) == len(earlier):
        return after  # it has all that came before
    if not new:
        return before
    joined = combine_results([(before, 1), (after, 1)])
    return attrs.evolve(joined, artifacts=before.artifacts + new, errors=before.errors + after.errors)


def result_of_events(body: bytes, request: Request, normalize: NormalizeEvent) -> Result | None:
    """Return the result of events that were read before, such as those in a cache."""
    joined = _Joined()
    for event in EventParser().feed(body):
        for outcome in _outcomes(normalize(request=request, event=event)):
            if not isinstance(outcome, Partial):
                joined.add(outcome)
    return joined.whole()


async def stream_call(
    client: Client, model: str, params: Mapping[str, object] | Request, **options: Any
) -> AsyncGenerator[Partial | Result]:
    """Run a model and yield its partial results as they come, then its result. ``options`` as for ``invoke``.

    Leaving early cancels the call.
    """
    waiting: deque[Partial] = deque(maxlen=MAX_WAITING)
    has_news = asyncio.Event()

    def take(each: Partial) -> None:
        waiting.append(each)
        has_news.set()

    def make(request: Request, *args: Any, **settings: Any) -> Call:
        call = Call(attrs.evolve(request, stream=True), *args, **settings)
        call.on_partial = take
        return call

    task = asyncio.create_task(client.invoke(model, params, call=make, **options))
    task.add_done_callback(lambda _: has_news.set())
    try:
        while True:
            await has_news.wait()
            has_news.clear()
            while waiting:
                yield waiting.popleft()
            if task.done() and not waiting:
                yield task.result()
                return
    except BaseException as left:
        # The caller is gone, or cancelled: the call ends first, and its word about the charge goes to the caller.
        if not task.done():
            task.cancel()
            await wait_for_end(task)
            try:
                vars(left)["result"] = task.result()  # it came in this moment, see result_of_cancelled
            except asyncio.CancelledError as cancelled:
                vars(left)["result"] = result_of_cancelled(cancelled)
                for note in getattr(cancelled, "__notes__", ()):
                    left.add_note(note)
            except ImpastoError as error:
                left.add_note(str(error))
        raise
