"""Conditions that end a run early: a budget, too many failures, a time, an error that all would meet, a signal."""

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
from impasto_plugins.batch.tasks import ImageTask, Outcome

MIN_FINISHED = 20
"""Finished images from which a share of failures counts."""

MAX_CONSECUTIVE_UNKNOWN = 20
"""Images in a row that may have been charged and did not come, before the run stops: the provider has a problem."""

_ROUNDING = 1e-9


@attrs.frozen
class FailureLimit:
    """The most failed images: a number, or a share of the finished ones."""

    number: float
    is_share: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Parse ``20`` or ``5%``. Raises ConfigError."""
        is_share = text.endswith("%")
        digits = text.removesuffix("%")
        number = float(digits) if digits.replace(".", "", 1).isdecimal() and digits.isascii() else math.nan
        if not 0 <= number <= (100 if is_share else 10**9) or (not is_share and number != int(number)):
            raise ConfigError(f"max-failures must be a number such as 20, or a share such as 5%, not {text[:40]!r}")
        return cls(number, is_share)

    def is_exceeded(self, failed: int, through: int) -> bool:
        """Return True if there are too many failures."""
        if not self.is_share:
            return failed > self.number
        return through >= MIN_FINISHED and failed * 100 > self.number * through

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.is_share else ''}"


@attrs.define(kw_only=True, eq=False)
class StopConditions:
    """Decides before each image if it may be requested. ``usd`` is the money spent, ``ends_at`` a monotonic time."""

    budget: float | None = None
    max_failures: FailureLimit | None = None
    ends_at: float = math.inf
    usd: float = 0.0
    reserved: float = 0.0
    finished: int = 0
    failed: int = 0
    consecutive_unknown: int = 0
    reason: str | None = None
    """The reason why no further image is requested, in words; None while some are."""
    kind: StopReason | None = None
    """The reason as a word for programs."""
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
        if time.monotonic() >= self.ends_at:
            self.stop("the --deadline is over", "deadline")

    def error(self) -> BatchStopped | None:
        """Return the error that ends ``client.batch``, None if nothing stopped it."""
        if self.reason is None or self.kind is None:
            return None
        error = BatchStopped(f"the batch was stopped: {self.reason}", reason=self.kind, billed=self.billed)
        error.__cause__ = self.cause
        return error

    def try_reserve(self, unit: ImageTask) -> bool:
        """Return True if an image may be requested; its price is then reserved until ``settle``."""
        self.check_time()
        if self.reason is not None:
            return False
        price = price_of(unit)
        if self.budget is not None and unit.job is None:
            left = self.budget - self.usd - self.reserved
            if unit.cost is None:
                self.stop(
                    f"{unit.id}: the price of {unit.model} is unknown for these parameters, so no budget can be kept;"
                    " leave the budget out, or use a model whose plugin estimates a price",
                    "budget",
                )
            elif price > left + _ROUNDING:
                self.stop(over_budget(self.budget, left, unit), "budget")
        if self.reason is not None:
            return False
        self.reserved += price
        return True

    def release(self, unit: ImageTask) -> float:
        """Release its reserved price and return it."""
        price = price_of(unit)
        self.reserved -= price
        return price

    def settle(self, unit: ImageTask, *outcomes: Outcome) -> None:
        """Count the finished images of a request, and extra ones of the same answer behind them."""
        self.release(unit)
        self.usd += sum(each.cost.usd for each in outcomes if each.cost is not None)
        for outcome in outcomes[: len(unit.images)]:
            self._count_finished(outcome)

    def _count_finished(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, STOPPING):
            self.stop(str(outcome.error), _kind_of(outcome.error), outcome.error)
        if outcome.state == "pending":
            return
        self.count(outcome)
        if self.consecutive_unknown >= MAX_CONSECUTIVE_UNKNOWN:
            reason = (
                f"{MAX_CONSECUTIVE_UNKNOWN} images in a row may have been charged but did not come; see errors.jsonl"
            )
            self.stop(reason, "max_failures", outcome.error)
        if self.max_failures is not None and self.max_failures.is_exceeded(self.failed, self.finished):
            reason = f"{self.failed} of {self.finished} images failed; --max-failures is {self.max_failures}"
            self.stop(reason, "max_failures", outcome.error)

    def count(self, outcome: Outcome) -> None:
        """Count a finished image."""
        self.finished += 1
        self.failed += outcome.state != "done"
        self.consecutive_unknown = self.consecutive_unknown + 1 if outcome.state == "ambiguous" else 0
        billed: Billed = outcome.error.billed if outcome.error is not None else "yes"
        if billed != "no" and self.billed != "unknown":
            self.billed = billed


def over_budget(budget: float, left: float, unit: ImageTask) -> str:
    """Return the reason why a task's images are not requested."""
    return (
        f"the budget of {budget:.2f} USD is used up: {max(left, 0):.4g} is left, and {_images_in_words(unit)} of"
        f" {unit.model} may cost {price_of(unit):.4g}"
    )


def price_of(unit: ImageTask) -> float:
    """Return the most that a task's images may cost, as far as it is known."""
    return unit.cost.usd * len(unit.images) if unit.cost is not None else 0.0


def _images_in_words(unit: ImageTask) -> str:
    return "an image" if not unit.others else f"a request for {len(unit.images)} images"


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
