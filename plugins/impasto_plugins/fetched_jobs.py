"""Jobs that are fetched later: their records, and one result for those of a call, which are fetched one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Self

import attrs

from impasto import (
    Artifact,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    FailedArtifact,
    ImpastoError,
    JobFailed,
    Pending,
    PollExpired,
    ResponseError,
    Result,
    UnusableResult,
    Usage,
)
from impasto.ext import Billed, combine_results

_OF_IMAGE = ("seed", "finish_reason", "revised_prompt")


@attrs.frozen(kw_only=True)
class ProviderJob:
    """A job at a provider for ``count`` images of a call. ``place``: the number of the call's images before them.

    ``cost``, ``usage`` and ``images``: what the answer that began it states. If it is fetched later, nobody says that
    again. Each of ``images`` has its ``index`` in that answer, and of an artifact's fields those that are known.
    """

    id: str
    place: int = 0
    count: int = 1
    cost: Cost | None = None
    usage: Usage | None = None
    images: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, pending: Pending, *, place: int = 0, count: int = 1) -> Self:
        """Return the record of a job that was accepted."""
        images = ({"index": each.index, **attrs.asdict(each, filter=_is_statement)} for each in pending.downloads)
        statements = tuple(each for each in images if len(each) > 1)
        return cls(id=pending.id, place=place, count=count, cost=pending.cost, usage=pending.usage, images=statements)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record with these fields, as ``attrs.asdict`` returns them."""
        cost, usage = fields.get("cost"), fields.get("usage")
        records = {
            "cost": Cost(**cost) if cost is not None else None,
            "usage": Usage(**usage) if usage is not None else None,
            "images": tuple(fields.get("images", ())),
        }
        return cls(**{**fields, **records})

    def statements(self) -> dict[str, object]:
        """Return what the answer states, as ``from_json`` takes it; nothing if it states nothing."""
        fields = attrs.asdict(self)
        return {name: fields[name] for name in ("cost", "usage", "images") if fields[name]}

    def completed(self, result: Result) -> Result:
        """Return the job's result with what the answer that began it states."""
        artifacts = result.artifacts
        if self.images:
            of_image = {each["index"]: {name: each[name] for name in _OF_IMAGE if name in each} for each in self.images}
            failed = {each.index for each in result.errors}
            places = (place for place in count() if place not in failed)
            artifacts = tuple(attrs.evolve(each, **of_image.get(next(places), {})) for each in artifacts)
        if result.cost is None and self.cost is not None:
            result = attrs.evolve(result, cost=self.cost, possible_cost=self.cost)
        return attrs.evolve(result, artifacts=artifacts, usage=result.usage or self.usage)


def _is_statement(field: attrs.Attribute[object], value: object) -> bool:
    return field.name in _OF_IMAGE and value is not None


def combine_jobs(
    outcomes: Iterable[tuple[ProviderJob, Result | ImpastoError]], n: int, *, unknown: str, price: Cost | None
) -> Result:
    """Return one result for a call of ``n`` images. ``price``: that of an image.

    Images without a job were asked for: their errors are ChargeUnknown, with the message ``unknown``.
    """
    parts: list[tuple[Result | ImpastoError, int]] = []
    place = 0
    for job, outcome in sorted(outcomes, key=lambda pair: pair[0].place):
        if job.place > place:
            parts.append((ChargeUnknown(unknown), job.place - place))
        parts.append((outcome, job.count))
        place = job.place + job.count
    if n > place:
        parts.append((ChargeUnknown(unknown), n - place))
    return combine_results(parts, price=lambda: price)


def ends_job(error: ImpastoError) -> bool:
    """Return True for the provider's word on a job's end. After any other error it can be fetched."""
    is_end = isinstance(error, ContentFiltered | JobFailed | PollExpired | UnusableResult)
    return is_end or (isinstance(error, ResponseError) and error.billed == "no")


def open_jobs(jobs: Iterable[ProviderJob], result: Result) -> list[ProviderJob]:
    """Return the jobs that may still bring images which a result lacks."""
    ids = {each.error.id for each in result.errors if not ends_job(each.error)}
    return [job for job in jobs if not ids.isdisjoint({job.id, *job.id.split(" ")})]  # an image's own address too


def with_later_images(
    result: Result, outcomes: Iterable[tuple[ProviderJob, Result | ImpastoError]], *, price: Cost | None
) -> Result:
    """Return the result of a call with what its jobs brought later, in the places of their errors.

    ``price``: that of an image.
    """
    ends, cost, possible, usage = _in_order(result), result.cost, result.possible_cost, result.usage
    for job, outcome in outcomes:
        parts = [outcome] * job.count if isinstance(outcome, ImpastoError) else _in_order(outcome)
        pairs = [(place, part) for place, part in enumerate(parts, job.place) if _is_open(ends, place)]
        unknown = [part for place, part in pairs if _billed(ends[place]) == "unknown"]
        for place, part in pairs:
            ends[place] = part
        charged, free = (sum(_billed(part) == billed for part in unknown) for billed in ("yes", "no"))
        if isinstance(outcome, Result) and charged == job.count:
            usage = usage + outcome.usage if usage is not None and outcome.usage is not None else None
            more = outcome.cost
        elif job.cost is not None and len(pairs) < job.count:
            continue  # the cost of all its images is in the result's, with those that came before
        else:
            more = price.times(charged) if price is not None else None
        if price is not None and more is not None and cost is not None and possible is not None:
            cost, possible = cost + more, possible + more + price.times(-charged - free)
    errors = ((place, each) for place, each in enumerate(ends) if isinstance(each, ImpastoError))
    return attrs.evolve(
        result,
        artifacts=tuple(each for each in ends if isinstance(each, Artifact)),
        errors=tuple(FailedArtifact(index=place, error=each) for place, each in errors),
        cost=cost,
        possible_cost=possible,
        usage=usage,
    )


def _in_order(result: Result) -> list[Artifact | ImpastoError]:
    """Return the images of a result and the errors that stand for others, each in its place."""
    errors, came = {each.index: each.error for each in result.errors}, iter(result.artifacts)
    ends = (errors.get(place) or next(came, None) for place in range(len(result.artifacts) + len(errors)))
    return [each for each in ends if each is not None]


def _is_open(ends: list[Artifact | ImpastoError], place: int) -> bool:
    end = ends[place] if place < len(ends) else None
    return isinstance(end, ImpastoError) and not ends_job(end)


def _billed(end: Artifact | ImpastoError) -> Billed:
    return end.billed if isinstance(end, ImpastoError) else "yes"
