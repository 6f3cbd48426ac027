"""An emulator of the image providers: a real HTTP server that checks, draws, keeps account and can be made to fail."""

from .server import Emulator, serve
from .settings import SHORT, Settings

__all__ = ["SHORT", "Emulator", "Settings", "serve"]
