"""Jobs that are fetched later: their records, and one result for those of a call, which are fetched one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Self

import attrs

from impasto import ChargeUnknown, Cost, ImpastoError, Pending, Result, Usage
from impasto.ext import combine_results

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
