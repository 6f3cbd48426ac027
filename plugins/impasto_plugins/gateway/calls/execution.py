"""One call: checked against its model, run on the deployment whose turn it is, or on the next that may stand in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

import attrs

from impasto import Artifact, Call, Cost, ImpastoError, InvalidRequest, Problem, RateLimited, Request, Result
from impasto.ext import Makes
from impasto_plugins.gateway.errors import Failure, failure_of, invalid, lost
from impasto_plugins.gateway.http.memory_budget import Share
from impasto_plugins.gateway.storage import salvage
from impasto_plugins.openai_compat.check import bytes_to_decode, check, checked_request
from impasto_plugins.openai_compat.translate import Format, Translation, translate

from .arguments import Asked
from .deployments import Deployment, Model, may_go_elsewhere
from .queue_timeout import in_time
from .streamed_answers import Answers, Quote

T_co = TypeVar("T_co", covariant=True)

VARIATION = {"prompt": "a variation of this picture", "strength": 0.7}
"""What a variation uses where its caller gives nothing else."""


@attrs.frozen(kw_only=True, eq=False)
class Checked:
    """A call that fits a deployment's model."""

    deployment: Deployment
    request: Request
    n: int
    response_format: Format
    warnings: tuple[str, ...]

    @property
    def cost(self) -> Cost | None:
        """What each picture costs, None where that is not known."""
        return self.deployment.operation.cost(self.request)


@attrs.frozen(kw_only=True, eq=False)
class Done:
    """A call that gave pictures. ``lost`` tells of those that did not come; ``created`` in seconds since 1970.

    ``names``: under which the pictures are kept to be served; ``urls``: where, until ``urls_end``.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]
    lost: tuple[Mapping[str, object], ...]
    cost: Cost | None
    created: int
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    urls_end: float = 0.0

    @classmethod
    def of(cls, checked: Checked, result: Result, created: int) -> Done:
        """What a call came to."""
        return cls(
            artifacts=result.artifacts,
            warnings=(*checked.warnings, *result.warnings),
            lost=tuple({"index": each.index, **dict(lost(each.error))} for each in result.errors),
            cost=result.cost,
            created=created,
        )


async def prepare(
    deployment: Deployment, asked: Asked, share: Share, *, edit: bool, vary: bool, makes: Makes
) -> Checked:
    """Return the call for one deployment. Raises InvalidRequest, and Failure if there is no room for its mask."""
    translation, notes = _translated(deployment, asked, deployment.entry.defaults, edit=edit, vary=vary, makes=makes)
    operation, model = deployment.operation, deployment.entry.model
    if not operation.file_fields:
        request, warnings = checked_request(operation, model, translation)
    else:
        if size := await bytes_to_decode(operation, translation):
            await share.begin_decoding(size)
        try:
            request, warnings = await check(operation, model, translation)
        finally:
            if size:
                share.end_decoding(size)
    return _checked(deployment, translation, request, (*notes, *warnings))


def prepare_sync(deployment: Deployment, asked: Asked, *, edit: bool, makes: Makes) -> Checked:
    """Return the call of a batch's line for one deployment; files and masks are read here. Raises InvalidRequest."""
    # How many images a line has, and in which form, is read from the line alone: also when it is not run any more.
    defaults = {
        name: value for name, value in deployment.entry.defaults.items() if name not in ("n", "response_format")
    }
    translation, _ = _translated(deployment, asked, defaults, edit=edit, vary=False, makes=makes)
    request, warnings = checked_request(deployment.operation, deployment.entry.model, translation)
    return _checked(deployment, translation, request, warnings)


def _translated(
    deployment: Deployment, asked: Asked, defaults: Mapping[str, object], *, edit: bool, vary: bool, makes: Makes
) -> tuple[Translation, tuple[str, ...]]:
    operation = deployment.operation
    given = asked.arguments(operation)
    notes = _vary(deployment, given) if vary else ()
    translation = translate(
        operation, given, drop_params=deployment.drop_params, defaults=defaults, edit=edit, makes=makes
    )
    return translation, notes


def _checked(deployment: Deployment, translation: Translation, request: Request, warnings: tuple[str, ...]) -> Checked:
    return Checked(
        deployment=deployment,
        request=request,
        n=translation.n,
        response_format=translation.response_format,
        warnings=warnings,
    )


