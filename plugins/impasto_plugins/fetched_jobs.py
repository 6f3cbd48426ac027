"""One result for the jobs of a call, which were fetched one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from impasto import ChargeUnknown, Cost, ImpastoError, Result
from impasto.ext import combine_results


class JobPart(Protocol):
    """A job for some images of a call."""

    @property
    def place(self) -> int:
        """The number of the call's images before those of the job."""
        ...

    @property
    def count(self) -> int:
        """The number of the job's images."""
        ...


def combine_jobs(
    outcomes: Iterable[tuple[JobPart, Result | ImpastoError]], n: int, *, unknown: str, price: Cost | None
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
