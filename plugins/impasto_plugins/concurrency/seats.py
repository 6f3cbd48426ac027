"""Marks of living processes in a folder that they share."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from pathlib import Path

SEATS = "processes"
"""The folder of seats below that of a state."""


class Seat:
    """This process's mark in a folder: a locked file. Whoever can lock it knows that the process has ended."""

    def __init__(self, folder: Path, number: int, fd: int) -> None:
        self.number = number
        self._folder, self._fd = folder, fd

    @classmethod
    def take(cls, folder: Path) -> Seat:
        """Create the file, visible once it is locked. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = [each.name for each in folder.glob("[0-9a-f]" * 16)]
        number = secrets.randbits(63)
        temporary_path = folder / f".{number:016x}"
        fd = os.open(temporary_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        temporary_path.rename(folder / f"{number:016x}")
        seat = cls(folder, number, fd)
        for other in others:  # otherwise each process would leave a file for good
            seat.has_ended(int(other, 16))
        return seat

    def close(self) -> None:
        """Close the file. A forked process must not keep it locked for its parent."""
        os.close(self._fd)

    def has_ended(self, number: int) -> bool:
        """Return True if the process of another seat has ended. Its file is deleted."""
        path = self._folder / f"{number:016x}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError:  # too many open files, another user's file: it is not proved
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


_seats: dict[Path, Seat] = {}
_lock = threading.Lock()


def seat_in(folder: Path) -> Seat:
    """Return this process's seat in a folder, which it takes once. Raises OSError."""
    with _lock:
        if (seat := _seats.get(folder)) is None:
            seat = _seats[folder] = Seat.take(folder)
        return seat


def _leave_to_parent() -> None:
    """Forget the parent's seats in a forked process."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have had it
    _lock = threading.Lock()
    for seat in _seats.values():
        seat.close()
    _seats.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
