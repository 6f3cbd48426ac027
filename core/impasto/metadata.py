"""Metadata folders of installed distributions. A damaged one is set apart with its reason and stops nothing.

Not ``importlib.metadata.entry_points``: one damaged folder, of whatever distribution, makes it raise for all of them.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .interrupts import pass_interrupt
from .redact import printable

if TYPE_CHECKING:
    from importlib.metadata import Distribution as InstalledDistribution, EntryPoint

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
"""A distribution's name (PyPA's core metadata)."""

_PREFIX = "impasto."
"""The beginning of the names of all entry-point groups that are read here."""

_LONGEST_VERSION = 60
_SETTLED_NS = 1_000_000_000
"""Nanoseconds after which a second change of a folder has another time: file systems count in ticks."""


class Distribution(NamedTuple):
    """A distribution whose metadata folder can be read. ``entries`` are all of its entry points.

    ``is_own``: it is impasto itself, judged by its files and not by its name.
    """

    path: str
    name: str
    version: str
    installed: InstalledDistribution
    entries: tuple[EntryPoint, ...]
    is_own: bool = False

    def read_text(self, name: str) -> str | None:
        """Return a file of its metadata, None if there is none. Raises OSError, ValueError."""
        return read_text(self.installed, name)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class DamagedDistribution(NamedTuple):
    """A metadata folder that is skipped. ``has_plugins``: the folder declares plugins, or is one of impasto itself."""

    path: str
    reason: str
    has_plugins: bool


class Unreadable(ValueError):
    """A reason why a metadata folder can't be read."""


def read_folders(*, complete: bool = False) -> tuple[list[Distribution], list[DamagedDistribution]]:
    """Return the folders with plugins, or with ``complete`` all folders, and the damaged ones of them."""
    readable: list[Distribution] = []
    damaged: list[DamagedDistribution] = []
    for distribution in _distributions(damaged):
        place, has_plugins = type(distribution).__qualname__, False
        try:
            path = getattr(distribution, "_path", None)
            stem = getattr(path, "name", "").partition("-")[0]
            place, has_plugins = str(path), stem.lower().endswith("mpasto")
            points = read_text(distribution, "entry_points.txt")
            has_plugins = has_plugins or (points is not None and _PREFIX in points)
            if not has_plugins and not complete:
                continue
            if stem.startswith("~"):
                raise Unreadable("pip left it behind when it replaced a distribution; delete it")
            readable.append(_read(distribution, place, has_entries=points is not None))
        except BaseException as error:  # noqa: BLE001 - whatever a damaged text leads to, in somebody else's class too
            pass_interrupt(error)
            if has_plugins or complete:
                damaged.append(DamagedDistribution(place, _reason(error), has_plugins))
    return readable, damaged


def folder_versions() -> tuple[tuple[str, int], ...] | None:
    """Return the folders of ``sys.path`` with the times of their last changes: equal ones have the same distributions.

    None if that can't be said: a folder changes right now, or a finder of somebody else's has distributions.
    """
    from importlib.machinery import PathFinder

    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return None
    settled = time.time_ns() - _SETTLED_NS
    versions: list[tuple[str, int]] = []
    for folder in map(os.path.abspath, sys.path):
        try:
            changed = Path(folder).stat().st_mtime_ns
        except OSError:
            continue
        if changed > settled:
            return None
        versions.append((folder, changed))
    return tuple(versions)


def _distributions(damaged: list[DamagedDistribution]) -> list[InstalledDistribution]:
    """Return what each finder of ``sys.meta_path`` finds, until it raises."""
    from importlib.metadata import DistributionFinder  # 55 ms: not for those who only import

    found: list[InstalledDistribution] = []
    for finder in sys.meta_path:
        try:
            find = getattr(finder, "find_distributions", None)
            if find is not None:
                found.extend(find(DistributionFinder.Context()))
        except BaseException as error:  # noqa: BLE001 - somebody else's finder of distributions
            pass_interrupt(error)
            reason = f"this finder of distributions failed: {_reason(error)}"
            damaged.append(DamagedDistribution(type(finder).__qualname__, reason, has_plugins=False))
    return found


def _read(distribution: InstalledDistribution, path: str, *, has_entries: bool) -> Distribution:
    head = next((text for name in ("METADATA", "PKG-INFO", "") if (text := read_text(distribution, name))), None)
    if head is None:
        raise Unreadable("it has no METADATA; install the distribution again, or delete the folder")
    name = _header(head, "Name")
    if name is None or NAME.fullmatch(name) is None:
        raise Unreadable("its METADATA has no valid Name; install the distribution again, or delete the folder")
    try:
        entries = tuple(distribution.entry_points) if has_entries else ()
        valid = all(each.name and each.name.isprintable() and each.value.isprintable() for each in entries)
    except Exception as error:  # whatever a malformed line leads to
        raise Unreadable(f"its entry_points.txt is malformed ({type(error).__name__})") from error
    if not valid:
        raise Unreadable("its entry_points.txt is malformed: a name or value is empty or not printable")
    version = printable(_header(head, "Version") or "unknown")[:_LONGEST_VERSION]
    return Distribution(path, name, version, distribution, entries)


def _header(text: str, name: str) -> str | None:
    head = text.replace("\r\n", "\n").partition("\n\n")[0]
    match = re.search(rf"^{name}[ \t]*:[ \t]*(\S.*?)[ \t]*$", head, re.IGNORECASE | re.MULTILINE)
    return match[1] if match is not None else None


def read_text(distribution: InstalledDistribution, name: str) -> str | None:
    """Return a file of a metadata folder, None if there is none. Raises OSError, ValueError, Unreadable."""
    place = getattr(distribution, "_path", None)
    if not isinstance(place, Path):  # in a zip file, or of a finder of its own
        return distribution.read_text(name)
    path = place / name if name else place
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(mode):  # to open a FIFO would wait for a writer
        if not name:
            return None
        raise Unreadable(f"its {name} is not a file")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Unreadable(f"its {name or 'text'} is not UTF-8") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"it can't be read: {error.strerror or type(error).__name__}"
    return printable(str(error)) if isinstance(error, Unreadable) else f"it can't be read ({type(error).__name__})"


def holds_running_code(folder: Distribution) -> int:
    """Return how well a folder proves that it belongs to the impasto that runs: 2 by its RECORD, 1 by its place, or 0.

    A name proves nothing: any distribution can call itself impasto.
    """
    distribution, here = folder.installed, Path(__file__).parent.resolve()
    try:
        record = read_text(distribution, "RECORD")
        is_beside = Path(str(distribution.locate_file("impasto"))).resolve() == here
        if record is None:  # some systems' packages have none
            return 1 if is_beside else 0
        paths = [line.partition(",")[0] for line in record.splitlines()]
        if "impasto/metadata.py" in paths:
            return 2 if is_beside else 0
        return 2 if any(_leads_here(Path(str(distribution.locate_file(path))), here) for path in paths) else 0
    except BaseException as error:  # noqa: BLE001 - unreadable is no proof
        pass_interrupt(error)
        return 0


def _leads_here(path: Path, here: Path) -> bool:
    """Return True if an editable installation's .pth file or finder leads to the code that runs."""
    if path.suffix != ".pth" and not (path.name.startswith("__editable__") and path.suffix == ".py"):
        return False
    text = path.read_text("utf-8")
    lines = (Path(line.strip()) for line in text.splitlines())
    return here.parent in (line.resolve() for line in lines if line.is_absolute()) or str(here) in text
