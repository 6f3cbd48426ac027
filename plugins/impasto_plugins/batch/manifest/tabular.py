"""Manifests that are tables: CSV, whose numbers are text, and Parquet. A column is a key of the short form."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from impasto import ManifestError, MissingExtra, Operation, RegistryError

from .records import LONGEST_LINE, Line, RowFields, UnreadableLine

if TYPE_CHECKING:
    from collections.abc import Callable

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?")
_NUMBERS = {"n": "integer", "timeout": "number"}
_AT_ONCE = 1_000
_SEPARATORS = {";": "semicolons (;)", "\t": "tabs", "|": "bars (|)"}
"""Separators that other programs write instead of commas."""


def csv_rows(path: Path, load: Callable[[str], Operation]) -> Iterator[Line]:
    """Yield the rows of a CSV file. Its first line names the columns; an empty cell means not given.

    Raises ManifestError if the file is not CSV, and OSError.
    """
    csv.field_size_limit(LONGEST_LINE)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, None)
            if names is None:
                return
            _check_names(names, path)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    yield (
                        reader.line_num,
                        UnreadableLine(f"has {len(cells)} cells, but the first line names {len(names)}"),
                        b"",
                    )
                    continue
                row = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
                yield reader.line_num, _convert_numbers(row, load), b""
        except UnicodeDecodeError:
            raise ManifestError(f"the manifest {str(path)!r} is not UTF-8 text") from None
        except csv.Error as error:
            raise ManifestError(f"the manifest {str(path)!r} is invalid CSV, line {reader.line_num}: {error}") from None


def _check_names(names: list[str], path: Path) -> None:
    if len(names) == 1 and (found := next((each for each in _SEPARATORS if each in names[0]), None)) is not None:
        raise ManifestError(
            f"the manifest {str(path)!r} separates its cells with {_SEPARATORS[found]}: separate them with commas, and"
            " put cells that contain a comma in double quotes"
        )
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins or not all(names):
        problem = f"names {twins[0]!r} twice" if twins else "has a column without a name"
        raise ManifestError(f"the manifest {str(path)!r}: its first line {problem}")


def _convert_numbers(cells: dict[str, str], load: Callable[[str], Operation]) -> RowFields:
    """Return a row with numbers for its model's number fields. Other text stays, and is refused."""
    row: RowFields = dict(cells)
    try:
        fields = load(cells.get("base_model") or cells.get("model", "")).fields
    except RegistryError:
        return row  # the row's validation reports it
    kinds = {**{name: field.kind for name, field in fields.items()}, **_NUMBERS}
    for name, text in cells.items():
        kind = kinds.get(name)
        if kind == "integer" and _WHOLE.fullmatch(text):
            row[name] = int(text)
        elif kind == "number" and _DECIMAL.fullmatch(text):
            row[name] = float(text) if "." in text else int(text)
    return row


def parquet_rows(path: Path) -> Iterator[Line]:
    """Yield the rows of a Parquet file, read in groups; a null means not given. Raises MissingExtra, ManifestError."""
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]  # it ships no types; an extra
    except ModuleNotFoundError:
        raise MissingExtra("a Parquet manifest needs pyarrow: pip install 'impasto[batch]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for piece in file.iter_batches(batch_size=_AT_ONCE):
                for row in piece.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}, b""
    except ArrowException as error:
        raise ManifestError(f"the manifest {str(path)!r} is not a valid Parquet file: {str(error)[:200]}") from None
