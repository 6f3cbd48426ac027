"""n images of one request: n calls side by side, and one result or error for all of them."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from .advice import CANCELLED_ADVICE
from .charges import billed_of_images, cost_of_failure
from .costs import Cost, Usage
from .errors import Billed, ImpastoError, InvalidRequest, NotSent, Problem
from .fields import Field, format_value
from .records import FailedArtifact, Request, Result

if TYPE_CHECKING:
    from .operation import Operation

Each = TypeVar("Each")
Summand = TypeVar("Summand", Cost, Usage)

MAX_N = 10


def check_n(n: object, model: str | None = None) -> None:
    """Raise InvalidRequest, with the model's name, unless n is a whole number from 1 to 10."""
    if wrong := list(check_n_and_seed(n)):
        raise InvalidRequest(wrong, operation=model)


def check_job(id: object, n: object, model: str) -> None:
    """Raise InvalidRequest unless the id of a job is text, and n valid."""
    if not isinstance(id, str):
        raise InvalidRequest([Problem("id", f"must be text, not {type(id).__name__}")], operation=model)
    check_n(n, model)


def check_n_and_seed(n: object, seed: object = None, field: Field | None = None) -> Iterator[Problem]:
    """Yield the problems of n, and of a seed that n images count up from. The seed is within its field's limits."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_N:
        yield Problem("n", f"must be a whole number from 1 to {MAX_N}, not {format_value(n)}")
    elif field is not None and field.maximum is not None and isinstance(seed, int) and 0 < seed <= field.maximum:
        top = int(field.maximum) - n + 1
        if seed > top:
            yield Problem("seed", f"must be at most {top} with n={n}: each image takes the next seed")


async def fan_out(
    n: int, request: Request, operation: Operation, run: Callable[[Request], Awaitable[Result]]
) -> Result:
    """Run the requests of n images side by side. Raises the first error if all fail.

    If it is cancelled, the CancelledError carries the images that had come, see ``result_of_cancelled``.
    """
    requests, warnings = requests_with_seeds(n, request, operation, operation.native_n)
    if len(requests) == 1:
        return await run_single(n, requests[0], run)
    outcomes: list[Result | ImpastoError | None] = [None] * len(requests)
    cancellations: dict[int, asyncio.CancelledError] = {}
    try:
        await run_each(requests, run, outcomes, cancellations)
    except asyncio.CancelledError as cancelled:  # the caller's own, which knows nothing of what the calls had sent
        notes = [note for each in cancellations.values() for note in getattr(each, "__notes__", ())]
        if any(outcome is not None for outcome in outcomes):
            ends = (outcome or _error_of_cancelled(cancellations.get(i)) for i, outcome in enumerate(outcomes))
            parts = [(end, each.count) for end, each in zip(ends, requests, strict=True)]
            result = combine_results(parts, warnings, price=lambda: operation.cost(request))
            vars(cancelled)["result"] = result
            if result.artifacts:
                notes.append(_arrived_text(request, result, n))
        for note, count in Counter(notes).items():
            cancelled.add_note(note if count == 1 else f"{note} ({count} calls)")
        raise
    pairs = zip(outcomes, requests, strict=True)
    parts = [(outcome, each.count) for outcome, each in pairs if outcome is not None]
    result = combine_results(parts, warnings, price=lambda: operation.cost(request))
    if not result.artifacts:
        raise combined_error([each.error for each in result.errors])
    return result


async def run_single(n: int, request: Request, run: Callable[[Request], Awaitable[Result]]) -> Result:
    """Run one request of n images, whose error is that of each."""
    try:
        return await run(request)
    except ImpastoError as error:
        error.billed_each = error.billed_each or ((error.billed,) * n if n > 1 else ())
        raise
    except asyncio.CancelledError as cancelled:
        if (part := result_of_cancelled(cancelled)) is not None:
            cancelled.add_note(_arrived_text(request, part, n))
        raise


async def run_each(
    items: Sequence[Each],
    run: Callable[[Each], Awaitable[Result]],
    outcomes: list[Result | ImpastoError | None],
    cancellations: dict[int, asyncio.CancelledError],
) -> None:
    """Run all items side by side and put their results and errors into ``outcomes``, at their places.

    If it is cancelled, what had come stays there, and ``cancellations`` has the errors of those that were cancelled.
    """

    async def one(index: int, item: Each) -> None:
        try:
            outcomes[index] = await run(item)
        except ImpastoError as error:
            outcomes[index] = error
        except asyncio.CancelledError as cancelled:
            outcomes[index] = result_of_cancelled(cancelled)
            cancellations[index] = cancelled
            raise

    async with asyncio.TaskGroup() as group:
        for index, item in enumerate(items):
            group.create_task(one(index, item))


def _error_of_cancelled(cancelled: asyncio.CancelledError | None) -> ImpastoError:
    """Return the error of an image whose request was cancelled. The route knows if it had been sent."""
    error = vars(cancelled).get("error") if cancelled is not None else None
    return error if isinstance(error, ImpastoError) else NotSent("the call was cancelled; nothing was sent")


def _arrived_text(request: Request, result: Result, n: int) -> str:
    return f"{request.operation}: {len(result.artifacts)} of {n} images had arrived{CANCELLED_ADVICE}"


def result_of_cancelled(error: BaseException) -> Result | None:
    """Return the images and errors that had come when several were cancelled; they may have been charged."""
    result = vars(error).get("result")
    return result if isinstance(result, Result) else None


def requests_with_seeds(
    n: int, request: Request, operation: Operation, native: tuple[str, int] | None = None
) -> tuple[list[Request], tuple[str, ...]]:
    """Return the requests of n images, with seeds counted up from the first, and warnings.

    Without a seed they count up from the provider's default, which would make the same image each time.

    A model without a field for it draws a seed itself if it takes a prompt; of an image alone it makes the same again.
    ``native``: the field for the number of images of one request, and its maximum. Raises InvalidRequest if the seeds
    would pass the field's maximum.
    """
    name, maximum = native or (None, 1)
    field = operation.fields.get("seed")
    warnings: tuple[str, ...] = ()
    if n > 1 and operation.native_n is None and {"seed", "prompt"}.isdisjoint({*operation.fields, *operation.roles}):
        warnings = (f"{request.operation} does not take a seed: the {n} images may be alike",)
    seed: int | None = getattr(request.params, "seed", None) if field is not None else None
    if seed and (wrong := list(check_n_and_seed(n, seed, field))):
        raise InvalidRequest(wrong, operation=request.operation)
    first = _first_seed(seed, field)
    requests: list[Request] = []
    for start in range(0, n, maximum):
        count = min(maximum, n - start)
        changes = {} if name is None else {name: count}
        if start and first is not None:
            changes["seed"] = first + start
        requests.append(attrs.evolve(request, params=_changed(request.params, changes), count=count))
    return requests, warnings


def _first_seed(seed: int | None, field: Field | None) -> int | None:
    """Return the seed of the first image, None if it is random: a negative one, or 0 if that is the default."""
    default = field.default if field is not None else None
    first = default if seed is None else seed
    return None if not isinstance(first, int) or first < 0 or first == default == 0 else first


def _changed(params: Any, changes: dict[str, int]) -> Any:  # attrs.evolve knows no type for "some attrs class"
    return attrs.evolve(params, **changes) if changes else params


def combined_error(errors: list[ImpastoError]) -> ImpastoError:
    """Return the first error on behalf of all: it is retryable, or not billed, only if all are."""
    first = errors[0]
    first.errors = tuple(dict.fromkeys(each for each in errors[1:] if each is not first))  # one for several images
    first.retryable = all(error.retryable for error in errors)
    first.billed_each = tuple(error.billed for error in errors)
    charged: list[Billed] = [billed for billed in first.billed_each if billed != "no"]
    if charged and first.billed == "no":
        first.billed = charged[0]
    return first


def combine_results(
    outcomes: Sequence[tuple[Result | ImpastoError, int]],
    warnings: tuple[str, ...] = (),
    *,
    price: Callable[[], Cost | None] = lambda: None,
    of_requests: bool = True,
) -> Result:
    """Return one result for all requests. Each outcome comes with the number of images that were asked for.

    ``price`` returns that of an image, for requests that failed and were charged. ``of_requests``: False for parts of
    one request, whose failures are counted with its result.
    """
    results: list[Result] = []
    failures: list[FailedArtifact] = []
    costs: list[Cost | None] = []
    possible_costs: list[Cost | None] = []
    index = 0  # one request may answer with several artifacts, or with one and an error
    for outcome, count in outcomes:
        if isinstance(outcome, ImpastoError):
            failures += [FailedArtifact(index=each, error=outcome) for each in range(index, index + count)]
            index += count
            billed = billed_of_images(outcome, count) if of_requests else ()
            if charged := billed.count("yes"):
                own = outcome.cost if charged == count else None
                costs.append(own or _times(price(), charged))
            if charged + billed.count("unknown"):
                possible_costs.append(cost_of_failure(outcome, count, price()))
        else:
            results.append(outcome)
            costs.append(outcome.cost)
            possible_costs.append(outcome.possible_cost or outcome.cost)
            failures += [FailedArtifact(index=index + each.index, error=each.error) for each in outcome.errors]
            index += len(outcome.artifacts) + len(outcome.errors)
    provider_warnings = dict.fromkeys(warning for result in results for warning in result.warnings)
    return Result(
        artifacts=tuple(artifact for result in results for artifact in result.artifacts),
        warnings=(*warnings, *provider_warnings),
        errors=tuple(failures),
        request_id=results[0].request_id if results else None,
        cost=_sum(costs),
        usage=_sum([result.usage for result in results]),
        possible_cost=_sum(possible_costs),
    )


def _times(price: Cost | None, count: int) -> Cost | None:
    return None if price is None else price.times(count)


def _sum(parts: Sequence[Summand | None]) -> Summand | None:
    """Return the sum of costs or usages, None if one of them is unknown."""
    present = [each for each in parts if each is not None]
    return functools.reduce(lambda one, other: one + other, present) if present and len(present) == len(parts) else None
