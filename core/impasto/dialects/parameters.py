"""Parameters as the fields and files of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from impasto.files import File
from impasto.operation import Operation
from impasto.wire import FileRef, JSONValue

_SCALARS = (str, int, float)  # a union would be made again for each value: benchmark `dispatch`


def split_files(
    operation: Operation, params: attrs.AttrsInstance, wire_names: Mapping[str, str] | None = None
) -> tuple[dict[str, JSONValue], list[tuple[str, File]]]:
    """Return the fields that the caller gave, and apart from them the files; several of one field repeat its name.

    A nested object becomes one of JSON, in which its files stand as base64. ``wire_names``: names on the wire that
    differ from the parameters'.
    """
    fields: dict[str, JSONValue] = {}
    files: list[tuple[str, File]] = []
    for name in operation.fields:
        value = getattr(params, name)
        if value is None:  # most are
            continue
        wire_name = wire_names.get(name, name) if wire_names is not None else name
        if isinstance(value, _SCALARS):
            fields[wire_name] = value
        elif isinstance(value, File):
            files.append((wire_name, value))
        elif isinstance(value, tuple) and value and all(isinstance(each, File) for each in value):
            files += [(wire_name, each) for each in value]
        else:
            fields[wire_name] = to_json(value)
    return fields, files


def params_to_json(params: attrs.AttrsInstance) -> dict[str, JSONValue]:
    """Return parameters as an object of JSON, without what was not given; a file is its FileRef."""
    names = [each.name for each in attrs.fields(type(params))]
    return {name: to_json(each) for name in names if (each := getattr(params, name)) is not None}


def to_json(value: object) -> JSONValue:
    """Return the value of a parameter as a value of JSON, also of a list or a nested object."""
    if isinstance(value, File):
        return FileRef(value)
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if attrs.has(type(value)):
        return params_to_json(cast(attrs.AttrsInstance, value))
    return cast(JSONValue, value)
