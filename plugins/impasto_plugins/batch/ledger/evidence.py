"""Evidence beside a ledger: results and images that it does not know, and links.

The high-water mark proves that a ledger is whole. If the mark is missing too, files of earlier runs show that they
paid for images. Result files must always belong to this ledger: another folder's ledger may come with its own mark.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from impasto import ConfigError
from impasto.ext import EXTENSIONS
from impasto_plugins.batch.filenames import ANY_SEED, Template, case_folded, is_reserved
from impasto_plugins.batch.tasks import ImageTask

from .filesystem import Disk, open_plain, write_all
from .log import Ledger, ReadPosition, rows, untrusted_ledger
from .states import TaskState

if TYPE_CHECKING:
    from .workspace import LedgerHistory, WorkspacePaths

RESULT_FILES = ("results.jsonl", "errors.jsonl")
_MEDIA = (*EXTENSIONS.values(), ".bin")
_MAX_NAMES = 3
_STAMP_BYTES = 200


def check_links(layout: WorkspacePaths, levels: int = 1) -> None:
    """Raise ConfigError if a link is in the folder: it may lead out of it. The folder itself may be one.

    ``levels``: depth of the images' folders, the folder itself counted.
    """
    for folder in _folders(layout, levels):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ConfigError(
                        f"{entry.path!r} is a link, through which images or the ledger could leave the folder; nothing"
                        " was sent. Replace it with a file or folder, or give another folder (which may itself be"
                        " a link)"
                    )


def _folders(layout: WorkspacePaths, levels: int) -> Iterator[str]:
    """Yield the existing folders that a batch writes to. Links are not followed."""
    if layout.root.is_dir():
        yield str(layout.root)
        own = (layout.hidden, layout.staging, layout.salvage)
        for path in own:
            if path.is_dir() and not path.is_symlink():
                yield str(path)
        yield from _image_folders(str(layout.root), levels, frozenset(map(str, own)))


def _image_folders(folder: str, levels: int, skipped: frozenset[str] = frozenset()) -> Iterator[str]:
    if levels > 1:
        with os.scandir(folder) as entries:
            below = [each.path for each in entries if each.is_dir(follow_symlinks=False) and each.path not in skipped]
        for each in below:
            yield each
            yield from _image_folders(each, levels - 1)


def check_evidence(history: LedgerHistory, *, is_begun: bool) -> None:
    """Raise UntrustedLedger if earlier runs left anything that the ledger does not know.

    ``is_begun``: the batch has begun, so there is a ledger, and every image in the folder belongs to it.
    """
    layout = history.layout
    if is_begun and not history.is_vouched_for:
        if not layout.ledger.exists():
            raise untrusted_ledger(layout.ledger, "is missing")
        recorded = _recorded_paths(layout)
        if unknown_names := [name for name in image_names(layout, 1) if name not in recorded]:
            raise untrusted_ledger(layout.ledger, f"does not know {_list_names(unknown_names)}")
    if history.run is None:
        if not history.is_vouched_for and (left := _leftovers(layout)):
            reason = "is missing" if not layout.ledger.exists() else "is empty"
            raise untrusted_ledger(layout.ledger, f"{reason}, and earlier runs left {_list_names(left)}")
    elif unknown := list(islice(_ids_not_in_ledger(history), _MAX_NAMES)):
        reason = "is another folder's, or an older copy" if history.is_vouched_for else "is an older copy"
        raise untrusted_ledger(layout.ledger, f"{reason}: results.jsonl or errors.jsonl name {_list_names(unknown)}")


def _leftovers(layout: WorkspacePaths) -> list[str]:
    """Return names of files that only a run with requests leaves."""
    if not layout.root.is_dir():
        return []
    left = [path for path in layout.root.iterdir() if is_reserved(path.name) and path.is_file()]
    left += [path for folder in (layout.salvage, layout.staging) if folder.is_dir() for path in folder.iterdir()]
    return sorted(str(path.relative_to(layout.root)) for path in left)


def _list_names(names: list[str]) -> str:
    listing = ", ".join(map(repr, names[:_MAX_NAMES]))
    return listing if len(names) <= _MAX_NAMES else f"{listing} and {len(names) - _MAX_NAMES:,} more"


def write_stamp(layout: WorkspacePaths, disk: Disk, ledger: Ledger) -> None:
    """Note which files of results this ledger wrote. Raises OSError."""
    file = disk.create(layout.stamp)
    try:
        write_all(disk, file, _stamp(layout, ledger.size, ledger.chain))
    finally:
        disk.close(file)


def _stamp(layout: WorkspacePaths, size: int, chain: int) -> bytes:
    """Return how far a ledger is, and the size and time (ns since 1970) of each file of results."""
    parts = [size, chain]
    for name in RESULT_FILES:
        with suppress(OSError):
            found = os.lstat(layout.root / name)
            parts += [found.st_size, found.st_mtime_ns]
    return " ".join(map(str, parts)).encode()


def _are_unchanged(history: LedgerHistory) -> bool:
    """Return True if the files of results are those that this ledger wrote, and no row came after them."""
    layout, read = history.layout, history.read
    try:
        with open_plain(layout.stamp) as file:
            return file.read(_STAMP_BYTES) == _stamp(layout, read.end, read.chain)
    except OSError:
        return False


def _ids_not_in_ledger(history: LedgerHistory) -> Iterator[str]:
    """Yield ids in the result files that were or may have been charged and that the ledger does not know."""
    images = history.images
    if _are_unchanged(history):
        return
    for line in chain.from_iterable(_lines(history.layout.root / name) for name in RESULT_FILES):
        error = line.get("error")
        id = line.get("custom_id")
        if not isinstance(id, str) or (isinstance(error, dict) and error.get("billed") == "no"):
            continue
        for index in _indices(line):
            state = images.state(id, index)
            if state == 0 or (error is None and state != TaskState.DONE):
                yield id
                break


def _indices(line: dict[str, object]) -> list[int]:
    """Return the indices of the images in a line."""
    if isinstance(index := line.get("index"), int):
        return [index]
    match line.get("response"):
        case {"body": {"data": list(data)}}:
            return [each["index"] for each in data if isinstance(each, dict) and isinstance(each.get("index"), int)]
        case _:
            return [0]


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield the readable lines of a result file."""
    try:
        with open_plain(path) as file:
            for line in file:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):  # it is somebody's own, or damaged
                    continue
                if isinstance(value, dict):
                    yield value
    except OSError:
        return


