"""One image of a batch: its request and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from impasto import Account, Artifact, Cost, ImpastoError, Request

OutcomeState = Literal["done", "refused", "ambiguous", "unusable", "filtered", "expired", "pending"]


@attrs.frozen(kw_only=True, eq=False)
class ImageTask:
    """One image to generate, or to fetch if ``job`` is set, before ``expires`` (seconds since 1970).

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
    expires: float | None = None
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


def key_of(account: Account) -> str:
    """Return the ledger's name of an account, which does not reveal its key."""
    return account.fingerprint[:16]


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of one image of a batch.

    ``state`` is ``done``, ``refused`` (proved: not charged), ``ambiguous`` (it may have been charged), ``unusable``
    (paid, without a usable image), ``filtered`` (by moderation), ``expired`` (its job's result), or ``pending`` (its
    job continues, or nothing was sent because the run stopped). ``path`` is its file in a folder, ``url`` in a bucket
    (``s3://...``); ``cost`` its certain or possible charge; ``again``: another run requests it.
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
    errors: tuple[ImpastoError, ...] = attrs.field(default=(), repr=False)
    """Errors of further images in the same answer, which did not come."""
