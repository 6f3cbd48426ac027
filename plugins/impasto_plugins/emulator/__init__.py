"""An emulator of the image providers: a real HTTP server that checks, draws, counts charges and can simulate faults.

async with Emulator() as emulator: ...      # in a loop
with serve() as emulator: ...               # in a thread
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server.server import Emulator, serve
    from .settings import SHORT, EmulatorSettings

__all__ = ["SHORT", "Emulator", "EmulatorSettings", "serve"]


def __getattr__(name: str) -> object:
    """Import on first use: the server needs aiohttp and Pillow, listing the commands does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import settings
    from .server import server

    return getattr(server, name, None) or getattr(settings, name)
