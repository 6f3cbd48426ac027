"""Refusals of calls that can't be recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from impasto.ext import StateError
from impasto_plugins.gateway.errors import overloaded

from .contents import StoreError

_log = logging.getLogger("impasto.gateway")


@contextmanager
def storage_required(action: str = "written down") -> Iterator[None]:
    """Convert storage errors to a refusal, around reads and writes that must precede a call."""
    try:
        yield
    except ConnectionError:  # the caller left
        raise
    except (StateError, StoreError, OSError) as error:  # the state, the bucket, or the tables of calls in flight
        _log.error("a call can't be %s: %s", action, error)
        message = (
            f"the call can't be {action} now, and without that a repeated request could be charged twice; nothing was"
            " sent, try again"
        )
        raise overloaded(message) from None
