"""What happened here: every request, every charge, what is left, and who asked too fast."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs

from impasto import Cost
from impasto_plugins.emulator.settings import Settings


@attrs.frozen(kw_only=True)
class FilePart:
    """A file as it arrived. ``media_type`` is its content's, ``declared`` what its part said; sides in pixels."""

    filename: str
    declared: str
    media_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None


@attrs.define(kw_only=True)
class Record:
    """One request. ``key`` is a short fingerprint; the key itself is kept nowhere. ``time`` in seconds since 1970."""

    id: str
    method: str
    target: str
    key: str | None
    headers: Mapping[str, str]
    time: float = attrs.field(factory=time.time)
    fields: Mapping[str, str] = attrs.field(factory=dict)
    files: Mapping[str, FilePart] = attrs.field(factory=dict)
    status: int | None = None
    seconds: float | None = None
    fault: str | None = None
    charged: float | None = None
    id_header: str = "x-request-id"


@attrs.frozen(kw_only=True)
class Charge:
    """One picture that was charged."""

    request_id: str
    operation: str
    target: str
    key: str | None
    credits: float
    usd: float
    seed: int | None
    finish_reason: str
    time: float = attrs.field(factory=time.time)


class NoCredits(Exception):
    """The balance does not cover the price."""


class Account:
    """The one account behind all keys. Lists are appended to in the server's thread and may be read in any."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.requests: deque[Record] = deque(maxlen=settings.history)
        self.charges: deque[Charge] = deque(maxlen=settings.history)
        self.rates = Rates(settings)
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the balance is as at the start."""
        self.requests.clear()
        self.charges.clear()
        self.rates.reset()
        self.request_count = self.charge_count = 0
        self.credits = self.usd = self._held = 0.0

    @property
    def balance(self) -> float:
        """Credits left."""
        return round(self._settings.credits - self.credits, 6)

    def open(self, record: Record) -> Record:
        """Lists a request as it arrives."""
        self.requests.append(record)
        self.request_count += 1
        return record

    @contextmanager
    def hold(self, cost: Cost) -> Iterator[None]:
        """Sets a price aside while its picture is made, so that calls side by side don't overdraw. Raises NoCredits."""
        credits = cost.credits or 0.0
        if self.balance - self._held < credits:
            raise NoCredits
        self._held += credits
        try:
            yield
        finally:
            self._held = max(0.0, self._held - credits)

    def charge(self, record: Record, operation: str, cost: Cost, *, seed: int | None, finish_reason: str) -> None:
        """Books a picture."""
        charge = Charge(
            request_id=record.id,
            operation=operation,
            target=record.target,
            key=record.key,
            credits=cost.credits or 0.0,
            usd=cost.usd,
            seed=seed,
            finish_reason=finish_reason,
        )
        record.charged = charge.credits
        self.charges.append(charge)
        self.charge_count += 1
        self.credits = round(self.credits + charge.credits, 6)
        self.usd = round(self.usd + charge.usd, 6)


class Rates:
    """The vendor's limit per key, and its lock-out. What comes during a lock-out is refused and doesn't lengthen it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets all keys."""
        self._recent: dict[str | None, deque[float]] = {}
        self._locked: dict[str | None, float] = {}
        self._lockouts: dict[str | None, int] = {}
        self.refused = 0

    @property
    def lockouts(self) -> int:
        """How often a key was locked out."""
        return sum(self._lockouts.values())

    @property
    def retriggered(self) -> int:
        """How often a key was locked out that had been before."""
        return sum(times - 1 for times in self._lockouts.values())

    def locked(self, key: str | None) -> float | None:
        """Counts a request; seconds for which its key is locked out, None where it may pass."""
        now, settings = time.monotonic(), self._settings
        if (until := self._locked.get(key, 0.0)) > now:
            self.refused += 1
            return until - now
        recent = self._recent.setdefault(key, deque())
        while recent and recent[0] <= now - settings.rate_seconds:
            recent.popleft()
        recent.append(now)
        if len(recent) <= settings.rate_requests:
            return None
        recent.clear()
        self._locked[key] = now + settings.lock_seconds
        self._lockouts[key] = self._lockouts.get(key, 0) + 1
        self.refused += 1
        return settings.lock_seconds


def fingerprint(key: str) -> str:
    """What stands for a key wherever one is shown."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12]
