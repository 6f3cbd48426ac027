"""One call: checked against its model, run on the first available deployment, or on the next as a fallback."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar

import attrs

from impasto import (
    Artifact,
    Call,
    Cost,
    ImpastoError,
    InvalidRequest,
    NotSent,
    Operation,
    Problem,
    RateLimited,
    Request,
    Result,
    Usage,
)
from impasto.ext import Makes, close_files
from impasto_plugins.fetched_jobs import ProviderJob
from impasto_plugins.gateway.errors import (
    APIError,
    can_be_fetched,
    invalid_params_error,
    partial_error_payload,
    to_api_error,
)
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.storage import salvage
from impasto_plugins.openai_compat.check import bytes_to_decode, check, check_request
from impasto_plugins.openai_compat.translate import Format, Translation, translate

from .arguments import CallArguments
from .deployments import Deployment, Model, can_fall_back
from .queue_timeout import QueueFull, with_queue_timeout
from .streamed_answers import AnswerSpools, Attempt, GatewayCall, Quote

T_co = TypeVar("T_co", covariant=True)

VARIATION_DEFAULTS = {"prompt": "a variation of this picture", "strength": 0.7}
"""Default parameters of a variation."""


@attrs.frozen(kw_only=True, eq=False)
class PreparedCall:
    """A call that is valid for a deployment's model."""

    deployment: Deployment
    request: Request
    n: int
    response_format: Format
    warnings: tuple[str, ...]
    cost: Cost | None
    """The cost of each image, None if unknown."""


@attrs.frozen(kw_only=True, eq=False)
class CallOutcome:
    """A call with images. ``lost`` reports those that did not come; ``created`` in seconds since 1970.

    ``names``: names of stored images; ``urls``: their URLs, valid until ``urls_end``.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]
    lost: tuple[Mapping[str, object], ...]
    cost: Cost | None
    created: int
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    urls_end: float = 0.0
    usage: Usage | None = None
    is_open: bool = False
    """True if jobs at the provider may still bring images that are lost so far."""
    places: tuple[int, ...] = ()
    """The place of each image among all that were asked for; empty if they are the first ones."""

    @property
    def bytes_in_memory(self) -> int:
        """The bytes of the images that are not on the disk."""
        return sum(len(artifact.data) for artifact in self.artifacts if artifact.file is None)

    def with_later_images(self, later: Self) -> Self:
        """Return the outcome with the images that it lacks and that ``later`` has, an outcome of the same call."""
        artifacts = dict(zip(later.places, later.artifacts, strict=True))
        artifacts |= dict(zip(self.places, self.artifacts, strict=True))  # these are stored
        lost = tuple(each for each in self.lost if each["index"] not in artifacts)
        costs = [each for each in (self.cost, later.cost) if each is not None]
        return attrs.evolve(
            self,
            artifacts=tuple(artifacts[place] for place in sorted(artifacts)),
            places=tuple(sorted(artifacts)),
            warnings=tuple(dict.fromkeys((*self.warnings, *later.warnings))),
            lost=lost,
            cost=max(costs, key=lambda cost: cost.usd, default=None),
            usage=later.usage or self.usage,
            is_open=later.is_open and bool(lost),
            names=(),
            urls=(),
            urls_end=0.0,
        )

    @classmethod
    def from_result(cls, result: Result, *, warnings: Sequence[str], created: int) -> Self:
        """Return the outcome of a result. ``warnings`` come before the result's own."""
        lost = {each.index for each in result.errors}
        places = (place for place in itertools.count() if place not in lost)
        return cls(
            artifacts=result.artifacts,
            places=tuple(itertools.islice(places, len(result.artifacts))),
            warnings=(*warnings, *result.warnings),
            lost=tuple({"index": each.index, **dict(partial_error_payload(each.error))} for each in result.errors),
            cost=result.cost,
            created=created,
            usage=result.usage,
            is_open=any(can_be_fetched(each.error) for each in result.errors),
        )


async def prepare(
    deployment: Deployment,
    call_args: CallArguments,
    reservation: MemoryReservation,
    *,
    edit: bool,
    vary: bool,
    makes: Makes,
) -> PreparedCall:
    """Return the call for one deployment. Raises InvalidRequest, and APIError if there is no room for its mask."""
    translation, notes = _translate(
        deployment, call_args, deployment.config.defaults, edit=edit, vary=vary, makes=makes
    )
    operation, model = deployment.operation, deployment.config.model
    if not operation.file_fields:
        request, warnings = check_request(operation, model, translation)
    else:
        if size := await bytes_to_decode(operation, translation):
            await reservation.begin_decoding(size)
        try:
            request, warnings = await check(operation, model, translation)
        finally:
            if size:
                reservation.end_decoding(size)
        if size:
            _reserve_masks(operation, translation, request, reservation)
    return PreparedCall(
        deployment=deployment,
        request=request,
        n=translation.n,
        response_format=translation.response_format,
        warnings=(*notes, *warnings),
        cost=operation.cost(request),
    )


