"""Every system call with which a batch changes the disk: one object, so that a test can stop a process at each."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

FOLDER_MODE = 0o755
FILE_MODE = 0o644

_OWN = os.O_CLOEXEC | os.O_NOFOLLOW
"""Flags that never follow a link: it may lead to a file outside the batch."""


class Disk:
    """The system's own calls. All of them block, and raise OSError: never call them in a loop's thread."""

    def create(self, path: Path) -> int:
        """Create a file for writing; a file of an earlier run is emptied."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OWN, FILE_MODE)

    def append(self, path: Path) -> int:
        """Open a file whose every write goes to its end."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OWN, FILE_MODE)

    def reopen(self, path: Path) -> int:
        """Open an existing file for writing."""
        return os.open(path, os.O_WRONLY | _OWN)

    def reserve(self, descriptor: int, size: int) -> None:
        """Reserve ``size`` bytes, so that writing them can't fail for lack of space."""
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(descriptor, 0, size)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write once; fewer bytes than all may be written."""
        return os.write(descriptor, data)

    def overwrite(self, descriptor: int, data: bytes) -> None:
        """Write a few bytes at the beginning of a file, in one call."""
        os.pwrite(descriptor, data, 0)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file, or release unused reserved space."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's data are on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""
        os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Create a folder and its missing parents, and wait until their names are on the disk."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, path: Path, name: Path) -> None:
        """Give a file a second name. Raises FileExistsError if another file has it."""
        os.link(path, name)

    def rename(self, path: Path, name: Path) -> None:
        """Rename a file, replacing any other of that name."""
        os.rename(path, name)  # noqa: PTH104 - the call itself, as its siblings here

    def remove(self, path: Path) -> None:
        """Remove a name. A missing one is not an error."""
        path.unlink(missing_ok=True)


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading. Raises OSError for a link, and for anything but a file: a FIFO would hang."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _OWN)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is not a file")
    return open(number, "rb")


def is_file_of(path: Path, sha256: str) -> bool:
    """Return True if a regular file, not a link, has this content."""
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def write_all(disk: Disk, descriptor: int, data: bytes) -> None:
    """Write all data, in as many writes as the system needs."""
    left = memoryview(data)
    while left:
        left = left[disk.write(descriptor, left) :]
