"""Files as callers pass them (bytes, paths, open files, data: URIs), as one type that can be opened again."""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import stat
from collections.abc import Callable
from typing import BinaryIO

import attrs

_SNIFF = 16
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
_LIKE_BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]{64,}")
_UNKNOWN = "application/octet-stream"
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    *((bytes((0xFF, second)), "audio/mpeg") for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)),  # layer III's frames
    (b"glTF", "model/gltf-binary"),
    (b"GIF8", "image/gif"),
    (b"<svg", "image/svg+xml"),
)
_AVIF = (b"ftypavif", b"ftypavis")
_IN_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "model/gltf-binary": ".glb",
    "image/gif": ".gif",
    "image/svg+xml": ".svg",
    "image/avif": ".avif",
}
"""File extensions by media type: those that ``media_type_of`` returns."""


def media_type_of(head: bytes) -> str | None:
    """Return the media type that a file's first bytes show, or None."""
    if head.startswith(b"RIFF"):
        return _IN_RIFF.get(head[8:12])
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    return "image/avif" if head[4:12] in _AVIF else None


@attrs.frozen(kw_only=True, eq=False)
class File:
    """One file of a request: bytes, a path or an open file, made uniform.

    ``open()`` returns an independent reader from the start each time, so that a retry can send the file again and
    several calls can share it. ``size`` is in bytes. ``label`` names the file in messages, as its owner wrote it.
    """

    label: str
    size: int
    media_type: str
    opener: Callable[[], BinaryIO] = attrs.field(repr=False)
    closer: Callable[[], None] | None = attrs.field(default=None, repr=False)
    on_disk: bool = False
    """True if opening or reading it accesses the disk: do that outside the loop's thread."""

    def open(self) -> BinaryIO:
        """Return a reader at the start of the content; the caller closes it.

        Raises OSError, or ValueError if the content changed.
        """
        return self.opener()

    def read(self) -> bytes:
        """Return the whole content."""
        with self.open() as reader:
            return reader.read()

    def close(self) -> None:
        """Release the file behind it. Safe to call twice."""
        if self.closer is not None:
            self.closer()

    @classmethod
    def of(cls, value: object) -> File:
        """Return a File for bytes, a path, a ``data:`` URI, an open file, ``(name, bytes)`` or ``(name, bytes, type)``.

        The content decides the type, never the name. An open file is read once, from its current position, and never
        closed. Raises ValueError that says what to give instead.
        """
        match value:
            case File():
                return value if value.closer is None else attrs.evolve(value, closer=None)  # its owner closes it
            case bytes() | bytearray() | memoryview():
                return _from_bytes(bytes(value), "bytes")
            case tuple((str() | None as name, content, *rest)) if len(rest) < 2 and not isinstance(content, tuple):
                content_file = cls.of(content)
                return attrs.evolve(content_file, label=(name or content_file.label)[:_LONGEST_NAME])
            case str() if value[:5].lower() == "data:":
                return _from_data_uri(value)
            case str() if "://" in value[:12]:
                raise ValueError("URLs are not fetched; download it and give the bytes or a path")
            case str() | os.PathLike():
                return _from_path(value)
            case _ if callable(getattr(value, "read", None)):
                return _from_object(value)  # type: ignore[arg-type]  # narrowed by the guard
            case _:
                raise ValueError(
                    f"must be bytes, a path, an open binary file or a data: URI, not {type(value).__name__}"
                )


def _from_bytes(data: bytes, label: str) -> File:
    return File(
        label=label,
        size=len(data),
        media_type=media_type_of(data[:_SNIFF]) or _UNKNOWN,
        opener=functools.partial(io.BytesIO, data),
    )


def _from_data_uri(uri: str) -> File:
    import base64  # used only for this form
    from urllib.parse import unquote_to_bytes

    header, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("invalid data: URI without a comma; give data:image/png;base64,...")
    try:
        data = unquote_to_bytes(body)
        if header.lower().endswith(";base64"):
            data = base64.b64decode(data, validate=True)
    except ValueError:  # a lone surrogate, or binascii's
        raise ValueError("invalid data: URI; its base64 must be complete, without spaces or line breaks") from None
    return _from_bytes(data, "data: URI")