def _reserve_masks(
    operation: Operation, translation: Translation, request: Request, reservation: MemoryReservation
) -> None:
    """Reserve the bytes of converted masks, which stay in memory until they are sent. Raises APIError."""
    masks = {name: getattr(request.params, name) for name in operation.roles["mask"] if name in translation.params}
    try:
        reservation.reserve(
            sum(mask.size for name, mask in masks.items() if mask is not translation.params[name] and not mask.on_disk)
        )
    except APIError:
        close_files(request.params)
        raise


def prepare_sync(deployment: Deployment, call_args: CallArguments, *, edit: bool, makes: Makes) -> PreparedCall:
    """Return the call of a batch's line for one deployment; files and masks are read here. Raises InvalidRequest."""
    # How many images a line has, and in which form, is read from the line alone: also when it is not run any more.
    defaults = {
        name: value for name, value in deployment.config.defaults.items() if name not in ("n", "response_format")
    }
    translation, _ = _translate(deployment, call_args, defaults, edit=edit, vary=False, makes=makes)
    request, warnings = check_request(deployment.operation, deployment.config.model, translation)
    return PreparedCall(
        deployment=deployment,
        request=request,
        n=translation.n,
        response_format=translation.response_format,
        warnings=warnings,
        cost=deployment.operation.cost(request),
    )


def _translate(
    deployment: Deployment,
    call_args: CallArguments,
    defaults: Mapping[str, object],
    *,
    edit: bool,
    vary: bool,
    makes: Makes,
) -> tuple[Translation, tuple[str, ...]]:
    operation = deployment.operation
    params = call_args.for_operation(operation)
    notes = _add_variation_defaults(deployment, params) if vary else ()
    translation = translate(
        operation,
        params,
        drop_params=deployment.drop_params,
        defaults=defaults,
        edit=edit,
        makes=makes,
        stream=call_args.stream is True,
    )
    return translation, notes


@attrs.define(eq=False)
class DeploymentCandidates:
    """The call for each deployment of a model that accepts it, in order. ``check`` prepares it for one."""

    _model: Model
    _check: Callable[[Deployment], Awaitable[PreparedCall]]
    untried: list[Deployment]
    _refusals: dict[Deployment, APIError] = attrs.field(factory=dict[Deployment, APIError])

    async def next(self) -> PreparedCall | None:
        """Return the next call, or None if no other deployment accepts it. Raises APIError if none at all does."""
        while self.untried:
            deployment = self.untried.pop(0)
            try:
                return await self._check(deployment)
            except InvalidRequest as error:
                self._refusals[deployment] = invalid_params_error(error, deployment.operation)
        first, *others = self._model.deployments
        if len(self._refusals) == 1 + len(others):
            raise self._refusals[first]
        return None


def _add_variation_defaults(deployment: Deployment, params: dict[str, object]) -> tuple[str, ...]:
    """Add the parameters of a variation. Raises InvalidRequest if the model edits no images."""
    fields = deployment.operation.fields
    if "strength" not in fields or "image" not in deployment.operation.roles:
        raise InvalidRequest([Problem("model", "can't make variations: it does not take an image with a strength")])
    existing = {**deployment.config.defaults, **{name: value for name, value in params.items() if value is not None}}
    defaults = {name: value for name, value in VARIATION_DEFAULTS.items() if name not in existing}
    params.update(defaults)
    return tuple(f"{name} was not given; {value!r} was used" for name, value in defaults.items())


Charge = Callable[[PreparedCall, Callable[[], Awaitable[Result]]], Awaitable[Result]]
"""Runs an attempt within its caller's budget. Raises APIError, and the attempt's errors."""


@attrs.define(eq=False)
class UnfinishedJobs(Exception):
    """A call is over, and its jobs at the provider continue, or their images could not be fetched yet."""

    prepared_call: PreparedCall
    jobs: Sequence[ProviderJob]
    error: ImpastoError


OnJob = Callable[[PreparedCall, Sequence[ProviderJob]], Awaitable[object]]
"""Receives the call that began a new job, and all jobs of the call so far."""


