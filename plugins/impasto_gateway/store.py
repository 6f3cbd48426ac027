"""Pictures that are answered as a URL: kept in a folder under names that nobody guesses, until they expire."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import BinaryIO

import attrs

from impasto import Artifact

_BITS = 256
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_TYPES = {extension: media_type for media_type, extension in _EXTENSIONS.items()}
_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpg|webp)")


@attrs.frozen
class Kept:
    """A picture that is kept, open; whoever asked for it closes ``source``."""

    source: BinaryIO
    media_type: str
    size: int
    seconds_left: float


@attrs.frozen
class Store:
    """A folder of pictures, shared by all workers. ``seconds``: how long each is kept."""

    folder: Path
    seconds: float

    async def keep(self, artifact: Artifact) -> str:
        """Keeps a picture and gives its name. Raises OSError."""
        return await asyncio.to_thread(self._keep, artifact)

    async def find(self, name: str) -> Kept | None:
        """The picture of a name, None where there is none or it has expired."""
        if _NAME.fullmatch(name) is None:
            return None
        return await asyncio.to_thread(self._find, name)

    async def sweep(self) -> None:
        """Removes what has expired, for ever, from time to time."""
        while True:
            await asyncio.to_thread(self.remove_expired)
            await asyncio.sleep(min(self.seconds, 300.0))

    def remove_expired(self) -> None:
        """Removes what has expired; nothing else in the folder is touched."""
        try:
            names = [entry for entry in os.scandir(self.folder) if _NAME.fullmatch(entry.name)]
        except OSError:  # not there yet
            return
        for entry in names:
            try:
                if entry.stat(follow_symlinks=False).st_mtime + self.seconds < time.time():
                    Path(entry.path).unlink()
            except OSError:  # another worker was faster
                continue

    def _keep(self, artifact: Artifact) -> str:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{secrets.token_urlsafe(_BITS // 8)}.{_EXTENSIONS[artifact.media_type]}"
        path = self.folder / name
        part = self.folder / f".{name}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                target.write(artifact.data)
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return name

    def _find(self, name: str) -> Kept | None:
        try:
            number = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        source = open(number, "rb", buffering=0)  # noqa: SIM115 - closed by whoever asked
        found = os.fstat(number)
        left = found.st_mtime + self.seconds - time.time()
        if not stat.S_ISREG(found.st_mode) or left <= 0:
            source.close()
            return None
        return Kept(source, _TYPES[name.rpartition(".")[2]], found.st_size, left)
