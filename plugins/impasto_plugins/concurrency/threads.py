"""Work in threads that always finishes before its caller continues, also after a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from impasto.ext import finish

P = ParamSpec("P")
T = TypeVar("T")


async def to_thread_shielded(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work in a thread and wait for its end, also when cancelled. Raises the errors of the work."""
    context = copy_context()
    working = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(work, *args, **kwargs))
    return await finish(working)


@asynccontextmanager
async def open_in_thread(open: Callable[[], AbstractContextManager[T]]) -> AsyncIterator[T]:
    """Open a context manager in a thread, for a block. Raises the errors of opening it."""
    with ExitStack() as stack:
        yield await to_thread_shielded(lambda: stack.enter_context(open()))
