"""The boundary around a plugin's code that runs before a call: whatever it raises is a BrokenPlugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import BrokenPlugin, ImpastoError
from .interrupts import pass_interrupt
from .redact import describe_error


@contextmanager
def plugin_boundary(failure: str, *, awaits: bool = False) -> Iterator[None]:
    """Raise BrokenPlugin for whatever is raised inside, but for impasto's own errors and a Ctrl-C.

    ``failure`` begins its message. ``awaits``: the code inside awaits, so that it may be cancelled or closed.
    """
    try:
        yield
    except ImpastoError:
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit too: it breaks only itself
        pass_interrupt(error)
        if awaits and (isinstance(error, GeneratorExit) or is_cancelled(error)):
            raise
        raise BrokenPlugin(f"{failure}: {describe_error(error)}") from error


def is_cancelled(error: BaseException) -> bool:
    """Return True if somebody cancelled the running task; a plugin may raise CancelledError too."""
    import asyncio  # the registry needs this module, and a command line that lists names no loop

    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
