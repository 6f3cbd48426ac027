"""Work in threads: whoever is cancelled goes on when it is over, and nothing stays open."""

from __future__ import annotations

import asyncio
import io
import threading
from contextvars import ContextVar

import pytest

from impasto_plugins.concurrency import open_in_thread, to_thread_shielded

word: ContextVar[str] = ContextVar("word")


class Work:
    """Runs until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.start, self.go, self.error = threading.Event(), threading.Event(), error
        self.file = io.BytesIO()
        self.is_over = False

    def __call__(self) -> io.BytesIO:
        self.start.set()
        assert self.go.wait(60)
        self.is_over = True
        if self.error is not None:
            raise self.error
        return self.file


async def cancelled(task: asyncio.Task[object], work: Work, times: int) -> None:
    """Cancels a task so often while its work goes on, and then lets that end."""
    await asyncio.to_thread(work.start.wait, 60)
    for _ in range(times):
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
    assert not task.done()
    work.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.is_over


async def test_it_gives_what_the_work_gives_within_the_same_context() -> None:
    word.set("here")
    assert await to_thread_shielded(word.get) == "here"
    assert await to_thread_shielded("{}-{x}".format, 1, x=2) == "1-2"


async def test_it_raises_what_the_work_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        await to_thread_shielded(lambda: 1 / 0)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("error", [None, OSError("full")])
async def test_cancelled_it_waits_for_its_end(times: int, error: Exception | None) -> None:
    work = Work(error)
    await cancelled(asyncio.create_task(to_thread_shielded(work)), work, times)


async def test_a_file_that_was_opened_is_closed() -> None:
    async with open_in_thread(lambda: io.BytesIO(b"all")) as source:
        assert source.read() == b"all"
    assert source.closed


@pytest.mark.parametrize("times", [1, 3])
async def test_a_file_that_was_opened_as_its_block_was_cancelled_is_closed(times: int) -> None:
    work = Work()

    async def block() -> None:
        async with open_in_thread(work):
            pytest.fail("it was cancelled")

    await cancelled(asyncio.create_task(block()), work, times)
    assert work.file.closed
