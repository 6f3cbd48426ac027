"""From words of the command line to a model's fields. Text becomes a number only where the field is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from impasto import InvalidRequest, Operation, Problem, Request
from impasto.ext import Makes, close_files
from impasto.fields import Field, shown

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp3": "mp3", ".wav": "wav", ".glb": "glb"}
"""What the ending of ``-o FILE`` asks for."""

_MADE: Mapping[Makes, tuple[str, ...]] = {"image": ("png", "jpeg", "webp"), "audio": ("mp3", "wav"), "3d": ("glb",)}
"""What there may be where a model has no ``output_format``."""

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def request_of(
    operation: Operation,
    model: str,
    placed: Mapping[str, Sequence[str]],
    *,
    given: Sequence[str] = (),
    out: Path | None = None,
    problems: Iterable[Problem] = (),
) -> Request:
    """The checked request of one call; ``placed`` has words by the role of the field that they fill.

    Raises InvalidRequest: ``problems``, those found here, and the model's own.
    """
    found = list(problems)
    params: dict[str, object] = {}
    for name, text in (*_placed(operation, placed, found), *_named(given, found)):
        if name in params:
            found.append(Problem(name, "is given twice"))
            continue
        try:
            params[name] = value_of(operation.fields.get(name), text)
        except ValueError as error:
            found.append(Problem(name, str(error)))
    if out is not None:
        _ask_for_format(operation, params, out, found)
    return _checked(operation, model, params, found)


def value_of(field: Field | None, text: str) -> object:
    """What a field takes for a word: a path, a number of plain decimal digits, or the text itself.

    An unknown field's text stays as it is, to be refused by the model. Raises ValueError.
    """
    if field is None or field.kind in ("text", "choice"):
        return text
    if field.kind == "file":
        return text.removeprefix("@")
    if field.kind == "other":
        return text == "true" if text in ("true", "false") else _number(text) if _DECIMAL.fullmatch(text) else text
    if not _DECIMAL.fullmatch(text) or (field.kind == "integer" and "." in text):
        raise ValueError(f"must be {field.takes()}, in plain digits, not {shown(text)}")
    return _number(text)


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _placed(operation: Operation, placed: Mapping[str, Sequence[str]], found: list[Problem]) -> list[tuple[str, str]]:
    """Prompt, pictures, mask and sound, each with the field that has its role."""
    pairs: list[tuple[str, str]] = []
    for role, words in placed.items():
        names = operation.roles.get(role, ())
        pairs += zip(names, words, strict=False)
        if len(words) > len(names):
            takes = f"{len(names)} ({', '.join(names)}), not {len(words)}" if names else "none"
            found.append(Problem(role, f"this model takes {takes}"))
    return pairs


def _named(given: Sequence[str], found: list[Problem]) -> list[tuple[str, str]]:
    pairs = []
    for word in given:
        name, equals, text = word.partition("=")
        if equals:
            pairs.append((name, text))
        else:
            found.append(Problem(shown(word), "write -p NAME=VALUE"))
    return pairs


def _ask_for_format(operation: Operation, params: dict[str, object], out: Path, found: list[Problem]) -> None:
    field, wanted = operation.fields.get("output_format"), FORMATS.get(out.suffix.lower())
    made = field.choices if field is not None else _MADE[operation.makes]
    if wanted not in made and (wanted is not None or _is_medium(out)):
        *others, last = (ending for ending, format in FORMATS.items() if format in made)
        endings = f"{', '.join(others)} or {last}" if others else last
        found.append(Problem("-o", f"{str(out)!r} asks for a format that the model does not make; end it in {endings}"))
    elif field is not None and wanted is not None:
        asked = params.get("output_format", wanted)
        if asked != wanted:
            found.append(Problem("output_format", f"is {asked}, but {str(out)!r} asks for {wanted}"))
        elif wanted != field.default:
            params["output_format"] = wanted


def _is_medium(out: Path) -> bool:
    """Whether a name's ending is that of a picture, a sound, a film or a 3D model."""
    import mimetypes  # it reads the system's table

    return (mimetypes.guess_type(out.name)[0] or "").startswith(("image/", "audio/", "video/", "model/"))


def _checked(operation: Operation, model: str, params: dict[str, object], found: list[Problem]) -> Request:
    try:
        request = operation.request(model, params)
    except InvalidRequest as error:
        told = {problem.field for problem in found}
        found += [problem for problem in error.problems if problem.field not in told]
    else:
        if not found:
            return request
        close_files(request.params)
    refused = InvalidRequest(found)
    refused.operation = model
    raise refused
