"""A sliding window over the requests of one key, counted as the provider counts them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import attrs

from impasto import RateLimit

MIN_HISTORY = 1_000
"""Requests that are remembered at least, so that a client with a wider limit than the others can count them."""


def slack(limit: RateLimit) -> float:
    """Return the longest time in seconds that a request can take to arrive once all of it is written."""
    return 0.1 + 0.04 * limit.seconds


def wait_for_place(limit: RateLimit, free: int, last: float | None, next_due: float, now: float) -> float:
    """Return the seconds to wait before the next try of a request, 0 if it may go now.

    ``free``: the places that no permit holds. ``last``: the time of the ``free``-th newest arrival, if there are so
    many. ``next_due``: the time by which the first request in transit must have arrived.
    """
    if free <= 0:
        # Uploads hold every place. The next one is free when a request is counted, which none may be near to.
        return next_due - now if next_due < math.inf else slack(limit)
    # One more request fits once the ``free``-th newest arrival is a window old.
    return 0.0 if last is None else max(last + limit.seconds - now, 0.0)


def estimate_wait(limit: RateLimit, ahead: int, now: float, arrivals: Iterable[float], not_counted: int) -> float:
    """Return about how many seconds pass until a request may go that has so many ahead of it."""
    # Seconds until each place of the window is free again; those without an arrival yet count as arriving late.
    places = [when + limit.seconds - now for when in arrivals if when + limit.seconds > now]
    places += [slack(limit) + limit.seconds] * not_counted
    free = limit.requests - len(places)
    if ahead < free:
        return 0.0
    places += [limit.seconds] * free  # taken now, by the first of those ahead
    # Each place is taken again as soon as it is free, so the queue moves one window in each round.
    rounds, place = divmod(ahead - free, limit.requests)
    return rounds * limit.seconds + sorted(places)[place]


@attrs.define(eq=False)
class Permit:
    """Permission for one request.

    ``slack``: seconds after writing it at which the provider has counted it for certain. ``number``: its name in a
    window that processes share. ``key``: that of a window in a store.
    """

    slack: float
    is_counted: bool = False
    number: int = 0
    key: str = ""


class Window:
    """A sliding window as the provider sees it: a request counts when it arrives, not when it was permitted.

    The moment of arrival is unknown, but it is before the answer. So a request is counted at its answer, or ``slack``
    seconds after all of it was written if the answer takes longer (a generation takes many seconds). The time to
    connect and to upload is not known in advance, so until then its permit holds a place.
    """

    def __init__(self) -> None:
        self._not_counted = 0
        self._in_transit: deque[tuple[float, Permit]] = deque()
        """Requests that are written, with the time by which each must have arrived."""
        self._arrivals: deque[float] = deque()
        """Times of the requests that are counted, oldest first."""
        self._history_length = MIN_HISTORY
        self.paused_until = 0.0
        """The end of the last pause."""
        self.had_429 = False
        """True if the provider has refused a request of this key for its rate."""

    def try_acquire(self, limit: RateLimit, now: float) -> Permit | float:
        """Return a permit if a request may go now, otherwise the seconds to wait before the next try."""
        self._history_length = max(self._history_length, limit.requests)
        self._count_overdue(now)
        arrivals, free = self._arrivals, limit.requests - self._not_counted
        next_due = self._in_transit[0][0] if self._in_transit else math.inf
        last = arrivals[-free] if 0 < free <= len(arrivals) else None
        if (wait := wait_for_place(limit, free, last, next_due, now)) > 0:
            return wait
        self._not_counted += 1
        return Permit(slack(limit))

    def estimate_wait(self, limit: RateLimit, ahead: int, now: float) -> float:
        """Return about how many seconds pass until a request may go that has so many ahead of it."""
        return estimate_wait(limit, ahead, now, self._arrivals, self._not_counted)

    def mark_written(self, permit: Permit, now: float) -> None:
        """Note that all of the request was written."""
        self._in_transit.append((now + permit.slack, permit))

    def mark_arrived(self, permit: Permit, now: float) -> None:
        """Note that the request has arrived. Counting it twice changes nothing."""
        self._count_overdue(now)
        self._count(permit, now)

    def release(self, permit: Permit, now: float) -> None:
        """Take back the permit of a request that never left."""
        if not permit.is_counted:
            permit.is_counted = True
            self._not_counted -= 1

    def restore_history(self, times: Iterable[float], now: float) -> None:
        """Count requests of an earlier process, each at its time."""
        self._arrivals = deque(sorted((*self._arrivals, *times))[-self._history_length :])

    def pause(self, until: float, now: float) -> None:
        """Let nothing go until this time, and hold a key without a limit to its provider's from now on."""
        self.paused_until = max(self.paused_until, until)
        self.had_429 = True

    def _count_overdue(self, now: float) -> None:
        """Count each request in transit at the time by which it must have arrived."""
        in_transit = self._in_transit
        while in_transit and (in_transit[0][1].is_counted or in_transit[0][0] <= now):
            due, permit = in_transit.popleft()
            self._count(permit, due)

    def _count(self, permit: Permit, when: float) -> None:
        if not permit.is_counted:
            self.release(permit, when)
            # ``arrivals`` stays sorted: a request that was due earlier may be noticed later.
            last = self._arrivals[-1] if self._arrivals else when
            self._arrivals.append(max(when, last))
            if len(self._arrivals) > self._history_length:
                self._arrivals.popleft()