def _recorded_paths(layout: WorkspacePaths) -> set[str]:
    return {row["path"] for _, row in rows(layout.ledger, ReadPosition()) if "path" in row}


def image_names(layout: WorkspacePaths, levels: int) -> set[str]:
    """Return the paths of all images in the folder, below it."""
    return {os.path.relpath(path, layout.root) for path in _images(layout, levels)}


def _images(layout: WorkspacePaths, levels: int) -> Iterator[str]:
    root = str(layout.root)
    if layout.root.is_dir():
        own = frozenset(map(str, (layout.hidden, layout.salvage)))
        for folder in (root, *_image_folders(root, levels, own)):
            with os.scandir(folder) as entries:
                yield from (each.path for each in entries if each.name.endswith(_MEDIA))


class Orphans:
    """Images in a folder that its ledger does not know, if no mark proves that the ledger is whole."""

    def __init__(self, history: LedgerHistory, template: Template) -> None:
        self._layout, self._template = history.layout, template
        names = set[str]()
        if not history.is_started_over and _is_doubtful(history, template.levels):
            names = image_names(history.layout, template.levels)
        if names and history.run is not None:
            names -= _recorded_paths(history.layout)
        self._names = {case_folded(name.rpartition(".")[0]): name for name in names}
        self._by_shape: dict[str, list[str]] = {}
        for name in self._names:
            self._by_shape.setdefault(_shape(name), []).append(name)

    def __bool__(self) -> bool:
        return bool(self._names)

    def find(self, unit: ImageTask) -> str | None:
        """Return the image with a task's name, or None."""
        path = self._template.path(id=unit.id, index=unit.index, n=unit.n, model=unit.model, seed=ANY_SEED)
        before, is_any, after = case_folded(path).partition(ANY_SEED)
        if not is_any:
            name = self._names.get(before)
        else:
            near = self._by_shape.get(_shape(f"{before}0{after}"), ())
            name = next((self._names[each] for each in near if each.startswith(before) and each.endswith(after)), None)
        return None if name is None or _is_input(unit, name) else name

    def check(self, units: Iterable[ImageTask]) -> None:
        """Raise UntrustedLedger if one of these tasks has an image already."""
        if self and (found := [name for unit in units if (name := self.find(unit)) is not None]):
            state = "does not know" if self._layout.ledger.exists() else "is missing, and the folder has"
            raise untrusted_ledger(
                self._layout.ledger, f"{state} {_list_names(found)}, which rows of the manifest ask for"
            )


def _is_doubtful(history: LedgerHistory, levels: int) -> bool:
    """Return True if a ledger may be another folder's, or an older copy.

    No mark confirms it, its images are missing, or there are more images. Counting is quick: names are compared only
    if there is a doubt.
    """
    done = history.images.count[TaskState.DONE]
    is_known = history.is_vouched_for and done and not history.missing
    return not is_known or sum(1 for _ in _images(history.layout, levels)) > done


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _is_input(unit: ImageTask, name: str) -> bool:
    """Return True if an image is an input that the task's row names."""
    base = name.rpartition("/")[2]
    labels = (each for value in unit.content.values() for each in (value if isinstance(value, list) else [value]))
    return any(isinstance(each, str) and each.rpartition("/")[2] == base for each in labels)


def set_aside(layout: WorkspacePaths, disk: Disk) -> None:
    """Move an untrusted ledger, its results and staged images aside: nothing is deleted."""
    number = 1
    while os.path.lexists(aside := layout.ledger.with_name(f"ledger-{number}.jsonl")):
        number += 1
    if os.path.lexists(layout.ledger):
        disk.rename(layout.ledger, aside)
    for path in list(layout.staging.iterdir()):
        disk.make_folder(layout.salvage)
        disk.rename(path, layout.salvage / f"staged-{number}-{path.name}")
    for name in RESULT_FILES:  # a new ledger does not know them
        if os.path.lexists(path := layout.root / name):
            disk.make_folder(layout.salvage)
            disk.rename(path, layout.salvage / f"{number}-{name}")
    disk.remove(layout.high_water)
    disk.sync_folder(layout.hidden)
