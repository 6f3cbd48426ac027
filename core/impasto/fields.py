"""Fields of a parameter class.

The meaning and the limits of a field are written once: the check, ``describe()``, the documentation, the emulator and
the tests read the same record.

    @attrs.frozen(kw_only=True)
    class Params:
        prompt: str = text(1, 10_000, required=True, description="Content of the image, in English.")
        strength: float | None = number(0, 1, description="Departure from the image: 0 keeps it, 1 ignores it.")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

import attrs

from .files import File
from .redact import kind_in_words

KEY = "impasto"
Kind = Literal["text", "integer", "number", "choice", "file", "other"]
Role = Literal["image", "mask", "audio", "prompt"]


@attrs.frozen(kw_only=True)
class Field:
    """The meaning and the limits of one field. ``default`` is the provider's own: documented, never sent.

    ``description`` is one or two sentences for users. ``role`` names the OpenAI-style argument that fills the field;
    ``alias`` another name that such callers use. ``inspect`` yields the problems of a file, ``limits`` puts that rule
    in words. The kind ``other`` is an attribute that no function of this module made, of which only the type is known.
    """

    kind: Kind
    description: str = ""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: str | float | None = None
    role: Role | None = None
    alias: str | None = None
    inspect: Callable[[File], Iterable[str]] | None = attrs.field(default=None, repr=False)
    limits: str = ""

    def check(self, value: object, _: object = None, /) -> object:
        """Return the value as it may be sent. Raises ValueError with the field's limits.

        cattrs calls it as a hook too, with a type after the value.
        """
        match self.kind:
            case "text":
                return self._text(value)
            case "choice":
                if not isinstance(value, str) or value not in self.choices:
                    raise ValueError(f"must be one of {', '.join(self.choices)}, not {format_value(value)}")
                return str.__str__(value)  # of an enum's member too the text, not its name
            case "file":
                return self._file(value)
            case "other":
                return value
            case _:
                return self._number(value)

    def describe_constraint(self) -> str:
        """Return the field's limits in words."""
        match self.kind:
            case "text":
                least = f"{self.minimum or 0:,.0f}"
                if self.maximum is not None and self.maximum == self.minimum:
                    return f"text of exactly {least} character{'' if self.maximum == 1 else 's'}"
                if self.maximum is not None:
                    return f"text of {least} to {self.maximum:,.0f} characters"
                return f"text of at least {least} characters" if self.minimum else "text"
            case "choice":
                return f"one of {', '.join(self.choices)}"
            case "file":
                return f"a file: {self.limits}" if self.limits else "a file"
            case "other":
                return self.limits
            case kind:
                word = "a whole number" if kind == "integer" else "a number"
                if self.minimum is None and self.maximum is None:
                    return word
                return f"{word} from {format_bound(self.minimum)} to {format_bound(self.maximum)}"

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {kind_in_words(value)}")
        if not (self.minimum or 0) <= len(value) <= (math.inf if self.maximum is None else self.maximum):
            raise ValueError(f"must be {self.describe_constraint()}, got {len(value):,}")
        if self.minimum and not value.strip():
            raise ValueError("must not be blank")
        if "\x00" in value:
            raise ValueError("must not contain a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("contains half a surrogate pair, which is invalid text") from None
        return str.__str__(value)

    def _number(self, value: object) -> int | float:
        whole = self.kind == "integer"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not (low <= value <= high) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        # Plain numbers: an enum's member or another library's float would be spelled in its own way on the wire.
        return int(value) if isinstance(value, int) else float(value) + 0.0  # + 0.0: no minus before a zero

    def _file(self, value: object) -> File:
        file = File.of(value)
        try:
            problems = ["is empty"] if file.size == 0 else list(self.inspect(file) if self.inspect else ())
        except BaseException:  # inspect is a plugin's, and may raise anything: the descriptor must not leak
            file.close()
            raise
        if problems:
            file.close()
            raise ValueError("; ".join(problems))
        return file


def format_value(value: object) -> str:
    """Return a value as a message may show it: short, and never a file's content."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a far larger number"
    if isinstance(value, str | int | float):
        return repr(value) if len(text := repr(value)) <= 60 else f"{text[:57]}..."
    return kind_in_words(value)


def format_bound(number: float | None) -> str:
    """Return a limit in words: 4294967294, 0.35, or "any" without one."""
    return "any" if number is None else f"{number:g}" if number != int(number) else str(int(number))


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
    description: str = "",
) -> Any:
    """Declare text of ``minimum`` to ``maximum`` characters (code points)."""
    return _field(
        Field(
            kind="text",
            description=description,
            minimum=minimum,
            maximum=maximum,
            required=required,
            role=role,
            alias=alias,
        )
    )


def integer(
    minimum: int | None = None,
    maximum: int | None = None,
    *,
    default: int | None = None,
    required: bool = False,
    description: str = "",
) -> Any:
    """Declare a whole number. A bool, a float or text is refused."""
    return _field(
        Field(
            kind="integer",
            description=description,
            minimum=minimum,
            maximum=maximum,
            default=default,
            required=required,
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


def choice(*choices: str, default: str | None = None, required: bool = False, description: str = "") -> Any:
    """Declare one of the listed texts."""
    return _field(Field(kind="choice", description=description, choices=choices, default=default, required=required))


def file(
    inspect: Callable[[File], Iterable[str]] | None = None,
    *,
    limits: str = "",
    required: bool = False,
    role: Role | None = "image",
    description: str = "",
) -> Any:
    """Declare a file: bytes, a path, an open binary file, (name, bytes) or a data: URI."""
    return _field(
        Field(kind="file", description=description, inspect=inspect, limits=limits, required=required, role=role)
    )


def fields_of(params: type[attrs.AttrsInstance]) -> dict[str, Field]:
    """Return a parameter class's fields by name, from this module's functions or else from the types."""
    if any(KEY not in a.metadata for a in attrs.fields(params)):
        attrs.resolve_types(params)
    return {a.name: a.metadata.get(KEY) or _field_from_type(a) for a in attrs.fields(params)}


_KINDS: dict[object, Kind] = {str: "text", int: "integer", float: "number", File: "file"}


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
