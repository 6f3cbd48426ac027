"""The emulated account: requests, charges, the balance, and rate limits."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs

from impasto import Cost
from impasto_plugins.emulator.settings import EmulatorSettings


@attrs.frozen(kw_only=True)
class FilePart:
    """An uploaded file. ``media_type`` is its content's, ``declared`` that of its part; sides in pixels."""

    filename: str
    declared: str
    media_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None


@attrs.define(kw_only=True)
class LogEntry:
    """One request. ``key`` is a short fingerprint; the key itself is stored nowhere. ``time`` in seconds since 1970."""

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
    """One charged image."""

    request_id: str
    operation: str
    target: str
    key: str | None
    credits: float
    usd: float
    seed: int | None
    finish_reason: str
    time: float = attrs.field(factory=time.time)


class InsufficientCredits(Exception):
    """The balance does not cover the price."""


class ChargeLedger:
    """The one account of all keys. The server's thread appends to its lists; any thread may read them."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self.requests: deque[LogEntry] = deque(maxlen=settings.history)
        self.charges: deque[Charge] = deque(maxlen=settings.history)
        self.rates = RateLimiter(settings)
        self.reset()

    def reset(self) -> None:
        """Forget all requests and charges; the balance is as at the start."""
        self.requests.clear()
        self.charges.clear()
        self.rates.reset()
        self.request_count = self.charge_count = 0
        self.credits = self.usd = self._reserved = 0.0

    @property
    def balance(self) -> float:
        """Credits left."""
        return round(self._settings.credits - self.credits, 6)

    def open(self, record: LogEntry) -> LogEntry:
        """Record a request as it arrives."""
        self.requests.append(record)
        self.request_count += 1
        return record

    @contextmanager
    def reserve(self, cost: Cost) -> Iterator[None]:
        """Reserve a price while its image is rendered, so that parallel calls don't overdraw.

        Raises InsufficientCredits.
        """
        amount = cost.credits or 0.0
        if self.balance - self._reserved < amount:
            raise InsufficientCredits
        self._reserved += amount
        try:
            yield
        finally:
            self._reserved = max(0.0, self._reserved - amount)

    def charge(self, record: LogEntry, operation: str, cost: Cost, *, seed: int | None, finish_reason: str) -> None:
        """Book an image."""
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


class RateLimiter:
    """The vendor's limit per key, and its lock-out. Requests during a lock-out are refused and don't lengthen it."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget all keys."""
        self._recent: dict[str | None, deque[float]] = {}
        self._locked_until: dict[str | None, float] = {}
        self._lockouts: dict[str | None, int] = {}
        self.refused_count = 0

    @property
    def lockouts(self) -> int:
        """The number of lock-outs of all keys."""
        return sum(self._lockouts.values())

    @property
    def retrigger_count(self) -> int:
        """The number of lock-outs of keys that had one before."""
        return sum(times - 1 for times in self._lockouts.values())

    def check(self, key: str | None) -> float | None:
        """Count a request; return the seconds for which its key is locked, or None."""
        now, settings = time.monotonic(), self._settings
        if (locked_until := self._locked_until.get(key, 0.0)) > now:
            self.refused_count += 1
            return locked_until - now
        recent = self._recent.setdefault(key, deque())
        while recent and recent[0] <= now - settings.rate_seconds:
            recent.popleft()
        recent.append(now)
        if len(recent) <= settings.rate_requests:
            return None
        recent.clear()
        self._locked_until[key] = now + settings.lock_seconds
        self._lockouts[key] = self._lockouts.get(key, 0) + 1
        self.refused_count += 1
        return settings.lock_seconds


def fingerprint(key: str) -> str:
    """Return a short text that stands for a key in records and answers."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12]
