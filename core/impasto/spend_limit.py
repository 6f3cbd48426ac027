"""The client's own spend limit: reserved before a call is sent, settled after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .charges import billed_of_images
from .errors import ImpastoError, SpendLimitExceeded
from .records import Result

if TYPE_CHECKING:
    from .call import Call

_DIGITS = 10
"""Digits of a dollar that sums are compared by: 0.1 and 0.2 are 0.3, though not in binary."""


class Spend:
    """The money that a client and its siblings spent, and the most that their calls in flight may still cost."""

    def __init__(self) -> None:
        self.usd = 0.0
        """USD that were charged, or possibly charged, so far."""
        self.reserved = 0.0

    @contextmanager
    def reserve(self, call: Call, limit: float) -> Iterator[Callable[[Result], None]]:
        """Reserve the most that a call may cost while it runs; then count all that is not proved free as spent.

        Yields a function that takes the call's result and counts its possible cost. Raises SpendLimitExceeded before
        anything is sent.
        """
        price, count = call.price, call.request.count
        if price is None:
            raise SpendLimitExceeded(
                "its price is unknown for these parameters, and spend_limit_usd is set; nothing was sent"
            )
        most = call.retry.max_charges if call.retry.on_ambiguous else 1
        maximum = round(price.usd * count * most, _DIGITS)
        left = max(round(limit - self.usd - self.reserved, _DIGITS), 0)
        if maximum > left:
            raise SpendLimitExceeded(
                f"a call may cost {maximum:g} USD, only {left:g} of spend_limit_usd={limit:g} is left; nothing was sent"
            )
        self.reserved += maximum
        usd = 0.0

        def settle(result: Result) -> None:
            nonlocal usd
            usd = result.possible_cost.usd if result.possible_cost is not None else maximum

        try:
            yield settle
        except ImpastoError as error:
            charged = count - billed_of_images(error, count).count("no")
            usd = 0.0 if error.billed == "no" else price.usd * (charged + call.unknown_attempts * count)
            raise
        except BaseException:  # cancelled, or a plugin's: the call's own evidence says if anything was sent
            usd = price.usd * count * call.possible_charges
            raise
        finally:
            self.reserved -= maximum
            self.usd += usd
