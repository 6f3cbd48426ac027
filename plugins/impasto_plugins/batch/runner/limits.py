"""What ends a run before its manifest: a budget, too many failures, a time, an error that all would meet, a signal."""

from __future__ import annotations

import math
import time

import attrs

from impasto import (
    BatchStopped,
    ConfigError,
    ImpastoError,
    PaymentRequired,
    SpendLimitExceeded,
    StorageError,
    Unauthorized,
)
from impasto.ext import Billed, StopReason
from impasto_plugins.batch.classification import STOPPING
from impasto_plugins.batch.tasks import Outcome, Unit

FEWEST = 20
"""How many pictures must be through before a share of them says anything."""

DOUBTS = 20
"""How many pictures in a row may have been charged and not have come, before it is taken for the provider's trouble."""

_ROUNDING = 1e-9


@attrs.frozen
class MostFailures:
    """So many failed pictures, or such a share of those that are through, and no more."""

    number: float
    is_share: bool = False

    @classmethod
    def of(cls, text: str) -> MostFailures:
        """Reads ``20`` or ``5%``. Raises ConfigError."""
        is_share = text.endswith("%")
        digits = text.removesuffix("%")
        number = float(digits) if digits.replace(".", "", 1).isdecimal() and digits.isascii() else math.nan
        if not 0 <= number <= (100 if is_share else 10**9) or (not is_share and number != int(number)):
            raise ConfigError(f"max-failures must be a number such as 20, or a share such as 5%, not {text[:40]!r}")
        return cls(number, is_share)

    def are_met(self, failed: int, through: int) -> bool:
        """Whether it is too many."""
        if not self.is_share:
            return failed > self.number
        return through >= FEWEST and failed * 100 > self.number * through

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.is_share else ''}"


@attrs.define(kw_only=True, eq=False)
class Stops:
    """Decides before each picture whether it may be asked for. ``usd`` is what was spent, ``ends`` a monotonic time."""

    budget: float | None = None
    max_failures: MostFailures | None = None
    ends: float = math.inf
    usd: float = 0.0
    reserved: float = 0.0
    through: int = 0
    failed: int = 0
    doubts: int = 0
    reason: str | None = None
    """Why no further image is requested, for a reader; None while some are."""
    kind: StopReason | None = None
    """The same for a program."""
    cause: ImpastoError | None = None
    """The error that ended the run, if one did."""
    billed: Billed = "no"
    """Charges for the images of this run, as far as they are known."""

    def stop(self, reason: str, kind: StopReason = "interrupted", cause: ImpastoError | None = None) -> None:
        """End the run; images in flight are waited for. The first reason counts."""
        if self.reason is None:
            self.reason, self.kind, self.cause = reason, kind, cause

    def check_time(self) -> None:
        """End the run if its time is over."""
        if time.monotonic() >= self.ends:
            self.stop("the time is over (--deadline)", "deadline")

    def error(self) -> BatchStopped | None:
        """Return the error that ends ``client.batch``, None if nothing stopped it."""
        if self.reason is None or self.kind is None:
            return None
        error = BatchStopped(f"the batch was stopped: {self.reason}", reason=self.kind, billed=self.billed)
        error.__cause__ = self.cause
        return error

    def admits(self, unit: Unit) -> bool:
        """Whether it may be asked for; its price is then set aside until ``settle``."""
        self.check_time()
        if self.reason is not None:
            return False
        price = unit.cost.usd if unit.cost is not None else 0.0
        if self.budget is not None and unit.job is None:
            left = self.budget - self.usd - self.reserved
            if unit.cost is None:
                self.stop(f"the price of {unit.model} is not known, and there is a budget", "budget")
            elif price > left + _ROUNDING:
                self.stop(
                    f"the budget of {self.budget:.2f} USD is used up: {max(left, 0):.4g} is left, and a picture of"
                    f" {unit.model} may cost {price:.4g}",
                    "budget",
                )
        if self.reason is not None:
            return False
        self.reserved += price
        return True

    def release(self, unit: Unit) -> float:
        """Its price is no longer set aside. Returns that."""
        price = unit.cost.usd if unit.cost is not None else 0.0
        self.reserved -= price
        return price

    def settle(self, unit: Unit, outcome: Outcome, *extras: Outcome) -> None:
        """Count an image that is through, and what came besides."""
        self.release(unit)
        self.usd += sum(each.cost.usd for each in (outcome, *extras) if each.cost is not None)
        if isinstance(outcome.error, STOPPING):
            self.stop(str(outcome.error), _kind_of(outcome.error), outcome.error)
        if outcome.state == "pending":
            return
        self.count(outcome)
        if self.doubts >= DOUBTS:
            said = f"{DOUBTS} pictures in a row may have been charged and did not come; see errors.jsonl"
            self.stop(said, "max_failures", outcome.error)
        if self.max_failures is not None and self.max_failures.are_met(self.failed, self.through):
            said = f"{self.failed} of {self.through} pictures failed; --max-failures is {self.max_failures}"
            self.stop(said, "max_failures", outcome.error)

    def count(self, outcome: Outcome) -> None:
        """Count an image that is through."""
        self.through += 1
        self.failed += outcome.state != "done"
        self.doubts = self.doubts + 1 if outcome.state == "ambiguous" else 0
        billed: Billed = outcome.error.billed if outcome.error is not None else "yes"
        if billed != "no" and self.billed != "unknown":
            self.billed = billed


def _kind_of(error: ImpastoError) -> StopReason:
    match error:
        case Unauthorized():
            return "unauthorized"
        case PaymentRequired():
            return "payment"
        case SpendLimitExceeded():
            return "budget"
        case StorageError():
            return "storage"
        case _:
            return "configuration"
