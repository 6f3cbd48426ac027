"""Contents that outlive their request: outcomes of calls, uploaded files, the input and output of batches.

A content has a name, such as ``files/file-…``. ``FolderContents`` are in a folder of this machine, ``BucketContents``
in a bucket that all replicas share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import attrs

from impasto import ConfigError, File, ImpastoError
from impasto_plugins.stored_artifacts import sync_folder, write_content
from impasto_plugins.transports.s3 import NotStored

_log = logging.getLogger("impasto.gateway")


class StoreError(Exception):
    """Something could not be stored or read. The message is for the log."""

    def __init__(self, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent
        """True if waiting does not help: a setting, the bucket or its rights must be changed first."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise StoreError for a bucket that can't be used."""
    try:
        yield
    except NotStored as error:
        reason = str(error)
        if error.code == "NoSuchBucket":
            reason = f"there is no such bucket ({error}); create it, or correct its name and endpoint_url"
        elif error.status in (401, 403):
            rights = "s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket"
            reason = f"the service refused the credentials or their rights ({error}); they need {rights}"
        raise StoreError(f"files.s3: {reason}", is_permanent=not error.is_transient) from None
    except ImpastoError as error:
        raise StoreError(f"files.s3: {error.message}", is_permanent=isinstance(error, ConfigError)) from None


class ContentStore(Protocol):
    """Contents by name. ``folder``: a local folder in which a content is written, and read if a path is needed."""

    @property
    def folder(self) -> Path:
        """The local folder."""
        ...

    async def check(self) -> None:
        """Raise StoreError if nothing can be stored now."""
        ...

    async def save(self, contents: Mapping[str, File]) -> AbstractSet[str]:
        """Store contents, so that they survive a loss of power; return the names of those that are stored."""
        ...

    @property
    def waiting(self) -> AbstractSet[str]:
        """The names of contents that only this machine has, until they can be uploaded."""
        ...

    async def publish(self, name: str) -> None:
        """Store the file that was written in the local folder under this name. Raises StoreError."""
        ...

    async def publish_all(self) -> None:
        """Upload the contents that wait, also those of earlier processes on this machine. Raises StoreError."""
        ...

    async def copy(self, source: str, target: str) -> bool:
        """Store a content under a second name; return False if it does not exist. Raises StoreError."""
        ...

    async def open(self, name: str) -> File | None:
        """Return a content, open: deleting it does not affect the reader. None if it does not exist.

        Raises StoreError.
        """
        ...

    async def fetch(self, name: str) -> bool:
        """Make sure that a content is in the local folder; return False if it does not exist. Raises StoreError."""
        ...

    async def delete(self, names: Collection[str]) -> None:
        """Delete contents. Raises StoreError."""
        ...

    async def delete_folder(self, name: str) -> None:
        """Delete all contents below a folder, such as ``runs/batch_…``. Raises StoreError."""
        ...

    async def ages(self, folder: str = "", skip: Collection[str] = ()) -> Mapping[str, float]:
        """Return the names in a folder except some, each with its age in seconds. Raises StoreError.

        A folder in it is as old as its youngest content.
        """
        ...


@attrs.frozen
class FolderContents:
    """Contents in a folder of this machine."""

    folder: Path
    waiting: AbstractSet[str] = attrs.field(default=frozenset(), init=False)
    """No names: nothing is uploaded."""

    async def check(self) -> None:
        """Do nothing: the database in the data directory is written before a call, and shows whether the disk works."""

    async def save(self, contents: Mapping[str, File]) -> AbstractSet[str]:
        """Store contents, with one sync of the folder; return the names of those that are stored."""
        return await asyncio.to_thread(self._save, contents)

    async def publish(self, name: str) -> None:
        """Sync the name of a file. Raises StoreError."""
        try:
            await asyncio.to_thread(sync_folder, (self.folder / name).parent)
        except OSError as error:
            raise StoreError(str(error.strerror)) from None

    async def publish_all(self) -> None:
        """Do nothing."""

    async def copy(self, source: str, target: str) -> bool:
        """Give a file a second name; return False if it does not exist. Raises StoreError."""
        try:
            await asyncio.to_thread(_link_or_copy, self.folder / source, self.folder / target)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(str(error.strerror)) from None
        return True

    async def open(self, name: str) -> File | None:
        """Return a file, open; None if it does not exist."""
        try:
            return await asyncio.to_thread(_open_file, self.folder / name)
        except OSError:
            return None

    async def fetch(self, name: str) -> bool:
        """Return False if a file does not exist."""
        return await asyncio.to_thread((self.folder / name).exists)

    async def delete(self, names: Collection[str]) -> None:
        """Delete files."""
        for name in names:
            await asyncio.to_thread((self.folder / name).unlink, missing_ok=True)

    async def delete_folder(self, name: str) -> None:
        """Delete a folder."""
        await asyncio.to_thread(shutil.rmtree, self.folder / name, ignore_errors=True)

    async def ages(self, folder: str = "", skip: Collection[str] = ()) -> Mapping[str, float]:
        """Return the names in a folder except some, with their ages in seconds."""
        ages = await asyncio.to_thread(self._ages, self.folder / folder)
        return {name: age for name, age in ages.items() if name not in skip}

    def _save(self, contents: Mapping[str, File]) -> AbstractSet[str]:
        stored = set[str]()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in contents.items():
                try:
                    write_content(self.folder / name, content, only_new=True)
                    stored.add(name)
                except OSError as error:
                    _log.error("a paid image could not be stored: %s", error.strerror)
            sync_folder(self.folder)
        except OSError as error:
            _log.error("paid images could not be stored: %s", error.strerror)
            for name in stored:
                with suppress(OSError):
                    (self.folder / name).unlink()
            return set()
        return stored

    def _ages(self, folder: Path) -> Mapping[str, float]:
        now, ages = time.time(), dict[str, float]()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # it was deleted just now
                    ages[entry.name] = now - entry.stat(follow_symlinks=False).st_mtime
        return ages


def _open_file(path: Path) -> File:
    """Open a file by its descriptor: deleting it meanwhile does not affect the reader. Raises OSError."""
    with open(path, "rb") as source:
        return File.of((path.name, source))


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which stays if the first is deleted. Raises OSError."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
