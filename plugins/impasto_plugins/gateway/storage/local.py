"""Images behind URLs: stored in a folder under names that nobody can guess, until they expire."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from impasto import Artifact
from impasto.ext import EXTENSIONS

from .contents import StoreError

_NAME_BITS = 256
_CHUNK_BYTES = 1 << 20
UNKNOWN_TYPE = "application/octet-stream"
"""The media type of unknown content."""

_EXTENSIONS = {**EXTENSIONS, UNKNOWN_TYPE: ".bin"}
_TYPES = {extension: media_type for media_type, extension in _EXTENSIONS.items()}
FILE_NAME = re.compile(rf"[A-Za-z0-9_-]{{43}}({'|'.join(map(re.escape, _TYPES))})")
"""The names of stored images."""


class ImageStore(Protocol):
    """A store of images behind URLs."""

    async def save(self, artifact: Artifact) -> str:
        """Store an image and return its name. Raises StoreError."""
        ...

    async def exists(self, name: str) -> bool:
        """Return True if there is an image of this name. Raises StoreError."""
        ...

    async def url_for(self, name: str, base_url: str) -> str:
        """Return the URL of an image; ``base_url`` is the gateway's own. Raises StoreError."""
        ...


async def save_all(store: ImageStore, artifacts: Sequence[Artifact]) -> list[str]:
    """Store images side by side and return their names. Raises StoreError if one of them fails."""
    results = await asyncio.gather(*map(store.save, artifacts), return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return [str(name) for name in results]


def is_storable(media_type: str) -> bool:
    """Return True if files of this media type can be stored and served."""
    return media_type in _EXTENSIONS


def new_file_name(media_type: str) -> str:
    """Return a name that nobody can guess. Raises StoreError."""
    if (extension := _EXTENSIONS.get(media_type)) is None:
        raise StoreError(f"{media_type[:60]} is not a media type that is served")
    return secrets.token_urlsafe(_NAME_BITS // 8) + extension


def media_type_of_name(name: str) -> str:
    """Return the media type of a stored image."""
    return _TYPES[Path(name).suffix]


@attrs.frozen
class StoredFile:
    """A stored image, open; the caller closes ``source``."""

    source: BinaryIO
    media_type: str
    size: int
    seconds_left: float


@attrs.frozen
class LocalStore:
    """A folder of images, shared by all workers. ``seconds``: lifetime of each; ``clock``: seconds since 1970."""

    path: Path
    seconds: float
    clock: Callable[[], float] = time.time

    async def save(self, artifact: Artifact) -> str:
        """Store an image and return its name. Raises StoreError."""
        name = new_file_name(artifact.media_type)
        try:
            await asyncio.to_thread(self._save, name, artifact)
        except OSError as error:
            raise StoreError(f"files.folder: {error.strerror or type(error).__name__}") from None
        return name

    async def url_for(self, name: str, base_url: str) -> str:
        """Return the URL of an image."""
        return f"{base_url}/v1/images/files/{name}"

    async def find(self, name: str) -> StoredFile | None:
        """Return the image of a name, or None if there is none or it has expired."""
        if FILE_NAME.fullmatch(name) is None:
            return None
        return await asyncio.to_thread(self._find, name)

    async def exists(self, name: str) -> bool:
        """Return True if there is an image of this name."""
        file = await self.find(name)
        if file is not None:
            file.source.close()
        return file is not None

    async def delete(self, name: str) -> None:
        """Delete an image."""
        await asyncio.to_thread((self.path / name).unlink, missing_ok=True)

    def names(self) -> set[str]:
        """Return the names of all images. Blocks."""
        try:
            return {path.name for path in self.path.iterdir() if FILE_NAME.fullmatch(path.name)}
        except OSError:  # not there yet
            return set()

    def remove_expired(self) -> None:
        """Delete expired images; nothing else in the folder is touched. Blocks."""
        for path in map(self.path.joinpath, self.names()):
            with suppress(OSError):  # another worker was faster, or it is not a file
                if self._seconds_left(path.lstat()) <= 0:
                    path.unlink()

    def _save(self, name: str, artifact: Artifact) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / name
        temporary_path = self.path / f".{name}.part"
        try:
            fd = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "wb") as target, artifact.content.open() as source:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
            temporary_path.rename(path)
        except OSError:
            temporary_path.unlink(missing_ok=True)
            raise

    def _find(self, name: str) -> StoredFile | None:
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        status = os.fstat(fd)
        seconds_left = self._seconds_left(status)
        if not stat.S_ISREG(status.st_mode) or seconds_left <= 0:
            os.close(fd)
            return None
        source = open(fd, "rb", buffering=0)  # noqa: SIM115 - closed by the caller
        return StoredFile(source, media_type_of_name(name), status.st_size, seconds_left)

    def _seconds_left(self, status: os.stat_result) -> float:
        return min(status.st_mtime - self.clock(), 0.0) + self.seconds  # a file of the future is one of now
