"""Pictures that are answered as a URL: kept in a folder under names that nobody guesses, until they expire."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from impasto import Artifact

_BITS = 256
_PIECE = 1 << 20
ANYTHING = "application/octet-stream"
"""The media type of what nobody knows."""

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "model/gltf-binary": "glb",
    ANYTHING: "bin",
}
_TYPES = {extension: media_type for media_type, extension in _EXTENSIONS.items()}
_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpg|webp|mp3|wav|glb|bin)")


class NotKept(Exception):
    """A picture could not be kept. Its message is for the log."""


class Store(Protocol):
    """Where pictures are kept that are answered as a URL."""

    async def keep(self, artifact: Artifact) -> str:
        """Keeps a picture and gives its name. Raises NotKept."""
        ...

    async def holds(self, name: str) -> bool:
        """Whether there is a picture of a name. Raises NotKept."""
        ...

    async def url(self, name: str, base_url: str) -> str:
        """The URL at which it is served; ``base_url`` is the gateway's own. Raises NotKept."""
        ...


async def keep_all(store: Store, artifacts: Sequence[Artifact]) -> list[str]:
    """Keeps pictures side by side and gives their names. Raises NotKept where one of them is not."""
    kept = await asyncio.gather(*map(store.keep, artifacts), return_exceptions=True)
    for each in kept:
        if isinstance(each, BaseException):
            raise each
    return [str(name) for name in kept]


def new_name(media_type: str) -> str:
    """A name that nobody guesses. Raises NotKept."""
    if (extension := _EXTENSIONS.get(media_type)) is None:
        raise NotKept(f"{media_type[:60]} is no picture that is served")
    return f"{secrets.token_urlsafe(_BITS // 8)}.{extension}"


@attrs.frozen
class Kept:
    """A picture that is kept, open; whoever asked for it closes ``source``."""

    source: BinaryIO
    media_type: str
    size: int
    seconds_left: float


@attrs.frozen
class Folder:
    """A folder of pictures, shared by all workers. ``seconds``: how long each is kept."""

    path: Path
    seconds: float

    async def keep(self, artifact: Artifact) -> str:
        """Keeps a picture and gives its name. Raises NotKept."""
        name = new_name(artifact.media_type)
        try:
            await asyncio.to_thread(self._keep, name, artifact)
        except OSError as error:
            raise NotKept(f"files.folder: {error.strerror or type(error).__name__}") from None
        return name

    async def url(self, name: str, base_url: str) -> str:
        """The URL at which it is served."""
        return f"{base_url}/v1/images/files/{name}"

    async def find(self, name: str) -> Kept | None:
        """The picture of a name, None where there is none or it has expired."""
        if _NAME.fullmatch(name) is None:
            return None
        return await asyncio.to_thread(self._find, name)

    async def holds(self, name: str) -> bool:
        """Whether there is a picture of a name."""
        found = await self.find(name)
        if found is not None:
            found.source.close()
        return found is not None

    def remove_expired(self) -> None:
        """Removes what has expired; nothing else in the folder is touched."""
        try:
            entries = os.scandir(self.path)
        except OSError:  # not there yet
            return
        with entries:
            for entry in entries:
                try:
                    if _NAME.fullmatch(entry.name) and self._seconds_left(entry.stat(follow_symlinks=False)) <= 0:
                        Path(entry.path).unlink()
                except OSError:  # another worker was faster, or it is no file
                    continue

    def _keep(self, name: str, artifact: Artifact) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / name
        part = self.path / f".{name}.part"
        try:
            made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(made, "wb") as target, artifact.content.open() as source:
                shutil.copyfileobj(source, target, _PIECE)
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _find(self, name: str) -> Kept | None:
        try:
            number = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        found = os.fstat(number)
        left = self._seconds_left(found)
        if not stat.S_ISREG(found.st_mode) or left <= 0:
            os.close(number)
            return None
        source = open(number, "rb", buffering=0)  # noqa: SIM115 - closed by whoever asked
        return Kept(source, _TYPES[name.rpartition(".")[2]], found.st_size, left)

    def _seconds_left(self, found: os.stat_result) -> float:
        return min(found.st_mtime - time.time(), 0.0) + self.seconds  # a file of the future is one of now
