"""Checks of the budgets."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

from impasto.state_records import LimitReached, Reservation, Use
from impasto.states import StateStore
from impasto.testing.watch import check

from .subject import StateSubject, at_once

_KEY, _OTHER_KEY = b"k\0" * 16, b"l" * 32
_TASKS, _ROOM = 50, 10
_DAY = 86_400
_LARGE = 10**15
"""A million dollars in billionths."""


def images(amount: int = 1, limit: int | None = None) -> Use:
    """Return a use of images in a day."""
    return Use(what="images", period="day", amount=amount, limit=limit)


def requests(limit: int | None = None) -> Use:
    """Return a use of a request in a minute."""
    return Use(what="requests", period="minute", amount=1, limit=limit)


async def reserved(state: StateStore, *uses: Use) -> Reservation:
    """Return the reservation of uses that have room."""
    reservation = await state.budgets.reserve(_KEY, uses)
    assert isinstance(reservation, Reservation), f"a use with room was refused: {reservation}"
    return reservation


async def refused(state: StateStore, *uses: Use) -> LimitReached:
    """Return the refusal of uses, of which one has no room."""
    refusal = await state.budgets.reserve(_KEY, uses)
    assert isinstance(refusal, LimitReached), "a use beyond its limit was not refused"
    return refusal


class BudgetChecks(StateSubject):
    """Checks of budgets: reserved, settled, refused, and their periods."""

    @check
    def test_uses_are_counted_together_or_not_at_all(self, address: str) -> None:
        """Check that the refusal of one use counts none of the others."""

        async def work(state: StateStore) -> None:
            money = Use(what="usd", period="month", amount=_LARGE, limit=2 * _LARGE)
            total = Use(what="images", period="ever", amount=2, limit=5)
            await reserved(state, requests(), images(2), money, total)
            await reserved(state, requests(), images(2), money, total)
            await refused(state, requests(), images(2), money, total)
            used = [
                await state.budgets.used(_KEY, "requests", "minute"),
                await state.budgets.used(_KEY, "images", "day"),
                await state.budgets.used(_KEY, "usd", "month"),
                await state.budgets.used(_KEY, "images", "ever"),
            ]
            assert used == [2, 4, 2 * _LARGE, 4], f"two reservations and a refusal count as {used}"

        self.use(address, work)

    @check
    def test_keys_names_and_periods_are_counted_apart(self, address: str) -> None:
        """Check that one key's use is not another's, and one name's or period's not another's."""

        async def work(state: StateStore) -> None:
            await reserved(state, images(3))
            assert await state.budgets.used(_OTHER_KEY, "images", "day") == 0, "a key has the use of another"
            assert await state.budgets.used(_KEY, "files", "day") == 0, "a name has the use of another"
            assert await state.budgets.used(_KEY, "images", "month") == 0, "a period has the use of another"

        self.use(address, work)

    @check
    def test_a_limit_is_reached_exactly(self, address: str) -> None:
        """Check the last use that has room, and the refusal after it: the use, what is left, when there is room."""

        async def work(state: StateStore) -> None:
            await reserved(state, images(3, limit=4))
            refusal = await refused(state, requests(limit=9), images(2, limit=4), images(2, limit=1))
            now = await state.now()
            day_end = (math.floor(now / _DAY) + 1) * _DAY
            assert refusal.use == images(2, limit=4), "the refusal has another use, not the first without room"
            assert refusal.left == 1, f"1 image is left of the day, not {refusal.left}"
            assert refusal.ends == day_end, "a day ends at midnight, UTC"
            assert 0 < refusal.seconds <= _DAY, f"a day ends in {refusal.seconds:g} s"
            assert abs(refusal.seconds - (day_end - now)) < self.seconds * 4, "the seconds do not lead to its end"
            await reserved(state, images(1, limit=4))
            assert (await refused(state, images(1, limit=4))).left == 0
            assert (await refused(state, images(1, limit=2))).left == 0, "a limit that was lowered leaves less than 0"
            ever = Use(what="usd", period="ever", amount=2, limit=1)
            assert math.isinf((await refused(state, ever)).ends), "what is limited for ever never has room"

        self.use(address, work)

    @check
    def test_what_was_spent_replaces_what_was_reserved(self, address: str) -> None:
        """Check ``settle``: less, more, nothing, and names that it leaves out."""

        async def work(state: StateStore) -> None:
            for spent, total in ((0, 0), (2, 2), (7, 9), (5, 14)):
                reservation = await reserved(state, requests(), images(5))
                await state.budgets.settle(reservation, {"images": spent})
                used = await state.budgets.used(_KEY, "images", "day")
                assert used == total, f"after {spent} of 5 reserved images were spent, {used} count, not {total}"
            requested = await state.budgets.used(_KEY, "requests", "minute")
            assert requested == 4, f"settle changed what it did not name: {requested} requests count, not 4"

        self.use(address, work)

    @check
    def test_a_look_at_the_limits_counts_nothing(self, address: str) -> None:
        """Check ``check``."""

        async def work(state: StateStore) -> None:
            await reserved(state, images(3))
            for _ in range(2):
                assert await state.budgets.check(_KEY, [images(2, limit=5), requests()]) is None, "it has room"
            refusal = await state.budgets.check(_KEY, [requests(limit=1), images(3, limit=5)])
            assert refusal is not None, "check does not return the limit that would be passed"
            assert (refusal.use.what, refusal.left) == ("images", 2), f"check returned {refusal}"
            assert await state.budgets.used(_KEY, "images", "day") == 3, "check counted"

        self.use(address, work)

    @check
    def test_a_minute_slides(self, address: str) -> None:
        """Check that a request makes room for the next after 61 s: never within a minute of it."""

        async def work(state: StateStore) -> None:
            start = math.ceil(await state.now()) + 0.5
            await self._at(state, start)
            await reserved(state, requests(limit=2))
            await self._at(state, start + 30)
            await reserved(state, requests(limit=2))
            refusal = await refused(state, requests(limit=2))
            assert 29 < refusal.seconds <= 31, f"there is room when the first is 61 s old, not in {refusal.seconds:g} s"
            refusal = await refused(state, requests(limit=1))
            assert 59 < refusal.seconds <= 61, f"one of two must be left, not in {refusal.seconds:g} s"
            await self._at(state, start + 59.9)
            await refused(state, requests(limit=2))
            await self._at(state, start + 61.5)
            await reserved(state, requests(limit=2))
            await refused(state, requests(limit=2))

        self.use(address, work)

    @check
    def test_days_and_months_are_those_of_utc(self, address: str) -> None:
        """Check the last second of a year and the first of the next."""

        async def work(state: StateStore) -> None:
            year = datetime.fromtimestamp(await state.now(), UTC).year + 1
            new_year = datetime(year, 1, 1, tzinfo=UTC)
            money = Use(what="usd", period="month", amount=1, limit=1)
            await self._at(state, (new_year - timedelta(seconds=30)).timestamp())
            await reserved(state, images(1, limit=1), money)
            for use in (images(1, limit=1), money):
                refusal = await refused(state, use)
                assert refusal.ends == new_year.timestamp(), f"the {use.period} ends at the new year"
                assert refusal.seconds <= 30, f"the {use.period} ends in {refusal.seconds:g} s"
            await self._at(state, new_year.timestamp() + 1)
            await reserved(state, images(1, limit=1), money)

        self.use(address, work)

    @check
    def test_a_clock_that_is_set_back_frees_nothing(self, address: str) -> None:
        """Check that amounts of later periods count in this one, and end with it."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            money = Use(what="usd", period="month", amount=2, limit=2)
            await self._at(state, now + 40 * _DAY)
            await reserved(state, requests(limit=1), images(2, limit=2), money)
            await self._at(state, now)
            for use in (requests(limit=1), images(1, limit=2), money):
                assert await state.budgets.used(_KEY, use.what, use.period) > 0, "used forgets amounts of the future"
                assert await state.budgets.check(_KEY, [use]) is not None, "check forgets amounts of the future"
                refusal = await refused(state, use)
                assert refusal.seconds <= 31 * _DAY, f"the {use.period} of a clock that was set back does not end"
            await self._at(state, now + 62)
            await reserved(state, requests(limit=1))

        self.use(address, work)

    @check
    def test_old_amounts_are_deleted_and_current_ones_stay(self, address: str) -> None:
        """Check ``delete_old`` in the minute, the day and the month of a reservation, and after each."""

        async def work(state: StateStore) -> None:
            year = datetime.fromtimestamp(await state.now(), UTC).year + 1
            start = datetime(year, 3, 10, 12, tzinfo=UTC).timestamp()
            uses = [
                requests(),
                images(),
                Use(what="usd", period="month", amount=1),
                Use(what="images", period="ever", amount=1),
            ]
            await self._at(state, start)
            await reserved(state, *uses)
            ages = ((59, [1, 1, 1, 1]), (62, [0, 1, 1, 1]), (_DAY, [0, 0, 1, 1]), (31 * _DAY, [0, 0, 0, 1]))
            for seconds, expected in ages:
                await self._at(state, start + seconds)
                await state.budgets.delete_old()
                used = [await state.budgets.used(_KEY, use.what, use.period) for use in uses]
                assert used == expected, f"after {seconds} s {used} count, not {expected}"

        self.use(address, work)

    @check
    def test_a_budget_for_ten_is_ten_under_fifty_at_once(self, address: str) -> None:
        """Check many reservations at once, on two connections."""

        async def work(state: StateStore) -> None:
            async with self.open_store(address) as second:
                stores = [state, second] * (_TASKS // 2)
                answers = await at_once([each.budgets.reserve(_KEY, [images(1, limit=_ROOM)]) for each in stores])
            count = sum(isinstance(answer, Reservation) for answer in answers)
            assert count == _ROOM, f"of {_TASKS} reservations at once, {count} were made within a limit of {_ROOM}"
            assert await state.budgets.used(_KEY, "images", "day") == _ROOM, "what was refused was counted"

        self.use(address, work)

    async def _at(self, state: StateStore, moment: float) -> None:
        self.set_clock(state, moment - time.time())
