"""One field: its meaning, its limits, and the check of a value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import attrs

from .errors import InvalidRequest, Problem
from .files import File
from .inspectors import Inspector, inspector_of, limits_in_words
from .redact import kind_in_words

Kind = Literal[
    "text", "integer", "number", "boolean", "choice", "color", "file", "group",
    "texts", "numbers", "files", "groups", "other",
]  # fmt: skip
LISTS: tuple[Kind, ...] = ("texts", "numbers", "files", "groups")
"""Kinds whose value is a list; ``item`` is the field of each value."""

Role = Literal["image", "mask", "audio", "prompt"]
MaskArea = Literal["white", "black", "transparent"]
"""The area of a mask that the provider edits."""

_FORMATS = {
    "jpg": "jpeg",
    **{each: each for each in ("jpeg", "png", "webp", "gif", "avif", "svg", "mp3", "wav", "glb")},
}
"""File formats by the words that callers use."""

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


def _check_pattern(field: Field, attribute: object, pattern: str) -> None:
    from .patterns import check_pattern  # few plugins have one

    check_pattern(pattern, field.maximum)


@attrs.frozen(kw_only=True)
class Field:
    """The meaning and the limits of one field. ``default`` is the provider's own: documented, never sent.

    ``description`` is one or two sentences for users. ``role`` names the OpenAI-style argument that fills the field;
    ``alias`` another name that such callers use. ``inspect`` yields the problems of a file, ``limits`` puts that rule
    in words; without ``inspect`` it must be a complete image, unless it is a sound. ``minimum`` and ``maximum`` limit a
    number, a text's length or a list's, whose ``item`` is the field of each value. ``pattern`` must match all of a
    text; ``pattern_words`` say in messages what it allows. ``mask_area`` is the area of a mask that the provider edits.
    ``group`` is the class of a nested object and ``fields`` are its fields; a text of ``choices`` may stand in its
    place. The kind ``other`` is an attribute that no function of ``fields`` declares, of which only the type is known.
    """

    kind: Kind
    description: str = ""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: str | float | bool | None = None
    role: Role | None = None
    mask_area: MaskArea = "white"
    alias: str | None = None
    inspect: Inspector | None = attrs.field(default=None, repr=False)
    limits: str = ""
    pattern: str | None = attrs.field(default=None, validator=attrs.validators.optional(_check_pattern))
    pattern_words: str = ""
    step: int | None = None
    item: Field | None = None
    group: type[attrs.AttrsInstance] | None = None
    fields: Mapping[str, Field] = attrs.field(factory=dict[str, "Field"], repr=False)

    @property
    def has_files(self) -> bool:
        """True if a value of this field is a file or holds files."""
        return self.kind in ("file", "files") or any(field.has_files for field in self.fields.values())

    def check(self, value: object, _: object = None, /) -> object:
        """Return the value as it may be sent. Raises ValueError with the field's limits.

        cattrs calls it as a hook too, with a type after the value.
        """
        match self.kind:
            case "text":
                return self._text(value)
            case "choice":
                if isinstance(value, str) and value in self.choices:  # as nearly always: benchmark `dispatch`
                    return str.__str__(value)  # of an enum's member too the text, not its name
                if not isinstance(value, str) or (choice := self.choice_for(value)) is None:
                    raise ValueError(f"must be one of {', '.join(self.choices)}, not {format_value(value)}")
                return choice
            case "integer" | "number":
                return self._number(value)
            case "file":
                return self._file(value)
            case "files" | "texts" | "numbers" | "groups":
                return self._list(value)
            case "boolean":
                if not isinstance(value, bool):
                    raise ValueError(f"must be true or false, not {format_value(value)}")
                return value
            case "color":
                if not isinstance(value, str) or _COLOR.fullmatch(value) is None:
                    raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
                return str.__str__(value)
            case "group":
                return self._group(value)
            case _:
                return value

    def choice_for(self, text: str) -> str | None:
        """Return the choice that a text stands for, or None: itself, or a file format in the provider's spelling.

        ``jpg`` and ``jpeg`` are one format, and a provider may write ``JPEG`` or ``image/jpeg``.
        """
        if text in self.choices:
            return str.__str__(text)
        if (format := _FORMATS.get(text)) is None:
            return None
        return next(
            (each for each in self.choices if _FORMATS.get(each.lower().removeprefix("image/")) == format), None
        )

    def describe_constraint(self) -> str:
        """Return the field's limits in words."""
        match self.kind:
            case "text":
                return self._text_in_words()
            case "texts" | "numbers" | "files" | "groups":
                noun, item = "objects" if self.kind == "groups" else self.kind, self.item
                each = f"; each {item.describe_constraint()}" if item is not None and item.is_limited else ""
                return f"a list of {self._count_in_words(noun)}{each}"
            case "boolean":
                return "true or false"
            case "color":
                return "a color as #rrggbb, such as #ff8800"
            case "group" | "choice":
                either = [f"one of {', '.join(self.choices)}"] if self.choices else []
                return " or ".join([*either, *([f"an object with {', '.join(self.fields)}"] if self.fields else [])])
            case "file":
                limits = self.limits or limits_in_words(self._inspector)
                return f"a file: {limits}" if limits else "a file"
            case "other":
                return self.limits
            case kind:
                word = "a whole number" if kind == "integer" else "a number"
                steps = f" in steps of {self.step}" if self.step is not None else ""
                least, most = format_bound(self.minimum), format_bound(self.maximum)
                limits = f" of at least {least}" if most == "any" else f" from {least} to {most}"
                limits = f" of at most {most}" if least == "any" else limits
                return f"{word}{'' if least == most == 'any' else limits}{steps}"

    @property
    def is_limited(self) -> bool:
        """True if the field takes less than any value of its kind."""
        is_bounded = self.maximum is not None or (self.kind in ("integer", "number") and self.minimum is not None)
        return bool(self.limits or self.pattern or is_bounded or self.group or limits_in_words(self._inspector))

    def _text_in_words(self) -> str:
        if not self.pattern_words:
            return self._length_in_words() + (f" that matches {self.pattern}" if self.pattern is not None else "")
        return self.pattern_words if self.maximum is None else f"{self._length_in_words()}: {self.pattern_words}"

    def _length_in_words(self) -> str:
        least = f"{self.minimum or 0:,.0f}"
        if self.maximum is not None and self.maximum == self.minimum:
            return f"text of exactly {least} character{'' if self.maximum == 1 else 's'}"
        if self.maximum is not None:
            return f"text of {least} to {self.maximum:,.0f} characters"
        return f"text of at least {least} character{'' if self.minimum == 1 else 's'}" if self.minimum else "text"

    def _count_in_words(self, noun: str) -> str:
        least, most = int(self.minimum or 0), self.maximum
        if most is not None and most == least:
            return f"exactly {least} {noun if least != 1 else noun.removesuffix('s')}"
        if most is not None:
            return f"{least} to {most:.0f} {noun}"
        return f"at least {least} {noun if least != 1 else noun.removesuffix('s')}" if least else noun

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {kind_in_words(value)}")
        if not (self.minimum or 0) <= len(value) <= (math.inf if self.maximum is None else self.maximum):
            raise ValueError(f"must be {self._length_in_words()}, got {len(value):,}")
        if self.minimum and not value.strip():
            raise ValueError("must not be blank")
        if "\x00" in value:
            raise ValueError("must not contain a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("contains half a surrogate pair, which is invalid text") from None
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            rule = f"be {self.pattern_words}" if self.pattern_words else f"match {self.pattern}"
            raise ValueError(f"must {rule}, not {format_value(value)}")
        return str.__str__(value)

    def _number(self, value: object) -> int | float:
        whole = self.kind == "integer"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not (low <= value <= high) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        if self.step is not None and (value - (self.minimum or 0)) % self.step:
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        # Plain numbers: an enum's member or another library's float would be spelled in its own way on the wire.
        return int(value) if isinstance(value, int) else float(value) + 0.0  # + 0.0: no minus before a zero

    def _list(self, value: object) -> tuple[object, ...]:
        item = self.item or Field(kind="file" if self.kind == "files" else "text")
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be {self.describe_constraint()}, not {kind_in_words(value)}; give a list")
        if not (self.minimum or 0) <= len(value) <= (math.inf if self.maximum is None else self.maximum):
            raise ValueError(f"must be {self.describe_constraint()}, not {len(value):,}")
        checked: list[object] = []
        problems: list[str] = []
        nested: list[Problem] = []
        try:
            for number, each in enumerate(value, 1):
                try:
                    checked.append(item.check(each))
                except InvalidRequest as error:  # of an object's fields
                    nested += [Problem(f"{number - 1}.{each.field}", each.message) for each in error.problems]
                except ValueError as error:
                    noun = "object" if item.kind == "group" else item.kind
                    problems.append(f"{noun} {number}: {error}")
            if nested and not problems:
                raise InvalidRequest(nested)
            if problems:
                raise ValueError("; ".join(problems))
        except BaseException:  # also what a plugin's ``inspect`` raises: no descriptor may leak
            from .params import close_files  # which uses this module

            close_files(checked)
            raise
        return tuple(checked)

    def _group(self, value: object) -> attrs.AttrsInstance | str:
        from .params import structure  # it checks the fields of any class, with this module

        assert self.group is not None  # noqa: S101 - ``fields.group`` sets it
        if isinstance(value, str) and (choice := self.choice_for(value)) is not None:
            return choice
        if isinstance(value, self.group):
            return structure(self.group, {name: getattr(value, name) for name in self.fields})
        if not isinstance(value, Mapping):
            raise ValueError(f"must be {self.describe_constraint()}, not {format_value(value)}")
        return structure(self.group, value)

    @property
    def _inspector(self) -> Inspector | None:
        return inspector_of(self.role or "image") if self.inspect is None and self.kind == "file" else self.inspect

    def _file(self, value: object) -> File:
        file = File.of(value)
        try:
            inspect = self._inspector
            problems = ["is empty"] if file.size == 0 else list(inspect(file) if inspect is not None else ())
        except BaseException:  # inspect is a plugin's, and may raise anything: the descriptor must not leak
            file.close()
            raise
        if problems:
            file.close()
            raise ValueError("; ".join(problems))
        return file


def field_at(fields: Mapping[str, Field], name: str) -> Field | None:
    """Return the field of a name, None if there is none.

    Dots lead into nested objects, also of a list: ``image_size.width``, ``members.0.weight``.
    """
    first, *nested = name.split(".")
    field = fields.get(first)
    for each in nested:
        if field is not None:
            field = field.item if field.kind == "groups" and each.isdecimal() else field.fields.get(each)
    return field


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
