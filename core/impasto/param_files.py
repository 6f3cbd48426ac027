"""The files among parameters, in lists and nested objects too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from .errors import InvalidRequest, Problem
from .files import File

if TYPE_CHECKING:
    from .field_checks import Field

_SCALARS = (str, int, float)  # a union would be made again for each value: benchmark `dispatch`


def files_of(value: object) -> Iterator[File]:
    """Yield the files of a parameter, or of all: also those in lists and nested objects."""
    if isinstance(value, File):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from files_of(each)
    elif attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):  # type: ignore[arg-type]  # ``has`` is True of an attrs class
            each = getattr(value, attribute.name)
            if each is not None and not isinstance(each, _SCALARS):  # as most are
                yield from files_of(each)


def close_files(params: object) -> None:
    """Close every file among the parameters."""
    for each in files_of(params):
        each.close()


def convert_files(
    arguments: Mapping[str, object], fields: Mapping[str, Field | None], convert: Callable[[object], object]
) -> dict[str, object]:
    """Return a caller's arguments with ``convert(file)`` in place of each file, in lists and nested objects too.

    ``fields`` are those of the arguments; None stands for a file, or a list of them. ``convert`` may return None for a
    file of a list that is none. What has another form than its field stays, for the field's check to report.
    Raises InvalidRequest with the problem of each argument: a ValueError of ``convert``.
    """
    result = dict(arguments)
    problems: list[Problem] = []
    for name, value in arguments.items():
        field = fields.get(name)
        if value is not None and name in fields and (field is None or field.has_files):
            try:
                result[name] = _converted(value, field, convert)
            except InvalidRequest as error:
                problems += (Problem(f"{name}.{each.field}", each.message) for each in error.problems)
            except ValueError as error:
                problems.append(Problem(name, str(error)))
    if problems:
        raise InvalidRequest(problems)
    return result


def _converted(value: object, field: Field | None, convert: Callable[[object], object]) -> object:
    if field is None or field.kind in ("file", "files"):
        lists = (list, tuple) if field is not None and field.kind == "files" else list  # (name, bytes) is one file
        if not isinstance(value, lists):
            return convert(value)
        return [done for each in value if each is not None and (done := convert(each)) is not None]
    if field.kind == "groups" and isinstance(value, list | tuple):
        items = {str(index): each for index, each in enumerate(value)}
        return [*convert_files(items, dict.fromkeys(items, field.item), convert).values()]
    if field.kind == "group" and field.group is not None and isinstance(value, field.group):
        value = attrs.asdict(value, recurse=False)
    return convert_files(value, field.fields, convert) if isinstance(value, Mapping) else value
