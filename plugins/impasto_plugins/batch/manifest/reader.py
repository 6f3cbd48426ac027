"""A manifest: a file with one row for each request. It is read row by row, never whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import attrs

from impasto import ManifestError, Operation
from impasto.ext import stat_regular

from .records import LONGEST_LINE, Line, RowFields, UnreadableLine
from .tabular import csv_rows, parquet_rows

_BOM = b"\xef\xbb\xbf"


@attrs.frozen
class Manifest:
    """The manifest's file. ``load`` returns the operation of a model's name.

    ``folder``: the start of relative paths. ``name``: its name in messages.
    """

    path: Path
    load: Callable[[str], Operation]
    folder: Path = attrs.field(default=attrs.Factory(lambda self: self.path.parent, takes_self=True))
    name: str = attrs.field(default=attrs.Factory(lambda self: repr(str(self.path)), takes_self=True))

    def rows(self) -> Iterator[Line]:
        """Yield each row. Raises ManifestError if the file can't be read."""
        try:
            stat_regular(self.path)
            match self.path.suffix.lower():
                case ".csv":
                    yield from csv_rows(self.path, self.load)
                case ".parquet":
                    yield from parquet_rows(self.path, self.load)
                case _:
                    with self.path.open("rb") as file:
                        yield from _json_lines(file)
        except OSError as error:
            raise ManifestError(f"can't read the manifest {self.name}: {error.strerror}") from None

    def mark(self) -> tuple[int, int]:
        """Return a value that changes when the file does. Raises ManifestError."""
        try:
            found = stat_regular(self.path)
        except OSError as error:
            raise ManifestError(f"can't read the manifest {self.name}: {error.strerror}") from None
        return found.st_size, found.st_mtime_ns

    def sha256(self) -> str:
        """Return the digest of the file. Raises ManifestError."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ManifestError(f"can't read the manifest {self.name}: {error.strerror}") from None


def _json_lines(file: BinaryIO) -> Iterator[Line]:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE and line[-1:] != b"\n":
            while (rest := file.readline(LONGEST_LINE)) and rest[-1:] != b"\n":
                pass  # its end is not kept: no line can fill the memory
        if number == 1:
            line = line.removeprefix(_BOM)
        if line and not line.isspace():
            yield number, parse_line(line), line


def parse_line(line: bytes) -> RowFields | UnreadableLine:
    """Return a line's JSON object. Strict JSON: no NaN, no duplicate names, nothing after it."""
    if len(line) > LONGEST_LINE:
        return UnreadableLine(f"is longer than {LONGEST_LINE:,} bytes")
    try:
        text = line.decode("utf-8").strip(_SPACE)
        value, end = _decode(text)
        if type(value) is not dict:
            return UnreadableLine(f"must be a JSON object, not {_NAMES.get(type(value), 'null')}")
        if end != len(text):
            return UnreadableLine("has text after its JSON object")
        if _may_hold_duplicates(text, value):
            _decode_strict(text)
    except UnicodeDecodeError:
        return UnreadableLine("is not UTF-8 text")
    except RecursionError:
        return UnreadableLine("is nested too deeply")
    except json.JSONDecodeError as error:
        return UnreadableLine(f"is invalid JSON: {error.msg} at character {error.pos + 1}")
    except _InvalidJSON as error:
        return UnreadableLine(str(error))
    except ValueError:  # an int of more digits than Python takes
        return UnreadableLine("contains a number with too many digits")
    return cast(RowFields, value)


def _may_hold_duplicates(text: str, value: RowFields) -> bool:
    """Return True if there may be duplicate names. Python's decoder silently takes the last of two.

    Decoding with a check of each pair takes half as long again; so colons after quotes are counted, and only if there
    are too many (in a text, perhaps), or if a space follows a name, the pairs are checked.
    """
    body = value.get("body")
    names = len(value) + (len(body) if type(body) is dict else 0)
    return text.count('":') != names or " :" in text or "\t:" in text or "\r:" in text


_SPACE = " \t\r\n"
_NAMES: dict[type, str] = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}


class _InvalidJSON(ValueError):
    """Invalid JSON, with a message for users."""


def _refuse(word: str) -> None:
    raise _InvalidJSON(f"contains {word}, which is not valid JSON")


def _refuse_duplicates(pairs: Sequence[tuple[str, object]]) -> RowFields:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise _InvalidJSON(f"gives {twin[:60]!r} twice")
    return found


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode
_decode_strict = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_refuse_duplicates).raw_decode
