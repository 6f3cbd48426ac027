"""n pictures of one request: n calls side by side, and what to say where some of them fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from .errors import Billed, ImpastoError, InvalidRequest, Problem
from .fields import Field, shown
from .records import Lost, Request, Result

if TYPE_CHECKING:
    from .operation import Operation

MOST = 10


def check_n(n: object, model: str | None = None) -> None:
    """Raises InvalidRequest, which names the model, unless n is a whole number from 1 to 10."""
    if wrong := list(problems_of(n)):
        raise InvalidRequest(wrong, operation=model)


def problems_of(n: object, seed: object = None, field: Field | None = None) -> Iterator[Problem]:
    """What is wrong with n, and with a seed, itself within its field's bounds, that n pictures count up from."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST:
        yield Problem("n", f"must be a whole number from 1 to {MOST}, not {shown(n)}")
    elif field is not None and field.most is not None and isinstance(seed, int) and 0 < seed <= field.most:
        top = int(field.most) - n + 1
        if seed > top:
            yield Problem("seed", f"with n={n} must be at most {top}: each picture takes the next seed")


async def fan_out(
    n: int, request: Request, operation: Operation, run: Callable[[Request], Awaitable[Result]]
) -> Result:
    """Runs the request n times, seeds counted up from the one given. Raises the first error if all fail."""
    requests, warnings = seeded(n, request, operation.fields.get("seed"))
    notes: list[str] = []

    async def one(each: Request) -> Result | ImpastoError:
        try:
            return await run(each)
        except ImpastoError as error:
            return error
        except asyncio.CancelledError as cancelled:
            notes.extend(getattr(cancelled, "__notes__", ()))
            raise

    tasks: list[asyncio.Task[Result | ImpastoError]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(one(each)) for each in requests]
    except asyncio.CancelledError as cancelled:  # the caller's own, which knows nothing of what the calls had sent
        came = sum(1 for task in tasks if not task.cancelled() and isinstance(task.result(), Result))
        if came:
            notes.append(f"{request.operation}: {came} of {n} pictures had come, and go with the cancelled call")
        for note in notes:
            cancelled.add_note(note)
        raise
    return _together([task.result() for task in tasks], warnings)


def seeded(n: int, request: Request, field: Field | None) -> tuple[list[Request], tuple[str, ...]]:
    """The requests of n pictures, their seeds counted up from the one given; and what to say of it.

    Raises InvalidRequest where the seeds would pass the field's bound.
    """
    if field is None:
        return [request] * n, (f"{request.operation} takes no seed: the {n} pictures may be alike",)
    seed: int | None = getattr(request.params, "seed", None)
    if not seed:
        return [request] * n, ()
    if wrong := list(problems_of(n, seed, field)):
        raise InvalidRequest(wrong, operation=request.operation)
    return [attrs.evolve(request, params=_with_seed(request.params, seed + i)) for i in range(n)], ()


def _with_seed(params: Any, seed: int) -> Any:  # attrs.evolve knows no type for "some attrs class"
    return attrs.evolve(params, seed=seed)


def _all_lost(errors: list[ImpastoError]) -> ImpastoError:
    """The first error, which speaks for the whole call: it is retryable or free only if all are."""
    first = errors[0]
    first.errors = tuple(errors[1:])
    first.retryable = all(error.retryable for error in errors)
    charged: list[Billed] = [error.billed for error in errors if error.billed != "no"]
    if charged and first.billed == "no":
        first.billed = charged[0]
    return first


def _together(outcomes: list[Result | ImpastoError], warnings: tuple[str, ...]) -> Result:
    results: list[Result] = []
    lost: list[Lost] = []
    place = 0  # one request may answer with several artifacts, or with one and an error
    for outcome in outcomes:
        if isinstance(outcome, ImpastoError):
            lost.append(Lost(index=place, error=outcome))
            place += 1
        else:
            results.append(outcome)
            lost += [Lost(index=place + each.index, error=each.error) for each in outcome.errors]
            place += len(outcome.artifacts) + len(outcome.errors)
    if not results:
        raise _all_lost([each.error for each in lost])
    costs = [result.cost for result in results if result.cost is not None]
    said = dict.fromkeys(warning for result in results for warning in result.warnings)
    return Result(
        artifacts=tuple(artifact for result in results for artifact in result.artifacts),
        warnings=(*warnings, *said),
        errors=tuple(lost),
        request_id=results[0].request_id,
        cost=attrs.evolve(
            costs[0],
            usd=round(sum(cost.usd for cost in costs), 10),
            credits=None if costs[0].credits is None else round(sum(cost.credits or 0 for cost in costs), 10),
        )
        if len(costs) == len(results)
        else None,
    )
