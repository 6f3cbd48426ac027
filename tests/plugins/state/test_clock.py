"""Clocks that are set: a store on one machine forgets nothing too early, over processes too."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import attrs
import pytest

import impasto
from impasto.ext import StoredCall
from impasto_plugins.emulator import Emulator
from impasto_plugins.idempotent_calls import runner
from impasto_plugins.state.clock import CLOCK_NAME, HOLD_SECONDS, StoreClock
from impasto_plugins.state.sqlite import SQLiteState
from tests.conftest import KEY

NOON = 1_790_856_000.0
DAY = 86_400.0
OWNER = b"owner"


@attrs.define
class Machine:
    """A machine: its wall clock is set, its boot clock is not."""

    wall: float = NOON
    boot: float = 1_000.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def clock(self, folder: Path) -> StoreClock:
        """The clock of a new process."""
        folder.mkdir(exist_ok=True)
        clock = StoreClock(folder, lambda: self.wall, lambda: self.boot)
        clock.load()
        return clock


@pytest.mark.parametrize("jump", [DAY, -DAY, 365 * DAY])
def test_time_passes_as_before_for_a_day_and_then_as_the_wall_clock_says(jump: float, tmp_path: Path) -> None:
    machine = Machine()
    clock = machine.clock(tmp_path)
    machine.pass_time(100.0)
    assert clock() == NOON + 100
    machine.wall += jump
    assert clock() == NOON + 100
    clock.save()
    machine.pass_time(HOLD_SECONDS / 2)
    later = machine.clock(tmp_path)
    assert later() == clock() == NOON + 100 + HOLD_SECONDS / 2
    machine.pass_time(HOLD_SECONDS / 2 + 1)
    assert later() == machine.wall
    later.save()
    assert machine.clock(tmp_path)() == machine.wall


def test_small_corrections_are_followed_and_a_clock_that_is_set_back_again_too(tmp_path: Path) -> None:
    machine = Machine()
    clock = machine.clock(tmp_path)
    machine.wall += 20.0
    assert clock() == NOON + 20
    machine.wall += DAY
    assert clock() == NOON
    machine.wall -= DAY
    machine.pass_time(HOLD_SECONDS + 1)
    assert clock() == machine.wall
    machine.wall += DAY
    assert clock() == machine.wall - DAY - 20, "the first difference is over: another day begins"


def test_after_a_start_of_the_machine_only_the_wall_clock_is_known(tmp_path: Path) -> None:
    machine = Machine()
    machine.clock(tmp_path)
    path = tmp_path / CLOCK_NAME
    path.write_text(path.read_text().replace('"boot": "', '"boot": "another-'))
    machine.wall, machine.boot = NOON + 3 * DAY, 10.0
    assert machine.clock(tmp_path)() == NOON + 3 * DAY


async def test_a_clock_that_is_a_day_ahead_deletes_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    for name in ("before", "after"):
        monkeypatch.setattr(
            "impasto_plugins.state.sqlite.connection.StoreClock",
            lambda folder: StoreClock(folder, lambda: machine.wall, lambda: machine.boot),
        )
        state = SQLiteState(str(tmp_path / "state"))
        call = StoredCall(id=name, owner=OWNER, identity=name.encode(), state="done", expires=DAY)
        await state.calls.insert_or_join(call, join=True)
        assert await state.calls.find("before", OWNER) is not None
        assert await state.calls.delete_expired() == frozenset()
        assert await state.now() == NOON
        await state.aclose()
        machine.wall += DAY + 60
    machine.pass_time(DAY)
    state = SQLiteState(str(tmp_path / "state"))
    assert await state.calls.delete_expired() == {"before", "after"}, "a day has passed"
    await state.aclose()


async def test_a_repeated_call_gets_its_image_after_the_clock_was_set_ahead(
    tmp_path: Path, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are files, whose times are the wall clock's."""
    unset = time.time

    async def image() -> bytes:
        async with impasto.Client(state=tmp_path / "state", api_key=KEY, api_base=impasto_emulator.url) as client:
            result = await client.run("stability/stable-image-core", prompt="a fox", idempotency_key="once")
            return result.artifacts[0].data

    first = await image()
    monkeypatch.setattr("time.time", lambda: unset() + 30 * DAY)
    monkeypatch.setattr(runner, "_swept_at", {})
    assert await asyncio.wait_for(image(), 60) == first
    assert len(impasto_emulator.charges) == 1
