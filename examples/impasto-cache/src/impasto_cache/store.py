"""A folder of answers, of bounded size. Everything here reads or writes a disk: call it in a thread."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from impasto import WireResponse

_LEFT_OUT = frozenset({"set-cookie"})
_LEAVES = 0.9
"""How full it may be once the oldest went, so that not every answer makes room anew."""


class Store:
    """Answers by the digest of their request. One that is damaged is none; the least lately used go first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._size: int | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> WireResponse | None:
        """The answer to a request, if it is there and whole."""
        path = self._path(key)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            about = json.loads(head)
            whole = about["sha256"] == hashlib.sha256(body).hexdigest()
            response = WireResponse(status=about["status"], headers=about["headers"], body=body)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError):
            whole, response = False, None
        if not whole:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return response

    def put(self, key: str, response: WireResponse) -> None:
        """Keeps an answer. A disk that takes nothing keeps nothing: the caller has the picture."""
        about = {
            "status": response.status,
            "headers": {name: value for name, value in response.headers.items() if name not in _LEFT_OUT},
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
        found = sorted(_kept(self.folder))
        size = sum(bytes for _, bytes, _ in found)
        if size > self.max_bytes:
            for _, bytes, path in found:
                if size <= self.max_bytes * _LEAVES:
                    break
                path.unlink(missing_ok=True)
                size -= bytes
        self._size = size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def _kept(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was last used, its size and its place."""
    found: list[tuple[float, int, Path]] = []
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):  # another process made room
            about = path.stat()
            found.append((about.st_mtime, about.st_size, path))
    return found
