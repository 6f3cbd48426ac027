"""Every system call by which a batch changes the disk: one object, so that a test can stop a process at each."""

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
"""A link in the folder is never followed: it may lead to a file that is not the batch's."""


class Disk:
    """The system's own calls. All of them block, and raise OSError: not for a loop's thread."""

    def create(self, path: Path) -> int:
        """Create a file for writing; one that an earlier run left is emptied."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OWN, FILE_MODE)

    def append(self, path: Path) -> int:
        """Opens a file whose every write goes to its end."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OWN, FILE_MODE)

    def reopen(self, path: Path) -> int:
        """Opens a file that is there for writing."""
        return os.open(path, os.O_WRONLY | _OWN)

    def reserve(self, descriptor: int, size: int) -> None:
        """Sets ``size`` bytes aside, so that writing them can't fail for want of room."""
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(descriptor, 0, size)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """One write, which may take less than all."""
        return os.write(descriptor, data)

    def overwrite(self, descriptor: int, data: bytes) -> None:
        """Write a few bytes at the beginning of a file, in one call."""
        os.pwrite(descriptor, data, 0)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts a file, or gives back what was reserved and not used."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Waits until the file's data are on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Lets go of the descriptor."""
        os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Makes a folder and those above it, where they are missing, and waits until their names are on the disk."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Waits until the names in a folder are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, path: Path, name: Path) -> None:
        """Gives a file a second name. Raises FileExistsError rather than take a name away from another file."""
        os.link(path, name)

    def rename(self, path: Path, name: Path) -> None:
        """Gives a file another name, in the place of whatever had it."""
        os.rename(path, name)  # noqa: PTH104 - the call itself, as its siblings here

    def remove(self, path: Path) -> None:
        """Takes a name away; one that is gone already is no error."""
        path.unlink(missing_ok=True)


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading. Raises OSError for a link, and for what is not a file: a FIFO would hang."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _OWN)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is not a file")
    return open(number, "rb")


def is_file_of(path: Path, sha256: str) -> bool:
    """Return True if a file, and not a link to one, has this content."""
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def write_all(disk: Disk, descriptor: int, data: bytes) -> None:
    """Writes all of it, in as many writes as the system wants."""
    left = memoryview(data)
    while left:
        left = left[disk.write(descriptor, left) :]
