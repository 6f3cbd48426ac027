"""Artifacts that outlive their call: the content in a file, the other fields as JSON beside it."""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from impasto import Artifact, File

_CONTENT = ("_data", "file")
_PART = re.compile(r"\.[0-9a-f]{16}\Z")
_CHUNK_BYTES = 1 << 20


def artifact_fields(artifact: Artifact) -> dict[str, object]:
    """Return the fields of an artifact except its content."""
    return attrs.asdict(artifact, filter=lambda field, _: field.name not in _CONTENT)


def artifact_of(fields: Mapping[str, Any], content: bytes | File) -> Artifact:
    """Return the artifact with these fields and this content."""
    if isinstance(content, File):
        return Artifact(file=content, **fields)
    return Artifact(data=content, **fields)


def write_content(path: Path, content: File, *, only_new: bool = False) -> None:
    """Write a content to the disk. Blocks. Raises OSError.

    With ``only_new`` the file appears whole, and an error is also raised if it exists with another content: two workers
    may store the result of one job.
    """
    target = path.with_name(f"{path.name}.{secrets.token_hex(8)}") if only_new else path
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, content.open() as source:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(fd)
        if only_new:
            _add_name(target, path)
    finally:
        if only_new:
            target.unlink(missing_ok=True)


def is_part(name: str) -> bool:
    """Return True for the name of a file that ``write_content`` has not completed."""
    return _PART.search(name) is not None


def _add_name(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except FileExistsError:
        if not filecmp.cmp(file, name, shallow=False):
            raise
    except OSError:  # a file system without links
        file.rename(name)


def read_content(path: Path, max_memory_bytes: int) -> bytes | File:
    """Return a content; one of more than ``max_memory_bytes`` stays on the disk. Blocks. Raises OSError."""
    return path.read_bytes() if path.stat().st_size <= max_memory_bytes else File.of(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
