"""The table of what runs: whatever the order in which calls begin and end, others see what is so, and nothing else."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.delivery import Delivery
from impasto_plugins.gateway.idempotency import in_flight as module
from impasto_plugins.gateway.idempotency.in_flight import LOST_SECONDS, SLOTS, InFlightTable, SlotState, reclaim
from tests.descriptors import open_descriptors

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def open_one(tmp_path: Path) -> Iterator[Callable[[], InFlightTable]]:
    tables: list[InFlightTable] = []

    def open_one() -> InFlightTable:
        tables.append(InFlightTable(tmp_path / "workers"))
        tables[-1].open()
        return tables[-1]

    yield open_one
    for each in tables:
        each.close()


def dies(flights: InFlightTable) -> None:
    """As the system ends a process."""
    fcntl.flock(flights._fd, fcntl.LOCK_UN)
    os.close(flights._fd)
    flights._fd = -1


def request(*, left: bool) -> web.BaseRequest:
    return cast("web.BaseRequest", SimpleNamespace(transport=None if left else _open, protocol=None))


_open = SimpleNamespace(is_closing=lambda: False)


@pytest.mark.parametrize("order", list(itertools.permutations(["remove", "lose", "mark"])), ids="-".join)
def test_calls_end_in_any_order(open_one: Callable[[], InFlightTable], order: tuple[str, ...]) -> None:
    mine, other = open_one(), open_one()
    flying = [
        mine.begin(ONE, None, has_key=False),
        mine.begin(TWO, None, has_key=False),
        mine.begin(THREE, request(left=True), has_key=False),
    ]
    expected = {ONE: SlotState.RUNNING, TWO: SlotState.RUNNING, THREE: SlotState.RUNNING}
    before = {identity: other.find(identity)[0] for identity in expected}
    for step in order:
        match step:
            case "remove":
                mine.finish(flying[0])
                expected[ONE] = SlotState.FREE
            case "lose":
                mine.mark_lost(flying[1])
                expected[TWO] = SlotState.LOST
            case _:
                mine.mark_disconnected()
                expected[THREE] = SlotState.ABANDONED
        for flights, (identity, state) in itertools.product((mine, other), expected.items()):
            assert [entry.state for entry in flights.find(identity)] == ([] if state is SlotState.FREE else [state])
            assert before[identity].is_over() is (state in (SlotState.FREE, SlotState.LOST))


def test_a_place_that_another_call_has_taken_is_not_the_first_ones(open_one: Callable[[], InFlightTable]) -> None:
    mine, other = open_one(), open_one()
    first = mine.begin(ONE, None, has_key=False)
    (entry,) = other.find(ONE)
    mine.finish(first)
    again = mine.begin(ONE, None, has_key=False)
    assert again.slot == first.slot
    assert entry.is_over()
    assert not other.find(ONE)[0].is_over()


def test_callers_who_are_there_are_not_marked(open_one: Callable[[], InFlightTable]) -> None:
    flights = open_one()
    flights.begin(ONE, request(left=False), has_key=False)
    flights.begin(TWO, None, has_key=True)
    flights.mark_disconnected()
    assert [flights.find(each)[0].state for each in (ONE, TWO)] == [SlotState.RUNNING] * 2


def test_more_than_there_is_room_for_are_sent_away_unspent(
    open_one: Callable[[], InFlightTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOTS", 2)
    flights = open_one()
    first, second = (flights.begin(each, None, has_key=False) for each in (ONE, TWO))
    with pytest.raises(APIError) as refused:
        flights.begin(THREE, None, has_key=False)
    assert (refused.value.status, refused.value.should_retry, refused.value.not_charged) == (503, True, True)
    flights.mark_lost(first)
    with pytest.raises(APIError):  # what is lost is remembered
        flights.begin(THREE, None, has_key=False)
    flights.finish(second)
    flights.begin(THREE, None, has_key=False)
    assert [len(flights.find(each)) for each in (ONE, TWO, THREE)] == [1, 0, 1]


def test_calls_that_were_lost_take_no_room_for_ever(
    open_one: Callable[[], InFlightTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("impasto_plugins.gateway.idempotency.in_flight.time.monotonic", lambda: now)
    flights = open_one()
    room = len(flights._free)
    flights.mark_lost(flights.begin(ONE, None, has_key=False))
    now += LOST_SECONDS + 1
    flights.finish(flights.begin(TWO, None, has_key=False))
    assert len(flights._free) == room


def test_the_calls_of_a_dead_worker_have_one_heir(open_one: Callable[[], InFlightTable], tmp_path: Path) -> None:
    dead, heir = open_one(), open_one()
    dead.begin(ONE, None, has_key=False)
    dead.begin(TWO, None, has_key=True)  # its row tells of it
    dead.mark_lost(dead.begin(THREE, None, has_key=False))
    path = tmp_path / "workers" / dead.name
    (entry,) = heir.find(ONE)
    with pytest.raises(BlockingIOError), reclaim(path):  # it lives
        pass
    dies(dead)
    with pytest.raises(RuntimeError), reclaim(path) as found:
        raise RuntimeError("the heir could not write it down")
    assert not entry.is_over()
    with reclaim(path) as found:
        assert sorted(found) == [ONE, THREE]
        with pytest.raises(BlockingIOError), reclaim(path):
            pass
    assert entry.is_over()
    assert (heir.other_tables(), heir.find(ONE)) == ([], [])
    with pytest.raises(FileNotFoundError), reclaim(path):
        pass


def test_a_data_directory_that_was_removed_meanwhile_disturbs_no_end(
    open_one: Callable[[], InFlightTable], tmp_path: Path
) -> None:
    ending = open_one()
    (tmp_path / "workers" / ending.name).unlink()
    (tmp_path / "workers").rmdir()
    ending.close()
    assert not (tmp_path / "workers").exists()


@pytest.mark.parametrize("running", [0, 1])
def test_an_orderly_end_leaves_only_what_still_runs(open_one: Callable[[], InFlightTable], running: int) -> None:
    ending, other = open_one(), open_one()
    ending.finish(ending.begin(TWO, None, has_key=False))
    if running:
        ending.begin(ONE, None, has_key=False)
    ending.close()
    ending.close()
    assert len(other.other_tables()) == running
    for path in other.other_tables():
        with reclaim(path) as found:
            assert found == [ONE]


def test_other_files_of_the_folder_are_skipped(open_one: Callable[[], InFlightTable], tmp_path: Path) -> None:
    flights, folder = open_one(), tmp_path / "workers"
    flights.begin(ONE, None, has_key=False)
    (folder / "empty").touch()
    (folder / "short").write_bytes(ONE)
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(folder / flights.name)
    (folder / ".hidden").write_bytes(bytes(1 << 20))
    assert len(flights.find(ONE)) == 1


def test_without_a_disk_it_is_this_workers_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flights = InFlightTable(tmp_path / "file" / "workers")
    with pytest.raises(OSError, match="Not a directory"):
        flights.open()
    flight = flights.begin(ONE, None, has_key=False)
    assert [entry.state for entry in flights.find(ONE)] == [SlotState.RUNNING]
    flights.finish(flight)
    assert (flights.find(ONE), flights.other_tables()) == ([], [])
    flights.close()


def test_a_table_is_its_owners_alone(open_one: Callable[[], InFlightTable], tmp_path: Path) -> None:
    open_one()
    assert stat.S_IMODE((tmp_path / "workers").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "workers").iterdir()} == {0o600}


def test_looking_around_leaves_no_descriptor_open(open_one: Callable[[], InFlightTable], tmp_path: Path) -> None:
    mine, other = open_one(), open_one()
    path = tmp_path / "workers" / other.name
    (tmp_path / "workers" / "empty").touch()
    before = open_descriptors(path)
    for _ in range(3):
        mine.find(ONE)
        with pytest.raises(BlockingIOError), reclaim(path):
            pass
    assert open_descriptors(path) == before
    assert open_descriptors(tmp_path / "workers" / "empty") == 0


def test_a_worker_that_ends_lets_its_descriptor_go(tmp_path: Path) -> None:
    flights = InFlightTable(tmp_path)
    flights.open()
    flights.begin(ONE, None, has_key=False)  # so that its table stays
    number = flights._fd
    flights.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    before = open_descriptors(tmp_path / flights.name)  # the map's own
    table = tmp_path / flights.name
    table.rename(tmp_path / "dead")
    with pytest.raises(RuntimeError), reclaim(tmp_path / "dead"):
        raise RuntimeError("the heir could not write it down")
    assert open_descriptors(tmp_path / "dead") == before


def test_a_worker_has_room_for_4096_calls_and_frees_it(open_one: Callable[[], InFlightTable]) -> None:
    flights = open_one()
    assert SLOTS == 4096
    flying = [flights.begin(ONE, None, has_key=False) for _ in range(4096)]
    with pytest.raises(APIError) as refused:
        flights.begin(TWO, None, has_key=False)
    assert refused.value.to_response().headers["retry-after"] == "1"
    for flight in flying:
        flights.finish(flight)
    assert len({flights.begin(ONE, None, has_key=False).slot for _ in range(4096)}) == 4096


def test_half_of_the_calls_may_stay_for_long(open_one: Callable[[], InFlightTable]) -> None:
    flights = open_one()
    for _ in range(2047):
        flights.begin(ONE, None, has_key=True)
    assert flights.has_room
    flights.begin(ONE, None, has_key=True)
    assert not flights.has_room


def test_it_is_remembered_for_a_quarter_of_an_hour_that_a_call_was_lost(
    open_one: Callable[[], InFlightTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as an SDK's retry is given a result: by then nobody asks for it."""
    now = 1000.0
    monkeypatch.setattr("impasto_plugins.gateway.idempotency.in_flight.time.monotonic", lambda: now)
    flights = open_one()
    flights.mark_lost(flights.begin(ONE, None, has_key=False))
    flights.mark_lost(flights.begin(TWO, None, has_key=False))
    for seconds, count in ((900, 2), (900.5, 0)):
        now = 1000 + seconds
        flights.finish(flights.begin(THREE, None, has_key=False))
        assert len(flights.find(ONE)) + len(flights.find(TWO)) == count


def test_a_table_that_somebody_removes_meanwhile_is_taken_over_all_the_same(
    open_one: Callable[[], InFlightTable], tmp_path: Path
) -> None:
    dead = open_one()
    dead.begin(ONE, None, has_key=False)
    dies(dead)
    path = tmp_path / "workers" / dead.name
    with reclaim(path) as found:
        path.unlink()
    assert found == [ONE]


@pytest.mark.parametrize(
    ("is_doubtful", "left", "state"),
    [
        (False, False, SlotState.RUNNING),
        (True, False, SlotState.ABANDONED),
        (False, True, SlotState.ABANDONED),
        (None, True, SlotState.ABANDONED),
        (None, False, SlotState.RUNNING),
    ],
)
def test_a_call_is_marked_if_its_caller_left_or_may_not_have_read_its_answer(
    open_one: Callable[[], InFlightTable], is_doubtful: bool | None, left: bool, state: SlotState
) -> None:
    flights = open_one()
    flight = flights.begin(ONE, request(left=left), has_key=False)
    if is_doubtful is not None:
        flight.delivery = cast("Delivery", SimpleNamespace(is_uncertain=is_doubtful))
    flights.mark_disconnected()
    assert [entry.state for entry in flights.find(ONE)] == [state]
