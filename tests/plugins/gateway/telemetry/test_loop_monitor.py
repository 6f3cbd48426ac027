"""What holds the loop up is told while it does, and seen in the metrics after."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.telemetry import loop_monitor
from impasto_plugins.gateway.telemetry.loop_monitor import EventLoopMonitor
from tests.distributions import install
from tests.plugins.gateway.conftest import Serve, Start, config
from tests.plugins.gateway.raw import until

from .test_metrics import scrape

BLOCKING = '''
"""A middleware that computes where it should wait."""

import time
from impasto import hookimpl


class Greedy:
    @hookimpl
    def middleware(self):
        async def compute(wire, next):
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                pass
            return await next(wire)

        return compute


plugin = Greedy()
'''


async def test_a_plugin_that_blocks_the_loop_is_named(
    start: Start,
    impasto_emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(
        tmp_path / "site",
        "greedy",
        {"impasto.middleware": {"greedy": "impasto_greedy:plugin"}},
        {"impasto_greedy": BLOCKING},
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(loop_monitor, "WARN_SECONDS", 0.4)
    gateway = await start(config(impasto_emulator.url, general="  middleware: [greedy]\n"))
    assert (await gateway.generate()).status == 200

    def log_records() -> list[logging.LogRecord]:  # a busy machine holds it up at other times too
        records = [each for each in caplog.records if each.name == "impasto.gateway"]
        return list(itertools.dropwhile(lambda each: "impasto_greedy" not in each.message, records))[:2]

    await until(lambda: len(log_records()) == 2)
    during, after = log_records()
    assert (during.levelno, after.levelno) == (logging.WARNING, logging.WARNING)
    assert "is blocked" in during.message
    assert "impasto_greedy.Greedy.middleware.<locals>.compute:" in during.message
    assert str(tmp_path) not in during.message
    duration = re.search(r"was blocked for ([\d.]+)", after.message)
    assert duration is not None
    assert float(duration[1]) > 1
    assert (await scrape(gateway))("loop_lag_seconds") > 1
    assert (await gateway.ask("GET", "/health/liveliness")).json == {"status": "alive"}
    sys.modules.pop("impasto_greedy", None)


async def test_a_loop_that_is_free_has_no_lag_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_monitor, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(loop_monitor, "WINDOW_SECONDS", 0.3)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    async with EventLoopMonitor(tick) as dog:
        await asyncio.sleep(0.1)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        await asyncio.sleep(0.05)
        assert dog.lag > 0.4
        await until(lambda: dog.lag < 0.4)  # it was longer ago than the window
    assert ticks > 5


def test_a_process_that_was_stopped_is_not_reported_as_blocked(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = serve(config(impasto_emulator.url))
    assert process.stderr is not None
    with urlopen(f"{url}/health/readiness") as answer:  # its loop runs
        assert answer.status == 200
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2 * loop_monitor.WARN_SECONDS)
    os.kill(process.pid, signal.SIGCONT)
    killing = threading.Timer(60, process.kill)
    killing.start()
    lines: list[str] = []
    while not any("this process did not run for " in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], "it reported nothing"
    killing.cancel()
    process.terminate()
    rest = process.communicate(timeout=60)[1]
    assert "blocked" not in "".join(lines) + rest
