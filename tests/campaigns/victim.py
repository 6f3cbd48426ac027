"""``impasto`` in a process of its own, with a disk that stops it at one of its calls: before, after, or amid a write.

Processes are forked from one that has imported everything: a start takes a tenth of what it takes from nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial, wraps
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import attrs

from impasto_plugins.batch.batch import Batch
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.cli.main import main

LASTING = [name for name in vars(Disk) if not name.startswith("_") and name != "close"]
"""The calls at which a stop makes a difference."""


How = Literal["before", "after", "torn"]


@attrs.frozen
class Death:
    """At which of its calls a process dies, and how; 0: at none. ``calls`` is a file for their number at the end."""

    call: int = 0
    how: How = "before"
    calls: Path | None = None


class Deadly(Disk):
    """Counts its calls, and kills the process at one."""

    def __init__(self, death: Death) -> None:
        self.death, self.calls = death, 0
        for name in LASTING:
            setattr(self, name, self._watched(name, getattr(Disk, name)))

    def _watched(self, name: str, call: Any) -> Any:
        @wraps(call)
        def watched(*args: Any) -> Any:
            self.calls += 1
            is_it, how = self.calls == self.death.call, self.death.how
            if is_it and how == "before":
                _die()
            if is_it and how == "torn" and name == "write":
                call(self, args[0], bytes(args[1])[: len(args[1]) // 2])
                _die()
            done = call(self, *args)
            if is_it:
                _die()
            return done

        return watched


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(death: Death, words: list[str], environment: Mapping[str, str], log: Path) -> None:
    """What the child process does."""
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    disk = Deadly(death)
    try:
        with patch("impasto_plugins.batch.cli.run.Batch", partial(Batch, disk=disk)):
            main(words, prog_name="impasto")
    finally:
        if death.calls is not None:
            death.calls.write_text(str(disk.calls))


nursery = get_context("forkserver")
nursery.set_forkserver_preload(
    [
        __name__,
        "tests.campaigns.hosts",
        "aiohttp",
        "impasto_plugins.stability.upscale_creative",
        "impasto_plugins.middleware.retry",
        "impasto_plugins.transports.s3_client",
    ]
)


def start(death: Death, words: list[str], environment: Mapping[str, str], log: Path) -> ForkServerProcess:
    """Starts ``impasto`` with these words; what it says goes to a file."""
    victim = nursery.Process(target=run, args=(death, words, environment, log))
    victim.start()
    return victim


def killed(victim: ForkServerProcess, after: float) -> bool:
    """Kills it after so many seconds, unless it ended or died by itself before. Whether it died of a kill."""
    victim.join(after)
    if victim.is_alive():
        victim.kill()
        victim.join()
    assert victim.exitcode is not None
    died = victim.exitcode < 0
    victim.close()
    return died
