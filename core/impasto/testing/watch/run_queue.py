"""The wait of a thread for a core of a busy machine."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Self


class RunQueue:
    """The seconds that a thread waited for a core while others ran, which are no plugin's fault. Linux counts them."""

    def __init__(self) -> None:
        self._file: int | None = None

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def seconds(self) -> float:
        """Return the seconds of the thread that entered it until now, 0 if the system does not count them."""
        if (file := self._file) is not None:
            with suppress(OSError):  # the thread has ended
                return int(os.pread(file, 100, 0).split()[1]) / 1e9
        return 0.0
