"""Evidence in a folder besides its ledger: results and images that the ledger does not know, and links.

The high-water mark vouches that a ledger is whole. If the mark is gone too, what earlier runs left tells that they paid
for images. Files of results must always be this ledger's: another folder's ledger may come with its own mark.
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
from impasto_plugins.batch.filenames import ANY_SEED, ENDINGS, Template, folded, is_reserved
from impasto_plugins.batch.tasks import Unit

from .filesystem import Disk, open_plain, write_all
from .log import Ledger, Read, rows, untrusted
from .states import State

if TYPE_CHECKING:
    from .workspace import History, Layout

RESULT_FILES = ("results.jsonl", "errors.jsonl")
_MEDIA = (*ENDINGS.values(), ".bin")
_MOST_NAMED = 3
_STAMP_BYTES = 200


def check_links(layout: Layout, levels: int = 1) -> None:
    """Raise ConfigError if a link is in the folder: it may lead out of it. The folder itself may be one.

    ``levels``: how many folders deep images go, the folder itself counted.
    """
    for folder in _folders(layout, levels):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ConfigError(
                        f"{entry.path!r} is a link: nothing was sent, as images or the ledger could go where it leads."
                        " Put a plain file or folder in its place, or give another --out (which may itself be a link)"
                    )


def _folders(layout: Layout, levels: int) -> Iterator[str]:
    """The folders that a batch writes to, as far as they are there. Nothing is looked for behind a link."""
    if layout.root.is_dir():
        yield str(layout.root)
        own = (layout.hidden, layout.staging, layout.kept)
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


def check_evidence(history: History, *, is_begun: bool) -> None:
    """Raise UntrustedLedger if earlier runs left anything that the ledger does not know.

    ``is_begun``: the folder is that of a batch which has begun, so there is a ledger, and every image in it is its own.
    """
    layout = history.layout
    if is_begun and not history.is_vouched_for:
        if not layout.ledger.exists():
            raise untrusted(layout.ledger, "is missing")
        known = _known_paths(layout)
        if strangers := [name for name in image_names(layout, 1) if name not in known]:
            raise untrusted(layout.ledger, f"does not know {_some(strangers)}")
    if history.run is None:
        if not history.is_vouched_for and (left := _left(layout)):
            said = "is missing" if not layout.ledger.exists() else "is empty"
            raise untrusted(layout.ledger, f"{said}, and earlier runs left {_some(left)}")
    elif unknown := list(islice(_unknown_results(history), _MOST_NAMED)):
        said = "is another folder's, or an older copy" if history.is_vouched_for else "is an older copy"
        raise untrusted(layout.ledger, f"{said}: results.jsonl or errors.jsonl name {_some(unknown)}")


def _left(layout: Layout) -> list[str]:
    """Names of what only a run leaves that has asked for images."""
    if not layout.root.is_dir():
        return []
    left = [path for path in layout.root.iterdir() if is_reserved(path.name) and path.is_file()]
    left += [path for folder in (layout.kept, layout.staging) if folder.is_dir() for path in folder.iterdir()]
    return sorted(str(path.relative_to(layout.root)) for path in left)


def _some(names: list[str]) -> str:
    named = ", ".join(map(repr, names[:_MOST_NAMED]))
    return named if len(names) <= _MOST_NAMED else f"{named} and {len(names) - _MOST_NAMED:,} more"


def write_stamp(layout: Layout, disk: Disk, ledger: Ledger) -> None:
    """Note which files of results this ledger wrote. Raises OSError."""
    file = disk.create(layout.stamp)
    try:
        write_all(disk, file, _stamp(layout, ledger.size, ledger.chain))
    finally:
        disk.close(file)


def _stamp(layout: Layout, size: int, chain: int) -> bytes:
    """Return how far a ledger is, and the size and time (ns since 1970) of each file of results."""
    parts = [size, chain]
    for name in RESULT_FILES:
        with suppress(OSError):
            found = os.lstat(layout.root / name)
            parts += [found.st_size, found.st_mtime_ns]
    return " ".join(map(str, parts)).encode()


def _are_unchanged(history: History) -> bool:
    """Return True if the files of results are those that this ledger wrote, and no row came after them."""
    layout, read = history.layout, history.read
    try:
        with open_plain(layout.stamp) as file:
            return file.read(_STAMP_BYTES) == _stamp(layout, read.end, read.chain)
    except OSError:
        return False


def _unknown_results(history: History) -> Iterator[str]:
    """Ids of images that were or may have been charged, by the files of results, and that the ledger does not know.

    Files that are as this ledger wrote them are not read: that takes half as long as reading the ledger.
    """
    pictures = history.pictures
    if _are_unchanged(history):
        return
    for line in chain.from_iterable(_lines(history.layout.root / name) for name in RESULT_FILES):
        error = line.get("error")
        id = line.get("custom_id")
        if not isinstance(id, str) or (isinstance(error, dict) and error.get("billed") == "no"):
            continue
        for index in _indices(line):
            state = pictures.state(id, index)
            if state == 0 or (error is None and state != State.DONE):
                yield id
                break


def _indices(line: dict[str, object]) -> list[int]:
    """The indices of the images that a line is about."""
    if isinstance(index := line.get("index"), int):
        return [index]
    match line.get("response"):
        case {"body": {"data": list(data)}}:
            return [each["index"] for each in data if isinstance(each, dict) and isinstance(each.get("index"), int)]
        case _:
            return [0]


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """The lines of a file of results, as far as they can be read."""
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


def _known_paths(layout: Layout) -> set[str]:
    return {row["path"] for _, row in rows(layout.ledger, Read()) if "path" in row}


def image_names(layout: Layout, levels: int) -> set[str]:
    """Return the paths of all images in the folder, below it."""
    return {os.path.relpath(path, layout.root) for path in _images(layout, levels)}


def _images(layout: Layout, levels: int) -> Iterator[str]:
    root = str(layout.root)
    if layout.root.is_dir():
        own = frozenset(map(str, (layout.hidden, layout.kept)))
        for folder in (root, *_image_folders(root, levels, own)):
            with os.scandir(folder) as entries:
                yield from (each.path for each in entries if each.name.endswith(_MEDIA))


class Strangers:
    """Images in a folder whose ledger may be another's, and does not know them."""

    def __init__(self, history: History, template: Template) -> None:
        self._layout, self._template = history.layout, template
        names = set[str]()
        if not history.is_started_over and _is_doubtful(history, template.levels):
            names = image_names(history.layout, template.levels)
        if names and history.run is not None:
            names -= _known_paths(history.layout)
        self._names = {folded(name.rpartition(".")[0]): name for name in names}
        self._by_shape: dict[str, list[str]] = {}
        for name in self._names:
            self._by_shape.setdefault(_shape(name), []).append(name)

    def __bool__(self) -> bool:
        return bool(self._names)

    def find(self, unit: Unit) -> str | None:
        """Return the image that has the name of a unit's, None if there is none."""
        path = self._template.path(id=unit.id, index=unit.index, n=unit.n, model=unit.model, seed=ANY_SEED)
        before, is_any, after = folded(path).partition(ANY_SEED)
        if not is_any:
            name = self._names.get(before)
        else:
            near = self._by_shape.get(_shape(f"{before}0{after}"), ())
            name = next((self._names[each] for each in near if each.startswith(before) and each.endswith(after)), None)
        return None if name is None or _is_input(unit, name) else name

    def check(self, units: Iterable[Unit]) -> None:
        """Raise UntrustedLedger if one of these units was made before."""
        if self and (found := [name for unit in units if (name := self.find(unit)) is not None]):
            state = "does not know" if self._layout.ledger.exists() else "is missing, and the folder has"
            raise untrusted(self._layout.ledger, f"{state} {_some(found)}, which rows of the manifest ask for")


def _is_doubtful(history: History, levels: int) -> bool:
    """Return True if a ledger may be another folder's, or an older copy: nothing vouches for it, its images are not
    here, or more images are here. Counting is quick: names are compared only if there is a doubt.
    """
    done = history.pictures.count[State.DONE]
    is_known = history.is_vouched_for and done and not history.gone
    return not is_known or sum(1 for _ in _images(history.layout, levels)) > done


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _is_input(unit: Unit, name: str) -> bool:
    """Return True if an image is one that the unit's row names as its own input."""
    base = name.rpartition("/")[2]
    labels = (each for value in unit.content.values() for each in (value if isinstance(value, list) else [value]))
    return any(isinstance(each, str) and each.rpartition("/")[2] == base for each in labels)