def _from_path(path: str | os.PathLike[str]) -> File:
    label = os.fspath(path)
    if not isinstance(label, str):
        raise ValueError("a path must be text, not bytes")
    if len(label) > _LONGEST_PATH:
        raise ValueError(_not_a_path(label))
    try:
        with open(path, "rb", buffering=0, opener=_open_nonblocking) as reader:
            status = os.fstat(reader.fileno())
            regular = stat.S_ISREG(status.st_mode)
            head = reader.read(_SNIFF) if regular else b""
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        if _LIKE_BASE64.fullmatch(label):  # a picture, which no message may hold
            raise ValueError(_not_a_path(label)) from None
        raise ValueError(f"can't read {label!r}: {getattr(error, 'strerror', None) or error}") from None
    if not regular:
        raise ValueError(f"{label!r} is not a regular file")

    def reopen() -> BinaryIO:
        reader = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115 - its user closes it
        if _changed(status, os.fstat(reader.fileno())):
            reader.close()
            raise ValueError(f"{label!r} changed after it was checked")
        return reader

    return File(
        label=label, size=status.st_size, media_type=media_type_of(head) or _UNKNOWN, opener=reopen, on_disk=True
    )


def stat_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return a file's status before it is opened. Raises OSError, also for what may have no end, such as a FIFO."""
    status = os.stat(path)  # noqa: PTH116 - a str goes through as it is
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
    return status


def _not_a_path(text: str) -> str:
    return f"text of {len(text):,} characters is not the path of a file; give base64 as a data: URI"


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without waiting: opening a named pipe would block until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _changed(before: os.stat_result, now: os.stat_result) -> bool:
    return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def _from_object(source: BinaryIO) -> File:
    label = source.name if isinstance(getattr(source, "name", None), str) else "file"
    if getattr(source, "closed", False):
        raise ValueError(f"{label!r} is closed")
    # Only a plain file of the system has in its descriptor what it gives when read; gzip.open() has not.
    plain = type(getattr(source, "raw", source)) is io.FileIO
    mode = os.fstat(source.fileno()).st_mode if plain else 0
    if stat.S_ISREG(mode):
        return _from_descriptor(source, label)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{label!r} is a device, which may be endless; give a regular file")
    try:
        data: object = source.read()
    except UnicodeDecodeError:
        data = ""
    except Exception as error:  # noqa: BLE001 - an object of the caller's raises what it likes, gzip's an EOFError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"can't read {label!r}: {reason}") from None
    if isinstance(data, str):
        raise ValueError(f"{label!r} is open as text; open it with mode 'rb'")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"{label!r} returns {type(data).__name__} when read; read it and give the bytes")
    return _from_bytes(bytes(data), label)


def _from_descriptor(source: BinaryIO, label: str) -> File:
    """Share the file's descriptor: the content is not loaded, and the owner may close or move the file."""
    if not source.readable():
        raise ValueError(f"{label!r} is open for writing only; open it with mode 'rb'")
    start = source.tell()
    size = max(source.seek(0, os.SEEK_END) - start, 0)
    owner = _Descriptor(os.dup(source.fileno()))
    status = os.fstat(owner.number)

    def reopen() -> BinaryIO:
        if _changed(status, os.fstat(owner.number)):
            raise ValueError(f"{label!r} changed after it was checked")
        return io.BufferedReader(_Window(owner, start, size), 256 * 1024)

    head = os.pread(owner.number, min(_SNIFF, size), start)
    return File(
        label=label,
        size=size,
        media_type=media_type_of(head) or _UNKNOWN,
        opener=reopen,
        closer=owner.close,
        on_disk=True,
    )


class _Descriptor:
    """A duplicated descriptor that is closed once: by its request, or when nothing refers to it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class Positioned(io.RawIOBase):
    """A reader with a size and a position of its own; ``read_at`` supplies the bytes."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def read_at(self, at: int, size: int) -> bytes:
        """Return up to ``size`` bytes at a position, all of them within the file. Raises OSError."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position and return it; it may be after the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer needs 3.12
        """Read into the buffer and return the number of bytes, 0 at the end."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self.read_at(self._at, wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Window(Positioned):
    """Part of a file. The descriptor's own position never moves."""

    def __init__(self, owner: _Descriptor, start: int, size: int) -> None:
        super().__init__(size)
        self._owner, self._start = owner, start

    def read_at(self, at: int, size: int) -> bytes:
        return os.pread(self._owner.number, size, self._start + at)
