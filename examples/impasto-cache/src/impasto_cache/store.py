"""A folder of answers with a maximum size. Call it in a thread: it reads and writes the disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from impasto import WireResponse

_OMITTED_HEADERS = frozenset({"set-cookie"})
_TARGET_FILL = 0.9
"""Fraction of the maximum size after old answers were deleted, so that not every new answer deletes some."""


class Store:
    """Answers by the digest of their request. The least recently used are deleted first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._size: int | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> WireResponse | None:
        """Return the answer to a request, or None. A damaged file is deleted."""
        path = self._path(key)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            about = json.loads(head)
            is_intact = about["sha256"] == hashlib.sha256(body).hexdigest()
            response = WireResponse(status=about["status"], headers=about["headers"], body=body)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError):
            is_intact, response = False, None
        if not is_intact:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return response

    def put(self, key: str, response: WireResponse) -> None:
        """Store an answer. Errors of the disk are ignored: the caller has the image."""
        about = {
            "status": response.status,
            "headers": {name: value for name, value in response.headers.items() if name not in _OMITTED_HEADERS},
            "sha256": hashlib.sha256(response.body).hexdigest(),
        }
        data = json.dumps(about).encode() + b"\n" + response.body
        if len(data) > self.max_bytes:
            return
        path = self._path(key)
        staged = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        with self._lock, suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(data)
                staged.replace(path)
            except OSError:
                staged.unlink(missing_ok=True)
                raise
            self._size = None if self._size is None else self._size + len(data)
            self._make_room()

    def _make_room(self) -> None:
        if self._size is not None and self._size <= self.max_bytes:
            return
        found = sorted(_stored_files(self.folder))
        size = sum(bytes for _, bytes, _ in found)
        if size > self.max_bytes:
            for _, bytes, path in found:
                if size <= self.max_bytes * _TARGET_FILL:
                    break
                path.unlink(missing_ok=True)
                size -= bytes
        self._size = size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def _stored_files(folder: Path) -> list[tuple[float, int, Path]]:
    """Return the last use, the size and the path of each file."""
    found: list[tuple[float, int, Path]] = []
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):  # another process deleted it
            about = path.stat()
            found.append((about.st_mtime, about.st_size, path))
    return found