async def execute_with_fallback(
    first: PreparedCall, others: DeploymentCandidates, charge: Charge, spools: AnswerSpools, on_job: OnJob
) -> CallOutcome:
    """Run the call, and fall back to another deployment only if nothing was charged.

    Raises APIError, and UnfinishedJobs.
    """

    async def attempt(prepared_call: PreparedCall, *, waits: bool) -> CallOutcome:
        requests = Attempt(partial(on_job, prepared_call))
        try:
            quote = Quote(prepared_call.cost, prepared_call.warnings)
            call_factory = partial(GatewayCall, spools, quote, requests)
            make_attempt = partial(
                with_queue_timeout,
                prepared_call.deployment.account,
                partial(invoke_deployment, prepared_call, call_factory),
                waits=waits,
            )
            result = await charge(prepared_call, make_attempt)
            if result.errors:
                await salvage.save_unusable(spools.salvage_store, *(failure.error for failure in result.errors))
            return CallOutcome.from_result(result, warnings=prepared_call.warnings, created=spools.created)
        except InvalidRequest as error:  # found as the request was written
            raise invalid_params_error(error, prepared_call.deployment.operation) from None
        except ImpastoError as error:
            await salvage.save_unusable(spools.salvage_store, error)
            is_in_time = spools.job_seconds is None or error.billed == "yes"  # a job may take as long as it is stored
            if requests.jobs and can_be_fetched(error) and is_in_time:
                raise UnfinishedJobs(prepared_call, requests.jobs, error) from None
            raise

    try:
        return await try_each(first, others, attempt)
    except ImpastoError as error:
        failure = to_api_error(error)
    raise failure  # outside the except block: its context would hold the provider's answer


class Candidates(Protocol):
    """The deployments that may run a call, each with the call for it."""

    @property
    def untried(self) -> Sequence[object]:
        """Those that were not tried."""
        ...

    async def next(self) -> PreparedCall | None:
        """Return the call for the next one, or None."""
        ...


class AttemptCall(Protocol[T_co]):
    """Runs a call; ``waits``: retries it after a 429 or a failed connection. Raises ImpastoError."""

    async def __call__(self, prepared_call: PreparedCall, *, waits: bool) -> T_co:
        """Run the prepared call and return its outcome."""
        ...


async def try_each(first: PreparedCall, others: Candidates, attempt: AttemptCall[T_co]) -> T_co:
    """Try a call on one deployment after the other, until one succeeds. Raises the errors of the last attempt.

    First each deployment is asked once, without waiting. Then those that refused with 429 or could not be reached are
    asked again, the one that may send first before the others, and each is retried for as long as its policy says. Of
    those with one key, whose pause ends for all at once, the ones that have not refused come first.
    """
    prepared_call: PreparedCall | None = first
    last_error: ImpastoError | None = None
    delayed_calls: list[tuple[float, int, PreparedCall]] = []  # each with the time at which it may be asked again
    while prepared_call is not None:
        waits = not others.untried and not delayed_calls
        began = time.monotonic()
        try:
            return await attempt(prepared_call, waits=waits)
        except ImpastoError as error:
            if not can_fall_back(error):
                raise
            if isinstance(error, RateLimited | NotSent) and not waits:
                wait = (error.retry_after or 0.0) if isinstance(error, RateLimited) else 0.0
                since = began if isinstance(error, QueueFull) else time.monotonic()  # it was estimated at the beginning
                delayed_calls.append((since + wait, len(delayed_calls), prepared_call))
            last_error = error
        prepared_call = await others.next()
    for _, _, delayed_call in sorted(delayed_calls):
        try:
            return await attempt(delayed_call, waits=True)
        except ImpastoError as error:
            if not can_fall_back(error) or isinstance(error, RateLimited):  # it has waited as long as it may
                raise
            last_error = error
    assert last_error is not None  # noqa: S101 - each deployment failed
    raise last_error


async def invoke_deployment(prepared_call: PreparedCall, call_factory: Callable[..., Call]) -> Result:
    """Run one attempt on its deployment; ``call_factory`` as for ``Client.invoke``. Raises ImpastoError."""
    deployment = prepared_call.deployment
    deployment.running += 1
    try:
        with deployment.observer.record_call(deployment.label, prepared_call.cost) as recorder:
            try:
                result = await deployment.client.invoke(
                    deployment.config.model,
                    prepared_call.request,
                    n=prepared_call.n,
                    base_model=deployment.config.base_model,
                    call=call_factory,
                )
            except ImpastoError as error:
                deployment.price_error(error)
                raise
            if deployment.config.input_cost_per_image is not None:
                result = deployment.apply_price(result)
            recorder.record_result(result)
    except ImpastoError as error:
        deployment.record_failure(error)
        raise
    else:
        deployment.record_success()
        return result
    finally:
        deployment.running -= 1
