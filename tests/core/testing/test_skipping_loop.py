"""The loop that skips time: what its clock must not skip."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from impasto.testing.watch import SkippingLoop


class SlowExecutor(ThreadPoolExecutor):
    """Threads that need a moment to end, as on a busy machine."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        time.sleep(0.1)
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_threads_that_end_slowly_are_waited_for() -> None:
    # Since Python 3.12 asyncio.Runner limits this wait and warns, which ends a test, if the time passes.
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(SlowExecutor())
        await asyncio.to_thread(int)
        await asyncio.sleep(3600)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())
