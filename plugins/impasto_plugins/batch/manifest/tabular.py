"""Manifests that are tables: CSV, whose numbers are text, and Parquet. A column is a key of the short form."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from impasto import ManifestError, MissingExtra, Operation, RegistryError
from impasto.fields import Field

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
                if not any(cells):  # spreadsheets write such lines behind the last one
                    continue
                if len(cells) != len(names):
                    yield (
                        reader.line_num,
                        UnreadableLine(f"has {len(cells)} cells, but the first line names {len(names)}"),
                        b"",
                    )
                    continue
                row = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
                yield reader.line_num, _convert_cells(row, load), b""
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


def _convert_cells(cells: dict[str, str], load: Callable[[str], Operation]) -> RowFields:
    """Return a row with values of its model's types. Other text stays, and is refused."""
    fields = _fields_of_row(cells, load)
    if fields is None:
        return dict(cells)
    row: RowFields = {}
    for name, text in cells.items():
        place, key, field = _place(row, name, fields)
        place[key] = _value_of_cell(text, _NUMBERS.get(name) or (field.kind if field is not None else None))
    return row


def _fields_of_row(row: Mapping[str, object], load: Callable[[str], Operation]) -> Mapping[str, Field] | None:
    """Return the fields of a row's model; None if it is unknown, which the row's validation reports."""
    model = row.get("base_model") or row.get("model", "")
    try:
        return load(model).fields if isinstance(model, str) else None
    except RegistryError:
        return None


def _place(row: RowFields, name: str, fields: Mapping[str, Field]) -> tuple[RowFields, str, Field | None]:
    """Return the values among which a column stands, its key there and its field: ``group.x`` stands in ``group``."""
    while name not in fields and (parts := name.partition("."))[0] in fields and fields[parts[0]].kind == "group":
        nested = row.setdefault(parts[0], {})
        if not isinstance(nested, dict):
            break
        fields, row, name = fields[parts[0]].fields, nested, parts[2]
    return row, name, fields.get(name)


def _value_of_cell(text: str, kind: str | None) -> object:
    match kind:
        case "integer" if _WHOLE.fullmatch(text):
            return int(text)
        case "number" if _DECIMAL.fullmatch(text):
            return float(text) if "." in text else int(text)
        case "boolean" if text in ("true", "false"):
            return text == "true"
        case "files" | "texts":
            return _list_of_cell(text)
        case "numbers" if _DECIMAL.fullmatch(text):
            return [float(text) if "." in text else int(text)]
        case "numbers" | "groups":
            values = _list_of_cell(text if text.startswith("[") else f"[{text}]")
            return text if values is None else values
    return text


def _list_of_cell(text: str) -> object:
    """Return the list of a cell: JSON such as ``["a.png", "b.png"]``, or else its whole text as the only value."""
    if not text.startswith("["):
        return [text]
    try:
        return cast(object, json.loads(text))
    except (ValueError, RecursionError):
        return text


def parquet_rows(path: Path, load: Callable[[str], Operation]) -> Iterator[Line]:
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
                    yield number, row_of_columns(row, load), b""
    except ArrowException as error:
        raise ManifestError(f"the manifest {str(path)!r} is not a valid Parquet file: {str(error)[:200]}") from None


def row_of_columns(columns: RowFields, load: Callable[[str], Operation]) -> RowFields:
    """Return a row with columns of nested objects, such as ``group.x``, in their objects; a null means not given."""
    values = {name: value for name, value in columns.items() if value is not None}
    if not any("." in name for name in values) or (fields := _fields_of_row(values, load)) is None:
        return values
    row: RowFields = {}
    for name, value in values.items():
        place, key, _ = _place(row, name, fields)
        place[key] = value
    return row
