"""Hosts of one batch, each a process of its own with its own folder and short times."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

import attrs

from impasto_plugins.cli.main import main
from tests.campaigns.victim import nursery

LEASE, SYNC = 3.0, 0.5


@attrs.frozen
class Times:
    """The times of a host. ``skew``: seconds by which its clock is ahead."""

    lease: float = LEASE
    sync: float = SYNC
    skew: float = 0.0


def run(words: list[str], environment: Mapping[str, str], log: Path, times: Times) -> None:
    """Run ``impasto`` in the child process."""
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    shared, now = "impasto_plugins.batch.shared", time.time
    with ExitStack() as stack:
        stack.enter_context(patch(f"{shared}.hosts.LEASE_SECONDS", times.lease))
        stack.enter_context(patch(f"{shared}.hosts._TOLERANCE", min(times.lease / 3, 2.0)))
        stack.enter_context(patch(f"{shared}.session.SYNC_SECONDS", times.sync))
        stack.enter_context(patch(f"{shared}.segments.FLUSH_SECONDS", min(0.1, times.sync)))
        stack.enter_context(patch("time.time", lambda: now() + times.skew))
        main(words, prog_name="impasto")


def start_host(words: list[str], environment: Mapping[str, str], log: Path, times: Times) -> ForkServerProcess:
    """Start ``impasto`` with these words as a host; its output goes to a file."""
    process = nursery.Process(target=run, args=(words, environment, log, times))
    process.start()
    return process
