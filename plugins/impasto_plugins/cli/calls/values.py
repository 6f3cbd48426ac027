"""Words of the command line as values of a model's fields. Text becomes a number only for a number field."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from impasto import InvalidRequest, Operation, Problem, Request
from impasto.ext import EXTENSIONS, Makes, close_files, convert_files, field_at
from impasto.fields import LISTS, Field, format_value
from impasto.rules import value_at
from impasto_plugins.cli.terminal.output import is_terminal

FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".gif": "gif",
    ".svg": "svg",
    ".avif": "avif",
    ".mp3": "mp3",
    ".wav": "wav",
    ".glb": "glb",
}
"""Output formats by the ending of ``-o FILE``."""

_OUTPUT_FORMATS: Mapping[Makes, tuple[str, ...]] = {
    "image": ("png", "jpeg", "webp"),
    "audio": ("mp3", "wav"),
    "3d": ("glb",),
}
"""Possible formats of models without ``output_format``."""

_STDIN = ("-", "/dev/stdin", "/dev/fd/0")
_MAX_STDIN_BYTES = 256 << 20
"""Bytes that are read for a model without a limit of its own."""

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def request_of(
    operation: Operation,
    model: str,
    by_role: Mapping[str, Sequence[str]],
    *,
    assignments: Sequence[str] = (),
    out: Path | None = None,
    problems: Iterable[Problem] = (),
) -> Request:
    """Return the checked request of one call; ``by_role`` has words by the role of their field.

    Raises InvalidRequest with ``problems``, those found here, and the model's own.
    """
    problems_found = list(problems)
    params: dict[str, object] = {}
    stdin = _StandardInput(operation.max_bytes or _MAX_STDIN_BYTES)
    for name, text in (
        *_values_by_role(operation, by_role, problems_found),
        *_named_values(assignments, problems_found),
    ):
        field, values, key = _locate(operation, params, name)
        is_list = field is not None and field.kind in LISTS
        if key in values and not is_list:
            problems_found.append(Problem(name, "is set twice; leave one out"))
            continue
        try:
            if field is not None and field.kind == "text" and text in ("-", "@-"):
                value: object = _decode(stdin.read())
            else:
                value = value_of(field, text)
            if field is not None and field.has_files:
                one = field.item if field.kind == "groups" else field
                value = convert_files({name: value}, {name: one}, stdin.file_of)[name]
        except InvalidRequest as error:
            problems_found += error.problems
            continue
        except ValueError as error:
            problems_found.append(Problem(name, str(error)))
            continue
        items = values.setdefault(key, []) if is_list else None
        if isinstance(items, list):
            items.append(value)
        else:
            values[key] = value
    if out is not None:
        _ask_for_format(operation, params, out, problems_found)
    return _check(operation, model, params, problems_found)


def _locate(operation: Operation, params: dict[str, object], name: str) -> tuple[Field | None, dict[str, object], str]:
    """Return the field of a name, the values among which it stands, and its key there: ``group.x`` is in ``group``."""
    fields, values, key = operation.fields, params, name
    while key not in fields and (parts := key.partition("."))[0] in fields and fields[parts[0]].kind == "group":
        nested = values.setdefault(parts[0], {})
        if not isinstance(nested, dict):
            break
        fields, values, key = fields[parts[0]].fields, nested, parts[2]
    return fields.get(key), values, key


def _decode(content: bytes) -> str:
    """Return a text without the line break that ends a file of one. Raises ValueError."""
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("standard input is not UTF-8 text; convert it, or redirect another file") from None


class _StandardInput:
    """Standard input, which is read once, up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._is_read = limit, False

    def read(self) -> bytes:
        """Return its bytes. Raises ValueError."""
        if self._is_read:
            raise ValueError("standard input can be read for one field only")
        self._is_read = True
        return _read_stdin(self._limit)

    def file_of(self, word: object) -> object:
        """Return the path that a word names, or the bytes of standard input. Raises ValueError."""
        path = word.removeprefix("@") if isinstance(word, str) else word
        return self.read() if path in _STDIN else path


def _read_stdin(limit: int) -> bytes:
    """Return the bytes of standard input. Raises ValueError."""
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("- is standard input, which is closed; redirect a file to it")
    if is_terminal(sys.stdin):
        raise ValueError("- is standard input, which is a terminal; redirect a file to it")
    try:
        content = sys.stdin.buffer.read(limit + 1)
    except OSError as error:  # a directory, for one
        raise ValueError(f"standard input can't be read: {error.strerror}; redirect a file to it") from None
    if not content:
        raise ValueError("standard input is empty; redirect a file to it")
    if len(content) > limit:
        raise ValueError(f"standard input has more than {limit:,} bytes, which is all that is allowed")
    return content


