"""The time limit of the kit's checks: a plugin may block the loop or a thread, wait for ever, or ignore an end."""

from __future__ import annotations

import asyncio
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from impasto.testing.watch import LoopWatch, check_short_blocks
from impasto.testing.watch.run_queue import RunQueue
from impasto.testing.watch.time_limit import Limited, check, process_check, run

FOR_EVER = 1_000.0


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def block_a_thread() -> None:
    await asyncio.to_thread(time.sleep, FOR_EVER)


async def block_the_loop() -> None:
    select.select([], [], [], FOR_EVER)  # not time.sleep, for which our own tests look


async def keep_the_loop_busy() -> None:
    while True:
        pass


async def ignore_cancellation() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)


async def leave_a_task_that_ignores_cancellation() -> None:
    vars(asyncio.get_running_loop())["task"] = asyncio.ensure_future(ignore_cancellation())
    await asyncio.sleep(0)


def checked(work: Callable[[], object], seconds: float = 0.2) -> None:
    class Suite(Limited):
        @check
        def test_it(self) -> None:
            work()

    Suite.seconds = seconds
    Suite().test_it()


@pytest.mark.parametrize(
    "hang",
    [
        wait_for_ever,
        block_a_thread,
        block_the_loop,
        keep_the_loop_busy,
        ignore_cancellation,
        leave_a_task_that_ignores_cancellation,
    ],
    ids=lambda hang: hang.__name__,
)
def test_a_check_that_hangs_is_named(hang: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.testing.watch.time_limit._GRACE", 0.05)
    name = "ignore_cancellation" if hang is leave_a_task_that_ignores_cancellation else hang.__name__
    with pytest.raises(AssertionError, match=rf"did not end within 0\.2 s; it stands in:\n[^$]*, in {name}\n"):
        checked(lambda: run(hang()))  # type: ignore[arg-type]  # coroutine functions, all of them


def test_after_a_hang_the_other_checks_of_its_class_have_less_time() -> None:
    class Suite(Limited):
        @check
        def test_it(self) -> None:
            time.sleep(0.2)

    Suite.seconds = 0.1
    with pytest.raises(AssertionError, match="did not end within 0.1 s"):
        Suite().test_it()
    assert Limited.seconds == 8.0
    assert Suite.seconds == 0.1
    for _ in range(2):
        with pytest.raises(AssertionError, match="did not end"):
            Suite().test_it()
    with pytest.raises(pytest.skip.Exception, match="3 checks of Suite did not end; the others are not run"):
        Suite().test_it()


@pytest.mark.parametrize("error", [ValueError("x"), pytest.skip.Exception("x")])
def test_an_error_and_a_skip_are_those_of_the_check(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        checked(fail)
    assert caught.value is error


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_plugin_does_not_end_the_run(end: type[BaseException]) -> None:
    def leave() -> None:
        raise end

    with pytest.raises(AssertionError, match=f"a plugin raised {end.__name__}"):
        checked(leave)


def test_blocked_threads_do_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["block_a_thread", "block_the_loop", "block_a_pool"], done.stderr


def test_a_check_that_never_releases_the_interpreter_ends_the_run_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(STUCK)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert "in test_a_regular_expression" in ran.stderr, ran.stderr


def test_a_check_that_starts_processes_has_more_time() -> None:
    """Processes import everything, beside others on a busy machine."""

    class Suite(Limited):
        seconds = 0.3

        @process_check
        def test_it(self) -> None:
            select.select([], [], [], 0.5)

        @process_check
        def test_it_hangs(self) -> None:
            run(wait_for_ever())

    Suite().test_it()
    with pytest.raises(AssertionError, match=r"did not end within (0\.9|[1-3]\.?\d*) s"):
        Suite().test_it_hangs()


def test_waits_for_a_core_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunQueue, "seconds", lambda _: 0.5)
    checked(lambda: select.select([], [], [], 0.4), seconds=0.2)
    with pytest.raises(AssertionError, match=r"did not end within 0\.2 s"):
        checked(lambda: run(wait_for_ever()))


def test_a_thread_that_waits_for_a_core_blocks_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = 0.0

    async def calls(watches: Sequence[LoopWatch]) -> None:
        for watch in watches:
            with watch.over_this_loop():
                await wait()

    async def wait() -> None:
        nonlocal waited
        select.select([], [], [], 0.05)
        waited += share * 0.05

    monkeypatch.setattr(RunQueue, "seconds", lambda _: waited)
    share = 1.0
    check_short_blocks(calls)
    share = 0.5
    with pytest.raises(AssertionError, match="each call blocks the loop for"):
        check_short_blocks(calls)


def test_processes_have_more_time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, seconds in ((0.0, 24.0), (4.0, 40.0), (1_000.0, 104.0)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, load, load))
        assert Limited.process_seconds() == seconds


def test_a_future_that_a_check_left_breaks_no_report(tmp_path: Path) -> None:
    """A future whose error nobody reads is logged when it is collected: not while pytest parses a source.

    Python 3.11 then reports a SystemError (cpython #106905), which ends the run.
    """
    (tmp_path / "conftest.py").write_text(COLLECTS_IN_REPORTS)
    (tmp_path / "test_it.py").write_text(LEAVES_A_FUTURE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_it.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "INTERNALERROR" not in ran.stdout, ran.stdout[-2000:]
    assert "2 failed, 1 passed" in ran.stdout, ran.stdout[-2000:]
    assert (ran.stdout + ran.stderr).count("Future exception was never retrieved") >= 2, ran.stdout[-2000:]


COLLECTS_IN_REPORTS = """
import ast, gc
parse = ast.parse

def collect_meanwhile(*args, **kwargs):
    gc.set_threshold(20)
    gc.enable()
    try:
        return parse(*args, **kwargs)
    finally:
        gc.disable()

ast.parse = collect_meanwhile
"""

LEAVES_A_FUTURE = """
import asyncio, gc, threading
from impasto.testing.watch import LoopWatch, check_short_blocks
from impasto.testing.watch.run_queue import RunQueue
from impasto.testing.watch.time_limit import Limited, check, run

class TestLeaves(Limited):
    seconds = 0.5

    def leave(self):
        gc.disable()
        loop = asyncio.new_event_loop()
        loop.close()
        future = loop.create_future()
        try:
            raise ValueError("nobody reads it")
        except ValueError as error:
            future.set_exception(error)
        cycle = [future]
        cycle.append(cycle)

    @check
    def test_it_fails(self):
        self.leave()
        assert False

    @check
    def test_it_hangs(self):
        self.leave()
        run(asyncio.Event().wait())

    @check
    def test_the_next(self):
        pass
"""

STUCK = """
import re
import impasto.testing.watch.time_limit as limit
limit._LAST_RESORT = 0.3

class TestStuck(limit.Limited):
    seconds = 0.2
    @limit.check
    def test_a_regular_expression(self):
        re.match("(a|aa)+$", "a" * 200 + "b")
"""

HANGING = """
import impasto.testing.watch.time_limit as limit
import tests.core.testing.test_time_limit as t
limit._GRACE = 0.01
for hang in (t.block_a_thread, t.block_the_loop, t.block_a_pool):
    try: t.checked(lambda: t.run(hang()), 0.1)
    except AssertionError: print(hang.__name__)
"""


async def block_a_pool() -> None:
    pool = ThreadPoolExecutor()
    await asyncio.get_running_loop().run_in_executor(pool, time.sleep, FOR_EVER)
