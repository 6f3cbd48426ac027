"""A manifest: a file with one row for each thing that is to be made. Read row by row, never whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import attrs

from impasto import ManifestError, Operation
from impasto.ext import stat_regular

from .records import LONGEST_LINE, Given, Line, Unread
from .tabular import csv_rows, parquet_rows

_BOM = b"\xef\xbb\xbf"


@attrs.frozen
class Manifest:
    """The file, as its user named it. ``load`` gives the operation of a model's name.

    ``folder``: where relative paths in it begin. ``name``: what it is called in messages.
    """

    path: Path
    load: Callable[[str], Operation]
    folder: Path = attrs.field(default=attrs.Factory(lambda self: self.path.parent, takes_self=True))
    name: str = attrs.field(default=attrs.Factory(lambda self: repr(str(self.path)), takes_self=True))

    def rows(self) -> Iterator[Line]:
        """Each row. Raises ManifestError where the file can't be read."""
        try:
            stat_regular(self.path)
            match self.path.suffix.lower():
                case ".csv":
                    yield from csv_rows(self.path, self.load)
                case ".parquet":
                    yield from parquet_rows(self.path)
                case _:
                    with self.path.open("rb") as file:
                        yield from _json_lines(file)
        except OSError as error:
            raise ManifestError(f"can't read the manifest {self.name}: {error.strerror}") from None

    def mark(self) -> tuple[int, int]:
        """What changes when somebody writes to the file. Raises ManifestError."""
        try:
            found = stat_regular(self.path)
        except OSError as error:
            raise ManifestError(f"can't read the manifest {self.name}: {error.strerror}") from None
        return found.st_size, found.st_mtime_ns


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
            yield number, parsed(line), line


def parsed(line: bytes) -> Given | Unread:
    """A line as the JSON object that it is. JSON as its standard has it: no NaN, no name twice, nothing after it."""
    if len(line) > LONGEST_LINE:
        return Unread(f"is longer than {LONGEST_LINE:,} bytes")
    try:
        text = line.decode("utf-8").strip(_SPACE)
        value, end = _decoded(text)
        if type(value) is not dict:
            return Unread(f"must be a JSON object, not {_NAMES.get(type(value), 'null')}")
        if end != len(text):
            return Unread("has something after its JSON object")
        if _may_hold_twins(text, value):
            _decoded_without_twins(text)
    except UnicodeDecodeError:
        return Unread("is no UTF-8 text")
    except RecursionError:
        return Unread("is nested too deeply")
    except json.JSONDecodeError as error:
        return Unread(f"is no sound JSON: {error.msg} at character {error.pos + 1}")
    except _Unsound as error:
        return Unread(str(error))
    except ValueError:  # an int of more digits than Python takes
        return Unread("holds a number of too many digits")
    return cast(Given, value)


def _may_hold_twins(text: str, value: Given) -> bool:
    """Whether more names are written than there are. Python's decoder takes the last of two that are alike, silently.

    To be told of each pair takes it half as long again; so colons after quotes are counted, and only where there are
    too many (in a text, perhaps), or where a name has a space after it, it is asked.
    """
    body = value.get("body")
    names = len(value) + (len(body) if type(body) is dict else 0)
    return text.count('":') != names or " :" in text or "\t:" in text or "\r:" in text


_SPACE = " \t\r\n"
_NAMES: dict[type, str] = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}


class _Unsound(ValueError):
    """Its message is fit for a reader."""


def _refuse(word: str) -> None:
    raise _Unsound(f"holds {word}, which is no JSON")


def _without_twins(pairs: Sequence[tuple[str, object]]) -> Given:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise _Unsound(f"gives {twin[:60]!r} twice")
    return found


_decoded = json.JSONDecoder(parse_constant=_refuse).raw_decode
_decoded_without_twins = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_without_twins).raw_decode
