"""A sliding window over the requests of one key, counted as the provider counts them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from impasto import RateLimit

MIN_HISTORY = 1_000
"""Requests that are remembered at least, so that a client with a wider limit than the others can count them."""


def slack(limit: RateLimit) -> float:
    """Return the longest time in seconds that a request can take to arrive once all of it is written."""
    return 0.1 + 0.04 * limit.seconds


@attrs.define(eq=False)
class Permit:
    """Permission for one request.

    ``slack``: seconds after writing it at which the provider has counted it for certain.
    """

    slack: float
    is_counted: bool = False


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

    def try_acquire(self, limit: RateLimit, now: float) -> Permit | float:
        """Return a permit if a request may go now, otherwise the seconds to wait before the next try."""
        self._history_length = max(self._history_length, limit.requests)
        self._count_overdue(now)
        arrivals, free = self._arrivals, limit.requests - self._not_counted
        if free <= 0:
            # Uploads hold every place. The next one is free when a request is counted, which none may be near to.
            return self._in_transit[0][0] - now if self._in_transit else slack(limit)
        # One more request fits once the ``free``-th newest arrival is a window old.
        if len(arrivals) >= free and (wait := arrivals[-free] + limit.seconds - now) > 0:
            return wait
        self._not_counted += 1
        return Permit(slack(limit))

    def estimate_wait(self, limit: RateLimit, ahead: int, now: float) -> float:
        """Return about how many seconds pass until a request may go that has so many ahead of it."""
        # Seconds until each place of the window is free again; those without an arrival yet count as arriving late.
        places = [when + limit.seconds - now for when in self._arrivals if when + limit.seconds > now]
        places += [slack(limit) + limit.seconds] * self._not_counted
        free = limit.requests - len(places)
        if ahead < free:
            return 0.0
        places += [limit.seconds] * free  # taken now, by the first of those ahead
        # Each place is taken again as soon as it is free, so the queue moves one window in each round.
        rounds, place = divmod(ahead - free, limit.requests)
        return rounds * limit.seconds + sorted(places)[place]

    def mark_written(self, permit: Permit, now: float) -> None:
        """Note that all of the request was written."""
        self._in_transit.append((now + permit.slack, permit))

    def mark_arrived(self, permit: Permit, now: float) -> None:
        """Note that the request has arrived. Counting it twice changes nothing."""
        self._count_overdue(now)
        self._count(permit, now)

    def release(self, permit: Permit) -> None:
        """Take back the permit of a request that never left."""
        if not permit.is_counted:
            permit.is_counted = True
            self._not_counted -= 1

    def restore_history(self, times: Iterable[float]) -> None:
        """Count requests of an earlier process, each at its time."""
        self._arrivals = deque(sorted((*self._arrivals, *times))[-self._history_length :])

    def _count_overdue(self, now: float) -> None:
        """Count each request in transit at the time by which it must have arrived."""
        in_transit = self._in_transit
        while in_transit and (in_transit[0][1].is_counted or in_transit[0][0] <= now):
            due, permit = in_transit.popleft()
            self._count(permit, due)

    def _count(self, permit: Permit, when: float) -> None:
        if not permit.is_counted:
            self.release(permit)
            # ``arrivals`` stays sorted: a request that was due earlier may be noticed later.
            last = self._arrivals[-1] if self._arrivals else when
            self._arrivals.append(max(when, last))
            if len(self._arrivals) > self._history_length:
                self._arrivals.popleft()
