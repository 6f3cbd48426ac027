"""Hosts of one batch, each a process of its own with its own folder and short times."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs

from impasto_plugins.cli.main import main
from impasto_plugins.transports.s3_client import BucketClient
from tests.campaigns.victim import nursery

LEASE, SYNC = 3.0, 0.5


@attrs.frozen
class Times:
    """The times of a host. ``skew``: seconds by which its clock is ahead."""

    lease: float = LEASE
    sync: float = SYNC
    skew: float = 0.0


@attrs.frozen
class Death:
    """The request to S3 at which a host dies, 0 for none. ``count``: a file for their number at the end."""

    request: int = 0
    is_after: bool = False
    count: Path | None = None


class _Requests:
    """Counts the requests to S3, and kills the process at one."""

    def __init__(self, death: Death) -> None:
        self.death, self.number = death, 0

    def watch(self, request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any, **options: Any) -> Any:
            self.number += 1
            is_last = self.number == self.death.request
            if is_last and not self.death.is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return await request(*args, **options)
            finally:
                if is_last:
                    os.kill(os.getpid(), signal.SIGKILL)

        return watched


def run(words: list[str], environment: Mapping[str, str], log: Path, times: Times, death: Death) -> None:
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
        stack.enter_context(patch("impasto_plugins.transports.s3._MAX_PAUSE", 0.2))
        requests = _Requests(death)
        for name in ("put", "get", "list_page", "owner_of"):
            stack.enter_context(patch.object(BucketClient, name, requests.watch(getattr(BucketClient, name))))
        try:
            main(words, prog_name="impasto")
        finally:
            if death.count is not None:
                death.count.write_text(str(requests.number))


NO_DEATH = Death()


def start_host(
    words: list[str], environment: Mapping[str, str], log: Path, times: Times, death: Death = NO_DEATH
) -> ForkServerProcess:
    """Start ``impasto`` with these words as a host; its output goes to a file."""
    process = nursery.Process(target=run, args=(words, environment, log, times, death))
    process.start()
    return process
