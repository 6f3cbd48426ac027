"""A clock for what is stored on one machine: it deletes no record too early because somebody set the machine's clock.

While the machine runs, time passes as its boot clock says, which nobody can set. If the wall clock suddenly shows
another time, this clock goes on as before for a day: by then every record that a key needs is over. Then it follows.
The processes of the machine agree by a file; what passed while the machine was off only the wall clock knows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CLOCK_NAME = "clock.json"

HOLD_SECONDS = 25 * 3600.0
"""Seconds until another time is followed: a day, and the time of a call."""

TOLERANCE_SECONDS = 60.0
"""The largest difference that is ignored: the wall clock is corrected in small steps."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def wall_seconds() -> float:
    """Return the seconds since 1970 of the clock that anybody can set."""
    return time.time()


def boot_seconds() -> float:
    """Return the seconds since the machine started, those of its sleep counted if the system can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class StoreClock:
    """Seconds since 1970. Each operation of the store may read it; the thread of the store loads and saves it."""

    def __init__(
        self, folder: Path, wall: Callable[[], float] = wall_seconds, boot: Callable[[], float] = boot_seconds
    ) -> None:
        self._path = folder / CLOCK_NAME
        self._wall, self._boot = wall, boot
        self._offset: float | None = None
        """The time at which the machine started, as far as this clock believes. None: it believes the wall clock."""
        self._differs_since: float | None = None
        """The boot clock's time of the first difference."""
        self._boot_id = ""
        self._is_changed = False

    def __call__(self) -> float:
        """Return the time."""
        wall, boot = self._wall(), self._boot()
        if self._offset is None:
            return wall
        if abs(wall - boot - self._offset) <= TOLERANCE_SECONDS:
            self._change(self._offset, None)
            return wall
        if self._differs_since is None:
            self._change(self._offset, boot)
        elif boot - self._differs_since > HOLD_SECONDS:
            self._change(wall - boot, None)
            return wall
        return boot + self._offset

    def load(self) -> None:
        """Read what other processes know, or begin if the machine was started again. Blocks."""
        try:
            self._boot_id = _BOOT_ID.read_text().strip()
        except OSError:  # a system that gives its run no name
            return
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(self._path.read_text("utf-8"))
            if record["boot"] == self._boot_id:
                self._offset = float(record["offset"])
                self._differs_since = record["differs_since"] and float(record["differs_since"])
                return
        self._offset, self._is_changed = self._wall() - self._boot(), True
        self.save()

    def save(self) -> None:
        """Tell other processes what has changed. Blocks. Raises nothing: they find it out, and wait for longer."""
        if self._is_changed:
            self._is_changed = False
            part = self._path.with_suffix(".part")
            record = {"boot": self._boot_id, "offset": self._offset, "differs_since": self._differs_since}
            with suppress(OSError):
                part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                part.write_text(json.dumps(record), "utf-8")
                part.replace(self._path)

    def _change(self, offset: float, differs_since: float | None) -> None:
        if (offset, differs_since) != (self._offset, self._differs_since):
            self._offset, self._differs_since, self._is_changed = offset, differs_since, True
