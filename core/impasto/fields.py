"""Fields of a parameter class.

The meaning and the limits of a field are written once: the check, ``describe()``, the documentation, the emulator and
the tests read the same record.

    @attrs.frozen(kw_only=True)
    class Params:
        prompt: str = text(1, 10_000, required=True, description="Content of the image, in English.")
        strength: float | None = number(0, 1, description="Departure from the image: 0 keeps it, 1 ignores it.")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from .field_checks import Field, Kind, MaskArea, Role, format_bound, format_value
from .files import File
from .inspectors import Inspector

__all__ = [
    "KEY",
    "Field",
    "Kind",
    "Role",
    "boolean",
    "choice",
    "color",
    "fields_of",
    "file",
    "files",
    "format_bound",
    "format_value",
    "group",
    "integer",
    "number",
    "text",
    "texts",
]

KEY = "impasto"


# attrs reads these at class level, where a field's type and its default value are one thing: hence Any.
def _field(spec: Field) -> Any:
    return attrs.field(metadata={KEY: spec}) if spec.required else attrs.field(default=None, metadata={KEY: spec})


def text(
    minimum: int = 0,
    maximum: int | None = None,
    *,
    required: bool = False,
    role: Role | None = None,
    alias: str | None = None,
    pattern: str | None = None,
    pattern_words: str = "",
    description: str = "",
) -> Any:
    """Declare text of ``minimum`` to ``maximum`` characters (code points). ``pattern``: it must match all of it.

    ``pattern_words`` say in messages what it allows, such as ``8 hexadecimal digits``.
    Raises BrokenPlugin for an invalid pattern. The suite finds one that could take hours, such as ``(a+)+``.
    """
    return _field(
        Field(
            kind="text",
            description=description,
            minimum=minimum,
            maximum=maximum,
            required=required,
            role=role,
            alias=alias,
            pattern=pattern,
            pattern_words=pattern_words,
        )
    )


def texts(
    maximum: int | None = None,
    *,
    minimum: int = 1,
    pattern: str | None = None,
    pattern_words: str = "",
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a list of ``minimum`` to ``maximum`` texts, none of them blank: ``tuple[str, ...] | None``.

    ``pattern`` and ``pattern_words``: each must match it, see ``text``.
    """
    item = Field(kind="text", minimum=1, pattern=pattern, pattern_words=pattern_words)
    return _field(
        Field(kind="texts", description=description, minimum=minimum, maximum=maximum, item=item, required=required)
    )


def boolean(
    *, default: bool | None = None, required: bool = False, alias: str | None = None, description: str = ""
) -> Any:
    """Declare true or false."""
    return _field(Field(kind="boolean", description=description, default=default, required=required, alias=alias))


def color(*, default: str | None = None, required: bool = False, description: str = "") -> Any:
    """Declare a color as ``#rrggbb``."""
    return _field(Field(kind="color", description=description, default=default, required=required))


def integer(
    minimum: int | None = None,
    maximum: int | None = None,
    *,
    step: int | None = None,
    default: int | None = None,
    required: bool = False,
    alias: str | None = None,
    description: str = "",
) -> Any:
    """Declare a whole number. A bool, a float or text is refused. ``step`` counts from ``minimum``, or from 0."""
    return _field(
        Field(
            kind="integer",
            description=description,
            minimum=minimum,
            maximum=maximum,
            step=step,
            default=default,
            required=required,
            alias=alias,
        )
    )


def number(
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    default: float | None = None,
    required: bool = False,
    alias: str | None = None,
    description: str = "",
) -> Any:
    """Declare a finite number."""
    return _field(
        Field(
            kind="number",
            description=description,
            minimum=minimum,
            maximum=maximum,
            default=default,
            required=required,
            alias=alias,
        )
    )


def choice(
    *choices: str,
    default: str | None = None,
    required: bool = False,
    alias: str | None = None,
    description: str = "",
) -> Any:
    """Declare one of the listed texts. ``jpg`` and ``jpeg`` stand for each other."""
    return _field(
        Field(
            kind="choice",
            description=description,
            choices=choices,
            default=default,
            required=required,
            alias=alias,
        )
    )


def file(
    inspect: Inspector | None = None,
    *,
    limits: str = "",
    required: bool = False,
    role: Role | None = "image",
    mask_area: MaskArea = "white",
    description: str = "",
) -> Any:
    """Declare a file: bytes, a path, an open binary file, (name, bytes) or a data: URI.

    An image or a mask must be a complete PNG, JPEG or WebP, unless ``inspect`` decides: it yields a file's problems.
    ``limits`` says in words what it takes, if its class does not.
    ``mask_area``: the area that the provider edits, if it is a mask. OpenAI's masks, of which the transparent area is
    edited, become such ones in the drop-in functions and the gateway.
    """
    return _field(
        Field(
            kind="file",
            description=description,
            inspect=inspect,
            limits=limits,
            required=required,
            role=role,
            mask_area=mask_area,
        )
    )


def files(
    minimum: int = 1,
    maximum: int = 16,
    *,
    role: Role | None = "image",
    inspect: Inspector | None = None,
    limits: str = "",
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a list of ``minimum`` to ``maximum`` files: ``tuple[File, ...] | None``, each as for ``file``."""
    item = Field(kind="file", inspect=inspect, limits=limits, role=role)
    return _field(
        Field(
            kind="files",
            description=description,
            minimum=minimum,
            maximum=maximum,
            item=item,
            required=required,
            role=role,
        )
    )


def group(params: type[attrs.AttrsInstance], *, required: bool = False, description: str = "") -> Any:
    """Declare a nested object, whose fields an attrs class of its own declares."""
    return _field(
        Field(kind="group", description=description, group=params, fields=fields_of(params), required=required)
    )


def fields_of(params: type[attrs.AttrsInstance]) -> Mapping[str, Field]:
    """Return a parameter class's fields by name, from this module's functions or else from the types."""
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
