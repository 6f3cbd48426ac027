"""Work in threads that is over when its caller goes on, also when the caller is cancelled: then it can be undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """``asyncio.to_thread``, which leaves no thread at work behind. Raises what the work raises."""
    context = copy_context()
    working = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(work, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):  # again: the first one goes on below
                await asyncio.wait([working])
        working.exception()  # nobody else asks for it
        raise


@asynccontextmanager
async def opened(open: Callable[[], AbstractContextManager[T]]) -> AsyncIterator[T]:
    """What is opened in a thread, for a block. Raises what opening it raises."""
    with ExitStack() as stack:
        yield await to_its_end(lambda: stack.enter_context(open()))
