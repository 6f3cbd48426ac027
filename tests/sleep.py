"""asyncio.sleep under a test's control."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest


def replace_sleep(monkeypatch: pytest.MonkeyPatch, replacement: Callable[[float], Awaitable[object]]) -> None:
    """Replace ``asyncio.sleep`` in this thread alone: the gateway that all tests share sleeps in another one."""
    sleep, thread = asyncio.sleep, threading.get_ident()

    async def by_thread(seconds: float) -> None:
        await (replacement if threading.get_ident() == thread else sleep)(seconds)

    monkeypatch.setattr(asyncio, "sleep", by_thread)
