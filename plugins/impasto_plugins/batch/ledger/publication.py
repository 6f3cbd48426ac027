"""From the staging folder to an image's name: no two images share a file, and none is overwritten.

What came instead of images has a name by its content.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from impasto import Artifact, File
from impasto.ext import EXTENSIONS
from impasto_plugins.batch.filenames import digest

from .filesystem import Disk, is_file_of, write_all
from .group_commit import WriteSteps
from .log import Row
from .workspace import Workspace, WorkspacePaths

_PIECE = 1 << 20


def create_staged(disk: Disk, path: Path) -> int:
    """Create a staged image's file. Raises FileExistsError: two images must never share one."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    return disk.create(path)


def staging_path(layout: WorkspacePaths, id: str, index: int) -> Path:
    """Return the path of an image's staging file."""
    return layout.staging / f"{digest(id)}-{index}"


def is_as_written(path: Path, row: Row) -> bool:
    """Return True if a staged image is the one of its row. Its content is read only if its time changed."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    is_same = found.st_size == row["bytes"] and found.st_mtime_ns == row["modified"]
    return is_same or is_file_of(path, row["sha256"])


def publish(folder: Workspace, staged: Path, row: Row) -> WriteSteps[Path]:
    """Give a staged image its name below the folder, or another if that is taken; then write its row.

    ``row`` is its staged row with a claimed path. The image has both names until its row is on the disk. Raises OSError
    if the staged file is not the one of the row.
    """
    root, name = folder.layout.root, str(row["path"])
    path: Path = root / name
    if not is_as_written(staged, row) and not is_file_of(path, row["sha256"]):
        raise altered_file_error(staged)
    _check_folders(root, name)
    while not link_or_rename(folder.disk, staged, path) and not is_file_of(path, row["sha256"]):
        name = folder.names.claim(row["path"])
        path = root / name
    yield path.parent
    yield from folder.write_row({**row, "row": "done", "path": name}, on_disk=True)
    folder.names.add(name, is_local=True)
    folder.disk.remove(staged)
    return path


def altered_file_error(staged: Path) -> OSError:
    """Return the error for a staged file that is not the image of its row."""
    return OSError(errno.EIO, f"the file of the unfinished image {staged.name[:16]} was changed by another program")


def _check_folders(root: Path, name: str) -> None:
    """Raise OSError if a link was put in the place of one of an image's folders."""
    for folder in PurePosixPath(name).parents if "/" in name else ():
        if folder.name and (root / folder).is_symlink():
            raise OSError(errno.ELOOP, f"{str(folder)!r} is a link")


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""Errors of file systems without hard links."""


def link_or_rename(disk: Disk, staged: Path, path: Path) -> bool:
    """Give a file another name; return False if another file has it."""
    try:
        try:
            disk.link(staged, path)
        except FileNotFoundError:
            if path.exists():  # the other name is gone: power was lost before both were on the disk
                return False
            disk.make_folder(path.parent)
            disk.link(staged, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        disk.rename(staged, path)
    return True


def salvage_path(folder: Workspace, id: str, sha256: str, media_type: str) -> Path:
    """Return the path for a content that came instead of images of a row: one content has one file."""
    folder.disk.make_folder(folder.layout.salvage)
    return folder.layout.salvage / f"{digest(id)}-{sha256[:32]}{EXTENSIONS.get(media_type, '.bin')}"


def salvage(folder: Workspace, id: str, artifact: Artifact) -> WriteSteps[Path]:
    """Store a content, unless an image of the same answer has stored it, or an attempt before. Return its path."""
    disk, content = folder.disk, artifact.content
    sha256 = sha256_of(content)
    path = salvage_path(folder, id, sha256, artifact.media_type)
    if not is_file_of(path, sha256):
        file = disk.create(path)
        try:
            for piece in pieces(content):
                write_all(disk, file, piece)
            disk.sync(file)
        finally:
            disk.close(file)
    yield folder.layout.salvage
    return path


def sha256_of(content: File) -> str:
    """Return the SHA-256 of a content in hexadecimal."""
    digest_of_content = hashlib.sha256()
    for piece in pieces(content):
        digest_of_content.update(piece)
    return digest_of_content.hexdigest()


def pieces(content: File) -> Iterator[bytes]:
    """Yield a content in pieces. Raises OSError."""
    with content.open() as source:
        while piece := source.read(_PIECE):
            yield piece
