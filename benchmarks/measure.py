"""Pairs of measurements. Machines are shared and drift, so only what was measured side by side is compared."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable

import attrs


@attrs.frozen(kw_only=True)
class Ratio:
    """Ours over the floor: the median of the pairs, with their quartiles. The target is ``most`` or ``least``, or none.

    ``ours`` and ``floor`` are medians in ``unit``, for orientation: they drift, the ratio holds.
    """

    name: str
    ratio: float
    low: float
    high: float
    most: float | None
    ours: float
    floor: float
    unit: str
    pairs: int
    least: float | None = None

    @property
    def held(self) -> bool:
        """Whether the target is met; true where there is none."""
        return (self.most is None or self.ratio <= self.most) and (self.least is None or self.ratio >= self.least)


def compared(
    name: str, pairs: list[tuple[float, float]], *, unit: str, most: float | None = None, least: float | None = None
) -> Ratio:
    """The ratio of (ours, floor) pairs."""
    ratios = [ours / floor for ours, floor in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    return Ratio(
        name=name,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        most=most,
        ours=statistics.median(ours for ours, _ in pairs),
        floor=statistics.median(floor for _, floor in pairs),
        unit=unit,
        pairs=len(pairs),
        least=least,
    )


async def in_pairs(
    ours: Callable[[], Awaitable[float]], floor: Callable[[], Awaitable[float]], rounds: int, *, warm: bool = True
) -> list[tuple[float, float]]:
    """Measures both, ``rounds`` times, first ours then the floor and the other way round in turn.

    ``warm``: once each before that, to fill caches and open connections.
    """
    if warm:
        await ours()
        await floor()
    pairs = []
    for index in range(rounds):
        if index % 2:
            second, first = await floor(), await ours()
        else:
            first, second = await ours(), await floor()
        pairs.append((first, second))
    return pairs
