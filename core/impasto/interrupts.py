"""Interruptions: a Ctrl-C as against a plugin's ``KeyboardInterrupt``, and cancellations that do not abort a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


async def wait_for_end(task: asyncio.Future[Any]) -> None:
    """Wait until a task that ends by itself has ended, however often the caller is cancelled meanwhile.

    The caller raises its first cancellation again.
    """
    import asyncio

    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue


async def finish(work: Awaitable[T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None) -> T:
    """Await work that ends by itself, to its end, and then raise the caller's cancellation again.

    ``undo`` takes the work's result if the caller was cancelled, who does not get it.
    """
    import asyncio

    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await wait_for_end(task)
        if not task.cancelled() and task.exception() is None and undo is not None:
            await finish(undo(task.result()))
        raise


def pass_interrupt(error: BaseException) -> None:
    """Raise the error again if a Ctrl-C raised it: no plugin is to blame for that one.

    A signal's handler runs in the main thread, in the middle of whatever code is at work there. ``asyncio.run``, the
    gateway and batches have handlers of their own: the first Ctrl-C raises nothing in a plugin, it cancels the main
    task or asks for the end. A second one, while a plugin blocks the loop, raises in the handler of ``asyncio.run``,
    whose frame is then in the traceback. Python's own handler alone leaves no frame: what it may have raised is passed.
    """
    if isinstance(error, KeyboardInterrupt) and _is_of_handler(error):
        raise error


def _is_of_handler(error: KeyboardInterrupt) -> bool:
    import functools  # these three only if a plugin fails
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        return False
    # SIGTERM too: the command line handles both alike, and each ``command &`` of a script has SIGINT ignored
    codes = set[object]()
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        code = getattr(handler, "__code__", None)
        if code is not None:
            codes.add(code)
        elif number == signal.SIGINT and handler != signal.SIG_IGN:  # Python's own, or another not written in Python
            return True
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code not in codes:
        trace = trace.tb_next
    return trace is not None