def value_of(field: Field | None, text: str) -> object:
    """Return a field's value for a word: a number in plain decimal digits, an object of JSON, or the text itself.

    An unknown field's text stays as it is, to be refused by the model. Raises ValueError.
    """
    if field is None or field.kind in ("text", "texts", "choice", "color", "file", "files") or text in field.choices:
        return text
    if field.kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if field.kind == "numbers" and field.item is not None:
        return value_of(field.item, text)
    if field.kind == "groups":
        return _object_of(field, text)
    if field.kind == "group":
        raise ValueError(f"must be {field.describe_constraint()}; set each by its name, as in -p GROUP.NAME=VALUE")
    if field.kind == "boolean":
        raise ValueError(f"must be {field.describe_constraint()}, not {format_value(text)}")
    if field.kind == "other":
        return text == "true" if text in ("true", "false") else _number(text) if _DECIMAL.fullmatch(text) else text
    if not _DECIMAL.fullmatch(text) or (field.kind == "integer" and "." in text):
        raise ValueError(f"must be {field.describe_constraint()}, in plain decimal digits, not {format_value(text)}")
    return _number(text)


def _object_of(field: Field, text: str) -> object:
    """Return the object of a word in JSON. Raises ValueError."""
    import json

    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(text), dict):
            return value
    example = "{" + ", ".join(f'"{name}": ...' for name in field.fields) + "}"
    raise ValueError(f"must be an object as JSON, such as {example}; repeat the name for more of them")


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _values_by_role(
    operation: Operation, by_role: Mapping[str, Sequence[str]], problems: list[Problem]
) -> list[tuple[str, str]]:
    """Return prompt, images, mask and sound with the fields that have these roles, or else these names."""
    pairs: list[tuple[str, str]] = []
    for role, words in by_role.items():
        names = operation.roles.get(role) or ((role,) if role in operation.fields else ())
        places = list(_places(operation, names, len(words)))
        pairs += zip(places, words, strict=False)
        if len(words) > len(places):
            most = f"takes at most {len(places)} ({', '.join(names)}), not {len(words)}"
            if role == "image" and operation.roles.get("prompt") and not all(map(os.path.exists, words)):
                most += "; the words of a prompt follow --prompt"
            problems.append(Problem(role, f"this model {most if names else f'has no {role} field; leave it out'}"))
    return pairs


def _places(operation: Operation, names: Sequence[str], wanted: int) -> Iterator[str]:
    """Yield the field for each of ``wanted`` words: one of a list takes several."""
    for name in names:
        field = operation.fields[name]
        most = 1 if field.kind != "files" else wanted if field.maximum is None else int(field.maximum)
        yield from [name] * most


def _named_values(assignments: Sequence[str], problems: list[Problem]) -> list[tuple[str, str]]:
    pairs = []
    for word in assignments:
        name, equals, text = word.partition("=")
        if equals:
            pairs.append((name, text))
        else:
            problems.append(Problem(format_value(word), "must be NAME=VALUE"))
    return pairs


def _ask_for_format(operation: Operation, params: dict[str, object], out: Path, problems: list[Problem]) -> None:
    """Set the model's field of the output format to that of the file's name, or report that it can't be made."""
    name = operation.aliases.get("output_format", "output_format")
    field, wanted = field_at(operation.fields, name), FORMATS.get(out.suffix.lower())
    further = tuple(FORMATS.get(EXTENSIONS.get(media_type, ""), "") for media_type in operation.media_types)
    formats = Field(kind="choice", choices=(*_OUTPUT_FORMATS[operation.output], *further))
    if field is not None and field.kind == "choice":
        formats = field
    choice = formats.choice_for(wanted) if wanted is not None else None
    if choice is None and (wanted is not None or is_medium(out)):
        endings = [ending for ending, format in FORMATS.items() if formats.choice_for(format) is not None]
        advice = f"; end it in {' or '.join(filter(None, (', '.join(endings[:-1]), endings[-1])))}" if endings else ""
        problems.append(Problem("-o", f"{str(out)!r} names a format that the model can't produce{advice}"))
    elif formats is field and choice is not None:
        chosen = value_at(params, name) or choice
        if not isinstance(chosen, str) or formats.choice_for(chosen) != choice:
            problems.append(Problem(name, f"is {chosen}, but the name {str(out)!r} selects {wanted}"))
        elif choice != formats.default:
            _, values, key = _locate(operation, params, name)
            values[key] = choice


def is_medium(out: Path) -> bool:
    """Return True if a name ends like an image, a sound, a film or a 3D model."""
    import mimetypes  # it reads the system's table

    return (mimetypes.guess_type(out.name)[0] or "").startswith(("image/", "audio/", "video/", "model/"))


def _check(operation: Operation, model: str, params: dict[str, object], problems: list[Problem]) -> Request:
    try:
        request = operation.request(model, params)
    except InvalidRequest as error:
        reported = {problem.field for problem in problems}
        problems += [problem for problem in error.problems if problem.field not in reported]
    else:
        if not problems:
            return request
        close_files(request.params)
    refused = InvalidRequest(problems)
    refused.operation = model
    raise refused
