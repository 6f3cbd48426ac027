"""Fields of a parameter class.

The meaning and the limits of a field are written once: the check, ``describe()``, the documentation, the emulator and
the tests read the same record.

    @attrs.frozen(kw_only=True)
    class Params:
        prompt: str = text(1, 10_000, required=True, description="Content of the image, in English.")
        strength: float | None = number(0, 1, description="Departure from the image: 0 keeps it, 1 ignores it.")
"""

from __future__ import annotations

from typing import Any

import attrs

from .class_fields import KEY, fields_of
from .field_checks import LISTS, Field, Kind, MaskArea, Role, format_bound, format_value
from .inspectors import Inspector

__all__ = [
    "KEY",
    "LISTS",
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
    "groups",
    "integer",
    "number",
    "numbers",
    "text",
    "texts",
]


# attrs reads these at class level, where a field's type and its default value are one thing: hence Any.
def _field(spec: Field) -> Any:
    return attrs.field(metadata={KEY: spec}) if spec.required else attrs.field(default=None, metadata={KEY: spec})


def _list(kind: Kind, item: Field, count: tuple[int, int | None], *, required: bool, description: str) -> Any:
    return _field(
        Field(
            kind=kind,
            description=description,
            minimum=count[0],
            maximum=count[1],
            item=item,
            fields=item.fields,
            role=item.role,
            required=required,
        )
    )


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
    Raises BrokenPlugin for an invalid pattern, and for one that could take hours, such as ``(a+)+``.
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
    return _list("texts", item, (minimum, maximum), required=required, description=description)


def numbers(
    maximum: int | None = None,
    *,
    minimum: int = 1,
    lowest: float | None = None,
    highest: float | None = None,
    whole: bool = False,
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a list of ``minimum`` to ``maximum`` numbers: ``tuple[float, ...] | None``.

    Each is from ``lowest`` to ``highest``; ``whole``: each is a whole number, as for ``integer``.
    """
    item = Field(kind="integer" if whole else "number", minimum=lowest, maximum=highest)
    return _list("numbers", item, (minimum, maximum), required=required, description=description)


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

    Unless it is a sound, it must be a complete PNG, JPEG or WebP, or what ``inspect`` decides: it yields the problems.
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
    return _list("files", item, (minimum, maximum), required=required, description=description)


def group(
    params: type[attrs.AttrsInstance],
    *,
    choices: tuple[str, ...] = (),
    default: str | None = None,
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a nested object, whose fields an attrs class of its own declares: ``Class | None``.

    ``choices``: a caller may give one of these texts in place of the object: ``Class | str | None``.
    """
    return _field(
        Field(
            kind="group",
            description=description,
            group=params,
            fields=fields_of(params),
            choices=choices,
            default=default,
            required=required,
        )
    )


def groups(
    params: type[attrs.AttrsInstance],
    maximum: int | None = None,
    *,
    minimum: int = 1,
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a list of ``minimum`` to ``maximum`` nested objects: ``tuple[Class, ...] | None``."""
    item = Field(kind="group", group=params, fields=fields_of(params))
    return _list("groups", item, (minimum, maximum), required=required, description=description)
