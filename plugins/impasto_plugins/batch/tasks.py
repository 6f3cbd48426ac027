"""One picture of a batch: what is to be made, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from impasto import Account, Artifact, Cost, ImpastoError, Request

Standing = Literal["done", "refused", "ambiguous", "unusable", "filtered", "expired", "pending"]


@attrs.frozen(kw_only=True, eq=False)
class Unit:
    """One picture that is to be made, or fetched where ``job`` says so, before it ``expires`` (seconds since 1970), of
    the account whose fingerprint begins with ``key``.

    ``content`` is what its row asks for, as the ledger keeps it, ``sha256`` its digest and ``line`` that of the row's
    line; ``n`` how many pictures the row asks for; ``cost`` the most that one of them may cost, None where that is not
    known.
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
    """If it was not asked for: the index of the image whose request the provider answered with this one too."""


def key_of(account: Account) -> str:
    """How the ledger names an account: nobody can tell its key from that."""
    return account.fingerprint[:16]


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one picture of a batch.

    ``state`` is ``done``, ``refused`` (proved: not charged), ``ambiguous`` (it may have been charged), ``unusable``
    (paid for, and no picture in it), ``filtered`` (by moderation), ``expired`` (its job's result), or ``pending``
    (its job goes on, or nothing was sent as the run stopped). ``path`` is where it was saved, in a folder, ``url`` in a
    bucket (``s3://...``); ``cost`` what was charged, or may have been; ``again``: whether another run takes it up.
    """

    id: str
    index: int
    model: str
    state: Standing
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
