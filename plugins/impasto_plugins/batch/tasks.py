"""One image of a batch, or the images of one request: what is asked for, and the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import attrs

from impasto import Account, Artifact, Cost, ImpastoError, NotSent, Request, Usage
from impasto_plugins.fetched_jobs import ProviderJob

OutcomeState = Literal["done", "refused", "ambiguous", "unusable", "filtered", "expired", "pending"]


@attrs.frozen(kw_only=True, eq=False)
class ImageTask:
    """One image to generate, or to fetch if ``job`` is set.

    ``key`` is the beginning of the account's fingerprint. ``content`` is its row's request as the ledger stores it,
    ``sha256`` its digest and ``line`` that of the row's line; ``n`` the number of images of the row; ``cost`` the most
    that one of them may cost, None if unknown.
    """

    id: str
    index: int
    n: int
    model: str
    base_model: str | None = None
    request: Request | None = None
    job: str | None = None
    key: str = ""
    is_kept: bool = True
    """False if the provider has deleted the job's result by now."""
    timeout: float | None = None
    cost: Cost | None = None
    content: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    sha256: str = ""
    line: int = 0
    position: int = 0
    """The number of the row's line in its manifest, or of its request."""
    warnings: tuple[str, ...] = ()
    extra: int | None = None
    """For an extra image: the index of the image whose request it came with."""
    native_maximum: int = 1
    """The most images of its row that one request can ask for."""
    place: int = 0
    """The number of images before it in the answer to its request."""
    requested: int = 1
    """The number of images that its request asks for."""
    statements: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    """What the answer that began its job states, see ``ProviderJob``."""
    others: tuple[ImageTask, ...] = attrs.field(default=(), repr=False)
    """The further images of the same request."""

    @property
    def provider_job(self) -> ProviderJob | None:
        """The job to fetch, None if it is to be requested."""
        if self.job is None:
            return None
        return ProviderJob.from_json({"id": self.job, "count": self.requested, **self.statements})

    @property
    def images(self) -> tuple[ImageTask, ...]:
        """All images of its request that are still to come, itself the first."""
        return (self, *self.others)


def join_tasks(tasks: Iterable[ImageTask]) -> Iterator[ImageTask]:
    """Join images of one row with successive indices into requests of as many as the provider allows.

    Their seeds count up with the indices, as those of one request do.
    """
    joined: list[ImageTask] = []
    for task in tasks:
        if joined and (len(joined) == task.native_maximum or task.index != joined[-1].index + 1):
            yield join_request(joined)
            joined = []
        joined.append(task)
    if joined:
        yield join_request(joined)


def join_shared_tasks(tasks: Iterable[ImageTask], states: Iterable[int]) -> Iterator[ImageTask]:
    """Join images of one row into the requests that every host of a shared batch would make.

    ``states``: the number of each image's state, 0 for a new one. A request has new images alone, and begins at a
    multiple of what the provider allows: so two requests with one image in both begin with the same image.
    """
    joined: list[ImageTask] = []
    for task, state in zip(tasks, states, strict=True):
        if joined and (state or not task.index % task.native_maximum or task.index != joined[-1].index + 1):
            yield join_request(joined)
            joined = []
        if state:
            yield task
        else:
            joined.append(task)
    if joined:
        yield join_request(joined)


def join_request(tasks: list[ImageTask]) -> ImageTask:
    """Return the task of one request for all these images."""
    if len(tasks) == 1:
        return tasks[0]
    count = len(tasks)
    first, *others = (attrs.evolve(task, place=place, requested=count) for place, task in enumerate(tasks))
    return attrs.evolve(first, others=tuple(others))


def join_jobs(tasks: Iterable[ImageTask]) -> Iterator[ImageTask]:
    """Join the images of one job, as they came with one request."""
    jobs: dict[tuple[str, str | None], list[ImageTask]] = {}
    for task in tasks:
        jobs.setdefault((task.id, task.job), []).append(task)
    for first, *others in jobs.values():
        yield attrs.evolve(first, others=tuple(others))


def key_of(account: Account) -> str:
    """Return the ledger's name of an account, which does not reveal its key."""
    return account.fingerprint[:16]


class TakenByAnotherHost(NotSent):
    """A request that another host of a shared batch sends, or has sent."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of one image of a batch.

    ``state`` is ``done``, ``refused`` (proved: not charged), ``ambiguous`` (it may have been charged), ``unusable``
    (paid, without a usable image), ``filtered`` (by moderation), ``expired`` (its job's result), or ``pending`` (its
    job continues, its image could not be fetched yet, or nothing was sent because the run stopped). ``path`` is its
    file in a folder, ``url`` in a bucket (``s3://...``); ``cost`` its certain or possible charge; ``again``: another
    run requests it.
    """

    id: str
    index: int
    model: str
    state: OutcomeState
    artifact: Artifact | None = None
    path: Path | None = None
    url: str | None = None
    error: ImpastoError | None = None
    cost: Cost | None = None
    request_id: str | None = None
    warnings: tuple[str, ...] = ()
    again: bool = False
    usage: Usage | None = None
    """The tokens of its whole request; the first image of an answer has it."""
    errors: tuple[ImpastoError, ...] = attrs.field(default=(), repr=False)
    """Errors of further images in the same answer, which did not come."""
