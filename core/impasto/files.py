"""What a caller may give as a picture or sound, made into one thing that can be opened again."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import attrs

_SNIFF = 16
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mpeg"),
    (b"\xff\xfb", 0, "audio/mpeg"),
    (b"glTF", 0, "model/gltf-binary"),
)


def media_type_of(head: bytes) -> str | None:
    """The media type that the first bytes of a file show, or None."""
    for signature, at, media_type in _SIGNATURES:
        if head.startswith(signature, at):
            return media_type
    return None


@attrs.frozen(kw_only=True, eq=False)
class File:
    """One file part of a request: bytes, a path or an open file, made uniform.

    ``open()`` gives a fresh, independent reader from the start each time, so that a permitted retry can
    send the part again and several calls can share it. ``size`` is in bytes. ``label`` names the file in
    messages, as its owner wrote it.
    """

    label: str
    size: int
    media_type: str
    opener: Callable[[], BinaryIO] = attrs.field(repr=False)
    closer: Callable[[], None] | None = attrs.field(default=None, repr=False)

    def open(self) -> BinaryIO:
        """A reader at the start of the content; the caller closes it. Raises OSError or ValueError if it changed."""
        return self.opener()

    def read(self) -> bytes:
        """The whole content."""
        with self.open() as reader:
            return reader.read()

    def close(self) -> None:
        """Lets go of the file behind it; safe to call twice."""
        if self.closer is not None:
            self.closer()

    @classmethod
    def of(cls, value: object) -> File:
        """Makes a File of bytes, a path, a ``data:`` URI, an open file, ``(name, bytes)`` or ``(name, bytes, type)``.

        Content decides the type, never the name. An open file is read once, from where it stands, and is
        never closed. Raises ValueError with what to give instead.
        """
        match value:
            case File():
                return value
            case bytes() | bytearray() | memoryview():
                return _from_bytes(bytes(value), "bytes")
            case tuple() if len(value) in (2, 3) and isinstance(value[0], str | None):
                named = cls.of(value[1])
                return attrs.evolve(named, label=value[0] or named.label)
            case str() if value[:5].lower() == "data:":
                return _from_data_uri(value)
            case str() if "://" in value[:12]:
                raise ValueError("a URL is never fetched here; download it and give the bytes or a path")
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
        media_type=media_type_of(data[:_SNIFF]) or "application/octet-stream",
        opener=lambda: io.BytesIO(data),
    )


def _from_data_uri(uri: str) -> File:
    import base64  # used only for this form
    import binascii
    from urllib.parse import unquote_to_bytes

    header, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("is a data: URI without content")
    raw = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return _from_bytes(raw, "data: URI")
    try:
        return _from_bytes(base64.b64decode(raw, validate=True), "data: URI")
    except binascii.Error:
        raise ValueError("is a data: URI whose base64 is damaged") from None


def _from_path(path: str | os.PathLike[str]) -> File:
    label = os.fspath(path)
    if not isinstance(label, str):
        raise ValueError("must be a path of text, not of bytes")
    try:
        with open(path, "rb", buffering=0) as reader:
            found = os.fstat(reader.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{label!r} is not a regular file")
            head = reader.read(_SNIFF)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(reason if label in reason else f"can't read {label!r}: {reason}") from None

    def reopen() -> BinaryIO:
        reader = Path(path).open("rb", buffering=0)  # noqa: SIM115 - its user closes it
        now = os.fstat(reader.fileno())
        if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            reader.close()
            raise ValueError(f"{label!r} changed after it was checked")
        return reader

    return File(
        label=label, size=found.st_size, media_type=media_type_of(head) or "application/octet-stream", opener=reopen
    )


def _from_object(source: BinaryIO) -> File:
    label = source.name if isinstance(getattr(source, "name", None), str) else "file"
    if getattr(source, "closed", False):
        raise ValueError(f"{label!r} is closed")
    try:
        return _from_descriptor(source, label)
    except (OSError, AttributeError, io.UnsupportedOperation):
        pass  # not a seekable file of the system: its content is read
    try:
        data = source.read()
    except (OSError, io.UnsupportedOperation) as error:
        raise ValueError(f"can't read {label!r}: {error}") from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"{label!r} is open as text; open it with mode 'rb'")
    return _from_bytes(bytes(data), label)


def _from_descriptor(source: BinaryIO, label: str) -> File:
    """Shares the file's descriptor: its content is not loaded, and its owner may close or move it at will."""
    if isinstance(source, io.TextIOBase):
        raise ValueError(f"{label!r} is open as text; open it with mode 'rb'")
    start = source.tell()
    found = os.fstat(source.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise OSError("no regular file")
    source.seek(0, os.SEEK_END)
    size = max(source.tell() - start, 0)
    descriptor = os.dup(source.fileno())
    try:
        head = os.pread(descriptor, _SNIFF, start)
    except OSError as error:
        os.close(descriptor)
        raise ValueError(f"can't read {label!r}: {error.strerror}") from None
    owner = _Descriptor(descriptor)
    return File(
        label=label,
        size=size,
        media_type=media_type_of(head) or "application/octet-stream",
        opener=lambda: io.BufferedReader(_Window(owner, start, size), 256 * 1024),
        closer=owner.close,
    )


class _Descriptor:
    """A duplicated descriptor, closed once: by its request, at the latest when nothing refers to it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class _Window(io.RawIOBase):
    """Reads part of a file at its own position: the descriptor's is never moved."""

    def __init__(self, owner: _Descriptor, start: int, size: int) -> None:
        self._owner, self._start, self._size, self._at = owner, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer needs 3.12
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        data = os.pread(self._owner.number, wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
