"""A disk that knows what a loss of power leaves of it: what was synced for certain, of the rest any part or none."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from impasto_plugins.batch.ledger.filesystem import Disk

PAGE = 4096


@attrs.define
class Platter:
    """What is on the disk for certain: contents of files by their inodes, and what names each folder holds."""

    contents: dict[int, bytes] = attrs.field(factory=dict[int, bytes])
    names: dict[Path, dict[str, int]] = attrs.field(factory=dict[Path, dict[str, int]])

    def lose_power(self, root: Path, chance: random.Random | None) -> None:
        """Leaves in a folder what was synced and, page by page and name by name as ``chance`` has it, of the rest."""
        left = _Left(self, chance)
        left.look(root.parent, only=root.name)
        shutil.rmtree(root)
        left.lay()
        self.contents, self.names = {}, {}
        for folder, folders, files in os.walk(root):
            place = Path(folder)
            self.names[place] = {name: (place / name).stat().st_ino for name in (*folders, *files)}
            self.contents |= {(place / name).stat().st_ino: (place / name).read_bytes() for name in files}
        self.names[root.parent] = {root.name: root.stat().st_ino} if root.exists() else {}


class Volatile(Disk):
    """The system's own calls, and what of them would outlast a loss of power."""

    def __init__(self, platter: Platter) -> None:
        self.platter = platter
        self._paths: dict[int, Path] = {}

    def create(self, path: Path) -> int:
        return self._open(path, super().create, is_new=not path.exists())

    def append(self, path: Path) -> int:
        return self._open(path, super().append, is_new=not path.exists())

    def reopen(self, path: Path) -> int:
        return self._open(path, super().reopen, is_new=False)

    def _open(self, path: Path, opens: Callable[[Path], int], *, is_new: bool) -> int:
        descriptor = opens(path)
        self._paths[descriptor] = path
        if is_new:  # an inode may have been another file's
            self.platter.contents.pop(path.stat().st_ino, None)
        return descriptor

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.platter.contents[os.fstat(descriptor).st_ino] = self._paths[descriptor].read_bytes()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.platter.names[path] = {each.name: each.stat().st_ino for each in path.iterdir()}


class _Left:
    """What a loss of power leaves."""

    def __init__(self, platter: Platter, chance: random.Random | None) -> None:
        self._platter, self._chance = platter, chance
        self._folders: list[Path] = []
        self._files: list[tuple[Path, int]] = []
        self._contents: dict[int, tuple[bytes, int]] = {}
        """Of each inode, and when it was changed."""

    def look(self, folder: Path, only: str | None = None) -> None:
        """Chooses what stays in a folder."""
        now = {each.name: each for each in folder.iterdir()}
        there = {name: each.stat().st_ino for name, each in now.items()}
        synced = self._platter.names.get(folder, {})
        paths = {there[name]: path for name, path in now.items()}
        for name in there.keys() | synced.keys() if only is None else {only}:
            inode = (there if self._survives() else synced).get(name)
            if inode is None:
                continue
            place = folder / name
            if name in now and now[name].is_dir():
                self._folders.append(place)
                self.look(place)
            else:
                self._files.append((place, inode))
                self._contents.setdefault(inode, self._content(inode, paths.get(inode)))

    def lay(self) -> None:
        """Puts that there."""
        for folder in self._folders:
            folder.mkdir()
        first: dict[int, Path] = {}
        for path, inode in self._files:
            if inode in first:
                os.link(first[inode], path)
                continue
            first[inode] = path
            data, modified = self._contents[inode]
            path.write_bytes(data)
            os.utime(path, ns=(modified, modified))

    def _survives(self) -> bool:
        return self._chance is not None and self._chance.random() < 0.5

    def _content(self, inode: int, path: Path | None) -> tuple[bytes, int]:
        synced = self._platter.contents.get(inode, b"")
        if path is None:  # its name is gone, and so is what was not synced
            return synced, 0
        cached, modified = path.read_bytes(), path.stat().st_mtime_ns
        if cached == synced:
            return synced, modified
        size = len(cached) if self._survives() else len(synced)
        pages = (
            (cached if self._survives() else synced)[at : at + PAGE].ljust(PAGE, b"\0") for at in range(0, size, PAGE)
        )
        return b"".join(pages)[:size], modified
