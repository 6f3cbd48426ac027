"""The window that the processes of a machine share. Over sockets: tests/reliability/test_machine_rate.py."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from impasto import ConfigError, RateLimit
from impasto_plugins.concurrency.seats import SEATS, Seat
from impasto_plugins.middleware import shared_window as module
from impasto_plugins.middleware.gate import Gate, share
from impasto_plugins.middleware.shared_window import CAPACITY, RATES, SharedWindow, machine_state
from impasto_plugins.middleware.window import Permit, slack
from impasto_plugins.stability.provider import stability
from tests.descriptors import open_descriptors

LIMIT = RateLimit(3, 10.0)


def window_of(folder: Path, now: float = 0.0) -> SharedWindow:
    """Return the window as another process of the machine has it."""
    return SharedWindow.open(folder / RATES, "a-key", Seat.take(folder / SEATS), now)


def acquire(window: SharedWindow, now: float) -> Permit:
    permit = window.try_acquire(LIMIT, now)
    assert isinstance(permit, Permit)
    return permit


def test_two_processes_have_the_places_of_one(tmp_path: Path) -> None:
    one, other = window_of(tmp_path), window_of(tmp_path)
    for window, now in ((one, 1.0), (other, 2.0), (one, 3.0)):
        window.mark_arrived(acquire(window, now), now)
    assert other.try_acquire(LIMIT, 4.0) == 7.0, "a window after the first"
    assert isinstance(other.try_acquire(LIMIT, 11.0), Permit)


def test_a_place_is_held_until_the_request_arrives_in_whichever_process(tmp_path: Path) -> None:
    one, other = window_of(tmp_path), window_of(tmp_path)
    permits = [acquire(one, 0.0) for _ in range(3)]
    assert other.try_acquire(LIMIT, 60.0) == slack(LIMIT), "uploads hold every place"
    one.mark_written(permits[0], 60.0)
    assert other.try_acquire(LIMIT, 60.0) == slack(LIMIT), "the time by which it must have arrived"
    one.release(permits[1], 60.0)
    one.release(permits[1], 60.0)  # once more: no second place is free
    acquire(other, 60.0)
    assert not isinstance(other.try_acquire(LIMIT, 60.0), Permit)


def test_a_pause_holds_for_all(tmp_path: Path) -> None:
    one, other = window_of(tmp_path), window_of(tmp_path)
    one.pause(130.0, 100.0)
    other.pause(110.0, 100.0)
    assert one.paused_until == other.paused_until == 130.0, "a pause is never made shorter"
    assert one.had_429
    assert other.had_429


def test_history_is_restored_once(tmp_path: Path) -> None:
    one, other = window_of(tmp_path), window_of(tmp_path)
    one.restore_history([93.0, 91.0, 92.0], 100.0)
    other.restore_history([91.0, 92.0, 93.0], 100.0)
    assert other.try_acquire(LIMIT, 100.0) == 1.0
    acquire(other, 101.0)


def test_requests_of_a_dead_process_count_as_arrived_now(tmp_path: Path) -> None:
    """Also if a process that it forked lives on."""
    script = """
import os, sys
from pathlib import Path
from impasto_plugins.concurrency import seats
from tests.plugins.middleware.test_shared_window import LIMIT, window_of
window = window_of(Path(sys.argv[1]))
seats._seats[Path(sys.argv[1])] = window._seat
for _ in range(3):
    window.try_acquire(LIMIT, 5.0)
os.fork()
os.write(1, b"holds\\n")
sys.stdin.read()
"""
    window = window_of(tmp_path)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["holds\n"] * 2  # the forked process's, too
        assert window.try_acquire(LIMIT, 6.0) == slack(LIMIT), "it lives: an upload may take minutes"
        process.kill()
        process.wait()
        assert window.try_acquire(LIMIT, 6.5) == slack(LIMIT), "it is not looked for all the time"
        assert window.try_acquire(LIMIT, 8.0) == LIMIT.seconds
    for _ in range(LIMIT.requests):
        acquire(window, 18.0)
    assert len(list((tmp_path / SEATS).iterdir())) == 1, "the dead process's mark is deleted"


def test_other_users_of_the_machine_can_read_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = machine_state()
    assert folder is not None
    window_of(folder)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in (SEATS, RATES)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*/*")} == {0o600}


async def test_a_disk_that_is_full_is_the_reason_why_a_folder_cannot_be_used(tmp_path: Path) -> None:
    gate, one = Gate(), attrs.evolve(stability.account({"api_key": "sk-full"}), rate_limit=LIMIT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"File too large; give another folder"):
            await share(gate, one, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await share(gate, one, tmp_path)
    assert gate.is_shared


@contextmanager
def stopped_in_the_middle(folder: Path) -> Iterator[None]:
    """Hold the lock as a process does that was stopped in the middle of an operation."""
    fd = os.open(folder / RATES / "a-key", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def test_a_process_that_is_stopped_in_the_middle_blocks_no_other(tmp_path: Path) -> None:
    window = window_of(tmp_path)
    permits = [acquire(window, 0.0) for _ in range(3)]
    with stopped_in_the_middle(tmp_path):
        assert window.try_acquire(LIMIT, 1.0) == 0.005, "soon again"
        assert window.estimate_wait(LIMIT, 0, 1.0) > 0
        window.mark_arrived(permits[0], 1.0)
        window.release(permits[1], 1.0)
        window.mark_written(permits[2], 1.0)
    acquire(window, 2.0)
    assert window.try_acquire(LIMIT, 2.0) == 9.0, "each change was made later: two have arrived, at 1.0 and 1.5"


def test_after_a_restart_of_the_machine_all_wait_a_window(tmp_path: Path) -> None:
    before = window_of(tmp_path, 90_000.0)
    for now in (90_000.0, 90_001.0, 90_002.0):
        before.mark_arrived(acquire(before, now), now)
    before.pause(90_060.0, 90_002.0)
    after = window_of(tmp_path, 30.0)
    assert after.try_acquire(LIMIT, 30.0) == LIMIT.seconds, "the clock began again"
    assert after.paused_until == 0.0
    acquire(after, 40.0)


def test_a_wide_window_is_counted_to_its_last_place(tmp_path: Path) -> None:
    window, limit = window_of(tmp_path), RateLimit(CAPACITY, 3600.0)
    for number in range(CAPACITY):
        permit = window.try_acquire(limit, number * 0.01)
        assert isinstance(permit, Permit)
        window.mark_arrived(permit, number * 0.01)
    assert window.try_acquire(limit, 200.0) == 3400.0
    assert isinstance(window.try_acquire(limit, 3600.0), Permit)


def test_a_window_that_nobody_uses_has_no_file_open(tmp_path: Path) -> None:
    window = window_of(tmp_path)
    assert open_descriptors(tmp_path / RATES / "a-key") > 0
    del window
    assert open_descriptors(tmp_path / RATES / "a-key") == 0


def test_no_more_requests_are_in_transit_than_the_file_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAPACITY", 3)
    window, wide = window_of(tmp_path), RateLimit(9, 10.0)
    for _ in range(3):
        assert isinstance(window.try_acquire(wide, 0.0), Permit)
    assert window.try_acquire(wide, 0.0) == slack(wide)


def test_a_folder_that_cannot_be_written_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert machine_state() is None
    assert "other processes do not share the rate limit" in caplog.text
