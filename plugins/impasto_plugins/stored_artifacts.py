"""Artifacts that outlive their call: the content in a file, the other fields as JSON beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from impasto import Artifact, File

_CONTENT = ("_data", "file")
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
    """Write a content to the disk. Blocks. Raises OSError; with ``only_new`` also if the file exists."""
    kind = os.O_EXCL if only_new else os.O_TRUNC
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | kind | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as target, content.open() as source:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
        target.flush()
        os.fsync(fd)


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
