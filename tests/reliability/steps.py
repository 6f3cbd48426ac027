"""Cancellation at a chosen step: every await of a call and of the tasks that it starts is one."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import attrs

_steps: ContextVar[Steps | None] = ContextVar("_steps", default=None)


@attrs.define(eq=False)
class Steps:
    """Counts the awaits of one call that suspend, and cancels its task at each of ``at``."""

    at: tuple[int, ...]
    task: asyncio.Task[Any] | None = None
    count: int = 0

    def next(self) -> None:
        self.count += 1
        if self.count in self.at and self.task is not None:
            self.task.cancel()


@types.coroutine
def _counted(coroutine: Coroutine[Any, Any, Any], steps: Steps) -> Generator[Any, Any, Any]:
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            future = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        steps.next()
        value, error = None, None
        try:
            value = yield future
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as thrown:  # noqa: BLE001 - it is the coroutine's
            error = thrown


async def _run(coroutine: Coroutine[Any, Any, Any], steps: Steps) -> Any:
    return await _counted(coroutine, steps)


class Runner(Protocol):
    """Runs a call, cancels it at these awaits, or turns of the loop, and returns when it has ended (``Steps.task``)."""

    def __call__(
        self, call: Callable[[], Coroutine[Any, Any, Any]], at: tuple[int, ...], *, turns: bool = False
    ) -> Awaitable[Steps]: ...


@contextmanager
def counting() -> Iterator[Runner]:
    """Count the awaits of the calls that the function runs which it yields."""
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        steps = _steps.get()
        return asyncio.Task(coroutine if steps is None else _run(coroutine, steps), loop=loop, **options)

    async def run(call: Callable[[], Coroutine[Any, Any, Any]], at: tuple[int, ...], *, turns: bool = False) -> Steps:
        steps = Steps(() if turns else at)
        token = _steps.set(steps)
        try:
            steps.task = asyncio.create_task(call())
        finally:
            _steps.reset(token)
        if turns:
            for turn in range(1, max(at) + 1):
                await asyncio.sleep(0)
                if turn in at:
                    steps.task.cancel()
        await asyncio.wait((steps.task,), timeout=20)
        assert steps.task.done(), "the call hangs"
        return steps

    loop.set_task_factory(factory)
    try:
        yield run
    finally:
        loop.set_task_factory(None)
