"""From words of the command line to a model's fields. Text becomes a number only where the field is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from impasto import InvalidRequest, Operation, Problem, Request
from impasto.fields import Field, shown
from impasto.params import close_files

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""What the ending of ``-o FILE`` asks for."""

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def request_of(
    operation: Operation,
    model: str,
    *,
    prompt: str | None = None,
    images: Sequence[str] = (),
    mask: str | None = None,
    given: Sequence[str] = (),
    out: Path | None = None,
    problems: Iterable[Problem] = (),
) -> Request:
    """The checked request of one call. Raises InvalidRequest: ``problems``, those found here, and the model's own."""
    found = list(problems)
    params: dict[str, object] = {}
    prompts = () if prompt is None else (prompt,)
    masks = () if mask is None else (mask,)
    for name, text in (*_placed(operation, prompts, images, masks, found), *_named(given, found)):
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
    if not _DECIMAL.fullmatch(text) or (field.kind == "integer" and "." in text):
        raise ValueError(f"must be {field.takes()}, in plain digits, not {shown(text)}")
    return float(text) if "." in text else int(text)


def _placed(
    operation: Operation, prompts: Sequence[str], images: Sequence[str], masks: Sequence[str], found: list[Problem]
) -> list[tuple[str, str]]:
    """Prompt, pictures and mask, each with the field that has its role."""
    pairs: list[tuple[str, str]] = []
    for role, words in (("prompt", prompts), ("image", images), ("mask", masks)):
        names = [name for name, field in operation.fields.items() if field.role == role]
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
    import mimetypes  # it reads the system's table

    field, wanted = operation.fields.get("output_format"), FORMATS.get(out.suffix.lower())
    if wanted is None and (mimetypes.guess_type(out.name)[0] or "").startswith("image/"):
        found.append(Problem("-o", f"{str(out)!r} asks for a format that no model makes; end it in {_endings()}"))
    if field is None or wanted is None:
        return
    asked = params.get("output_format", wanted)
    if asked != wanted:
        found.append(Problem("output_format", f"is {asked}, but {str(out)!r} asks for {wanted}"))
    elif wanted != field.default:
        params["output_format"] = wanted


def _endings() -> str:
    *others, last = FORMATS
    return f"{', '.join(others)} or {last}"


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
