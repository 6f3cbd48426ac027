"""The synchronous functions: in a loop and out of one, interrupted, forked, and at the end of the process."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import impasto
from impasto_plugins.openai_compat.background import Background, run
from tests.recorder import ReceivedRequest, Recorder

UNTIMED = "import logging; logging.getLogger('asyncio').addFilter(lambda record: 'took' not in record.msg)"
"""Debug mode logs slow steps, which say how busy the machine is."""
CALL = 'impasto.image_generation("a", "stability/sd3")'


def script(*lines: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A process of its own, in which every warning is an error."""
    imports = "import asyncio, os, sys, threading, time, impasto, impasto_plugins.openai_compat"
    source = "\n".join((imports, UNTIMED, *lines))
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_calls_of_many_threads_share_one_loop(wire: Recorder) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(impasto.image_generation("a", "stability/sd3")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == len(wire.posts) == 8
    assert sum(thread.name == "impasto" for thread in threading.enumerate()) == 1


def test_errors_reach_the_caller_with_their_place() -> None:
    with pytest.raises(impasto.UnknownOperation) as caught:
        impasto.image_generation("a", "stability/nothing")
    assert any(entry.name == "test_errors_reach_the_caller_with_their_place" for entry in caught.traceback)


def test_the_callers_context_goes_along() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    async def read() -> str:
        return variable.get()

    assert run(read()) == "set"


def test_a_call_from_the_background_loop_itself_fails_at_once() -> None:
    async def nested() -> None:
        impasto.image_generation("a", "stability/sd3")

    with pytest.raises(impasto.LoopMismatchError, match="async function"):
        run(nested())


def test_it_works_inside_a_running_loop_and_blocks_it(wire: Recorder) -> None:
    ran = script(
        "async def main():",
        f"    first = {CALL}",
        '    second = await impasto.aimage_generation("a", "stability/sd3")',
        f"    third = await asyncio.to_thread(lambda: {CALL})",
        "    print(len(first.data) + len(second.data) + len(third.data))",
        "asyncio.run(main(), debug=False)",  # debug mode would log that it blocks
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "3\n", "")


@pytest.mark.parametrize(
    "lines",
    [
        [CALL],
        [CALL, "asyncio.run(impasto.aimage_generation('a', 'stability/sd3'))"],
        pytest.param(
            [f"threading.Thread(target=lambda: {CALL}).start()"],
            marks=pytest.mark.skipif(
                (3, 12) <= sys.version_info < (3, 12, 2),
                reason="starts no thread once the main one is through: gh-113964",
            ),
        ),
        ["thread = threading.Thread(target=lambda: " + CALL + ")", "thread.start()", "thread.join()"],
        [CALL, "sys.exit(0)"],
    ],
)
def test_a_process_ends_quietly(lines: list[str], wire: Recorder) -> None:
    ran = script(*lines)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_call_after_the_end_says_so(wire: Recorder) -> None:
    ran = script(
        "import atexit",
        "def late():",
        "    try:",
        f"        {CALL}",
        "    except impasto.ClientClosedError as error: print(error)",
        "atexit.register(late)",  # runs after what is registered later
        CALL,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "the process is ending" in ran.stdout


def test_a_call_in_flight_in_a_daemon_thread_does_not_keep_the_process(wire: Recorder) -> None:
    left, answered = threading.Event(), threading.Event()

    def slow(_: ReceivedRequest) -> None:
        left.wait(60)
        answered.set()

    wire.answer = slow
    ran = script(
        "def work():",
        "    try:",
        f"        {CALL}",
        "    except BaseException as error:",
        "        print(type(error).__name__, getattr(error, '__notes__', []), flush=True)",
        "threading.Thread(target=work, daemon=True).start()",
        "time.sleep(1)",
    )
    assert not answered.is_set()
    left.set()
    assert ran.returncode == 0
    assert "Error" not in ran.stderr.replace("CancelledError", "")


def test_a_forked_child_makes_a_loop_of_its_own(wire: Recorder) -> None:
    ran = script(
        "import warnings",
        "warnings.simplefilter('ignore', DeprecationWarning)  # that a process with threads forks",
        CALL,
        "child = os.fork()",
        f"print(len({CALL}.data), flush=True)",
        "if child: print(os.waitpid(child, 0)[1])",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n1\n0\n", "")
    assert len(wire.posts) == 3


def test_a_child_of_a_running_loop_makes_a_client_of_its_own(wire: Recorder) -> None:
    ran = script(
        "import multiprocessing, warnings",
        "warnings.simplefilter('ignore', DeprecationWarning)  # that a process with threads forks",
        "def work():",
        "    asyncio.run(impasto.aimage_generation('a', 'stability/sd3'))",
        f"    {CALL}",
        "async def main():",
        "    await impasto.aimage_generation('a', 'stability/sd3')",
        "    child = multiprocessing.get_context('fork').Process(target=work)",
        "    child.start()",
        "    await asyncio.to_thread(child.join)",
        "    print(child.exitcode)",
        "asyncio.run(main())",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0\n", "")
    assert len(wire.posts) == 3


def test_an_interrupt_cancels_the_call_and_tells_that_the_charge_is_unknown(wire: Recorder, tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"
    left = threading.Event()

    def slow(_: ReceivedRequest) -> None:
        arrived.touch()
        left.wait(60)

    wire.answer = slow
    source = f"""
{UNTIMED}
import impasto
try:
    {CALL}
except KeyboardInterrupt as interrupt:
    print(interrupt.__notes__)
print(len(impasto.image_generation("b", "stability/sd3").data))
"""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not arrived.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    left.set()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "it may have been charged" in out
    assert out.endswith("]\n1\n")


def test_a_handler_of_another_signal_cancels_the_call_too(wire: Recorder, tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"
    left = threading.Event()

    def slow(_: ReceivedRequest) -> None:
        arrived.touch()
        left.wait(1.5)

    wire.answer = slow
    ran = script(
        "import signal",
        "class Enough(Exception): pass",
        "def handler(*_): raise Enough",
        "signal.signal(signal.SIGALRM, handler)",
        "def ring():",
        f"    while not os.path.exists({str(arrived)!r}): time.sleep(0.02)",
        "    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)",
        "threading.Thread(target=ring).start()",
        "try:",
        f"    {CALL}",
        "except Enough as error: print(error.__notes__)",
    )
    left.set()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "may have been charged" in ran.stdout


def test_the_end_of_the_loop_cancels_the_calls_in_flight() -> None:
    """Their callers, in other threads, get an answer instead of waiting for ever."""
    background, start, ends = Background(), threading.Event(), list[BaseException]()

    async def call() -> None:
        start.set()
        await asyncio.sleep(60)

    def wait() -> None:
        try:
            background.run(call())
        except BaseException as error:  # noqa: BLE001 - whichever comes
            ends.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert start.wait(10)
    background.close()
    thread.join(10)
    assert [type(error).__name__ for error in ends] == ["CancelledError"]