class Fitting:
    """The call for each deployment of a model that takes it, in their turn. ``check`` makes it for one."""

    def __init__(self, model: Model, check: Callable[[Deployment], Awaitable[Checked]]) -> None:
        self._model, self._check = model, check
        self._left = model.in_turn()
        self._refused: dict[Deployment, Failure] = {}

    @property
    def are_left(self) -> bool:
        """Whether there are deployments that were not tried."""
        return bool(self._left)

    async def next(self) -> Checked | None:
        """Return None if no other takes it. Raises Failure if none at all does."""
        while self._left:
            deployment = self._left.pop(0)
            try:
                return await self._check(deployment)
            except InvalidRequest as error:
                self._refused[deployment] = invalid(error, deployment.operation)
        first, *others = self._model.deployments
        if len(self._refused) == 1 + len(others):
            raise self._refused[first]
        return None


def _vary(deployment: Deployment, given: dict[str, object]) -> tuple[str, ...]:
    """Adds what makes a variation of a picture. Raises InvalidRequest where the model changes no pictures."""
    fields = deployment.operation.fields
    if "strength" not in fields or "image" not in deployment.operation.roles:
        raise InvalidRequest([Problem("model", "makes no variations: it takes no picture with a strength")])
    known = {**deployment.entry.defaults, **{name: value for name, value in given.items() if value is not None}}
    added = {name: value for name, value in VARIATION.items() if name not in known}
    given.update(added)
    return tuple(f"{name} was not given: {value!r} was used" for name, value in added.items())


Pay = Callable[[Checked, Callable[[], Awaitable[Result]]], Awaitable[Result]]
"""Makes an attempt at a call within its caller's means. Raises Failure, and what the attempt raises."""


OnJob = Callable[[Checked, str], Awaitable[object]]
"""Receives the call that began a new job, and the fingerprint of its account."""


async def run(first: Checked, others: Fitting, pay: Pay, answers: Answers, on_job: OnJob) -> Done:
    """Make the call, and make it elsewhere only if nothing was charged. Raises Failure."""

    async def attempt(checked: Checked, *, waits: bool) -> Done:
        try:
            call = answers.call(Quote(checked.cost, checked.warnings), partial(on_job, checked))
            making = partial(in_time, checked.deployment.account, partial(made, checked, call), waits=waits)
            result = await pay(checked, making)
            if result.errors:
                await salvage.keep(answers.unread, *(lost.error for lost in result.errors))
            return Done.of(checked, result, answers.created)
        except InvalidRequest as error:  # found as the request was written
            raise invalid(error, checked.deployment.operation) from None
        except ImpastoError as error:
            await salvage.keep(answers.unread, error)
            raise

    try:
        return await on_each(first, others, attempt)
    except ImpastoError as error:
        raise failure_of(error) from None


class Candidates(Protocol):
    """The deployments that may take a call, each with the call for it."""

    @property
    def are_left(self) -> bool:
        """Whether there are some that were not tried."""
        ...

    async def next(self) -> Checked | None:
        """Return the call for the next one, None if no other takes it."""
        ...


class Attempt(Protocol[T_co]):
    """Makes a call once; ``waits``: however long its provider asks for. Raises ImpastoError."""

    async def __call__(self, checked: Checked, *, waits: bool) -> T_co: ...


async def on_each(first: Checked, others: Candidates, attempt: Attempt[T_co]) -> T_co:
    """Make a call on one deployment after the other, until one does it. Raises what the last attempt raises.

    Only if none is left does it wait for a key that is held back: for the one that may send first.
    """
    checked = first
    held_back: list[tuple[float, int, Checked]] = []  # each with the time at which it may be asked again
    while True:
        waits = not others.are_left and not held_back
        try:
            return await attempt(checked, waits=waits)
        except ImpastoError as error:
            if not may_go_elsewhere(error):
                raise
            if isinstance(error, RateLimited) and not waits:
                held_back.append((time.monotonic() + (error.retry_after or 0.0), len(held_back), checked))
            if (following := await others.next()) is None:
                if not held_back:
                    raise
                *_, following = min(held_back)
                held_back.clear()
            checked = following


async def made(checked: Checked, call: Callable[..., Call]) -> Result:
    """Make one attempt at a call on its deployment; ``call`` as of ``Client.invoke``. Raises ImpastoError."""
    deployment = checked.deployment
    deployment.running += 1
    try:
        with deployment.observer.attempt(deployment.label) as observed:
            result = await deployment.client.invoke(
                deployment.entry.model,
                checked.request,
                n=checked.n,
                timeout=deployment.timeout,
                base_model=deployment.entry.base_model,
                call=call,
            )
            result = deployment.priced(result)
            observed.came(result)
    except ImpastoError as error:
        deployment.failed(error)
        raise
    else:
        deployment.succeeded()
        return result
    finally:
        deployment.running -= 1
