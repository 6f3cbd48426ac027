"""The fields of a parameter class: those that the functions of ``fields`` declare, or else those of its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from .field_checks import Field, Kind
from .files import File

KEY = "impasto"
"""The key of a field among the metadata of its attribute."""


def fields_of(params: type[attrs.AttrsInstance]) -> Mapping[str, Field]:
    """Return a parameter class's fields by name, from the functions of ``fields`` or else from the types."""
    if any(KEY not in a.metadata for a in attrs.fields(params)):
        attrs.resolve_types(params)
    return {a.name: a.metadata.get(KEY) or _field_from_type(a) for a in attrs.fields(params)}


_KINDS: dict[object, Kind] = {
    str: "text",
    int: "integer",
    float: "number",
    File: "file",
    tuple[File, ...]: "files",
    list[File]: "files",
}


def _field_from_type(attribute: attrs.Attribute[Any]) -> Field:
    required = attribute.default is attrs.NOTHING
    default = attribute.default if isinstance(attribute.default, str | int | float) else None
    expected: Any = attribute.type
    if type(None) in (options := get_args(expected)) and len(options) == 2:
        expected = options[0] if options[1] is type(None) else options[1]
    if get_origin(expected) is Literal and all(isinstance(word, str) for word in get_args(expected)):
        return Field(kind="choice", choices=get_args(expected), required=required, default=default)
    kind = _KINDS.get(expected, "other")
    limits = getattr(expected, "__name__", str(expected)) if kind == "other" else ""
    return Field(kind=kind, limits=limits, required=required, default=default)
