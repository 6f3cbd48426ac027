"""The one converter from a caller's arguments to an operation's parameter class.

Scalars are strict, unknown names are refused, and all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .errors import MAX_PROBLEMS, InvalidRequest, Problem
from .field_checks import Field
from .fields import KEY
from .files import File
from .redact import kind_in_words, printable
from .rules import Rule
from .suggestions import closest

T = TypeVar("T")


@attrs.frozen
class _NoParams:
    """The parameters of a job that is resumed: it got its own when it started."""


NO_PARAMS = _NoParams()

converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


def _strict_type(expected: type[T], words: str) -> Callable[[object, object], T]:
    def structure(value: object, _: object) -> T:
        if type(value) is not expected:
            raise ValueError(f"must be {words}, not {kind_in_words(value)}")
        return value

    return structure


# cattrs coerces by default: a prompt of 5 would become "5".
converter.register_structure_hook(str, Field(kind="text").check)
converter.register_structure_hook(int, Field(kind="integer").check)
converter.register_structure_hook(float, Field(kind="number").check)
converter.register_structure_hook(File, Field(kind="file").check)
converter.register_structure_hook(bool, _strict_type(bool, "true or false"))
converter.register_structure_hook(bytes, _strict_type(bytes, "bytes"))


@converter.register_structure_hook_factory(attrs.has)
def _structure(cls: type[Any]) -> Callable[[Mapping[str, Any], Any], Any]:
    """Return the structuring function of a parameter class: cattrs's own, with each field's limits."""
    checks: dict[str, Any] = {
        a.name: override(struct_hook=a.metadata[KEY].check) for a in attrs.fields(cls) if KEY in a.metadata
    }
    return make_dict_structure_fn(cls, converter, **checks)


_INVALID = object()
"""Stands for an invalid value in rules: present, and equal to nothing."""


def structure(
    params: type[T],
    arguments: Mapping[str, object],
    rules: Sequence[Rule] = (),
    earlier_problems: Iterable[Problem] = (),
) -> T:
    """Return an instance of ``params`` from ``arguments``; None means not given.

    Raises InvalidRequest with all problems, ``earlier_problems`` first.
    """
    present = {name: value for name, value in arguments.items() if value is not None}
    instance: T | None = None
    problems: list[Problem] = [*earlier_problems]
    try:
        instance = converter.structure(present, params)
    except (cattrs.ClassValidationError, ValueError) as error:  # ValueError: an attrs validator of a class's own
        problems += _problems(params, error, present)
        _drop_traceback(error)
    if rules:
        reported = {problem.field for problem in problems}
        values = _without_invalid(present, reported) if reported else present
        problems += [p for rule in rules for p in rule.problems(values) if p.field not in reported]
    if instance is not None:
        if not problems:
            return instance
        close_files(instance)
    raise InvalidRequest(problems)


def _without_invalid(present: Mapping[str, object], reported: AbstractSet[str], within: str = "") -> dict[str, object]:
    """Return the arguments with ``_INVALID`` in place of each that has a problem, also in nested objects."""
    values: dict[str, object] = {}
    for name, value in present.items():
        path = f"{within}{name}"
        if path in reported:
            values[name] = _INVALID
        elif isinstance(value, Mapping) and any(each.startswith(f"{path}.") for each in reported):
            values[name] = _without_invalid(value, reported, f"{path}.")
        else:
            values[name] = value
    return values


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
    arguments: Mapping[str, object],
    fields: Mapping[str, Field | None],
    convert: Callable[[object], object],
    *,
    is_nested: bool = False,
) -> dict[str, object]:
    """Return a caller's arguments with ``convert(file)`` in place of each file, in lists and nested objects too.

    ``fields``: those with files; None stands for a file, or a list of them. ``convert`` may return None for a file of
    a list that is none. What has another form than its field stays, for the field's check to report; in a nested object
    (``is_nested``) a list for one file is for ``convert`` to refuse, which knows what a caller may give.
    Raises InvalidRequest with the problem of each argument: a ValueError of ``convert``.
    """
    result = dict(arguments)
    problems: list[Problem] = []
    for name, value in arguments.items():
        if value is None or name not in fields:
            continue
        field = fields[name]
        kind = field.kind if field is not None else None
        try:
            if field is not None and field.fields:
                result[name] = _convert_nested(value, field, convert)
            elif (kind == "files" and isinstance(value, list | tuple)) or (
                isinstance(value, list) and not (is_nested and kind == "file")
            ):
                result[name] = [done for each in value if each is not None and (done := convert(each)) is not None]
            else:  # (name, bytes) is one file
                result[name] = convert(value)
        except InvalidRequest as error:
            problems += (Problem(f"{name}.{each.field}", each.message) for each in error.problems)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise InvalidRequest(problems)
    return result


def _convert_nested(value: object, field: Field, convert: Callable[[object], object]) -> object:
    """Return an object, or a list of them, with its files converted."""
    if field.kind == "groups" and isinstance(value, list | tuple):
        items = {str(index): each for index, each in enumerate(value)}
        return [*convert_files(items, dict.fromkeys(items, field.item), convert).values()]
    if field.group is not None and isinstance(value, field.group):
        value = attrs.asdict(value, recurse=False)
    own = {name: each for name, each in field.fields.items() if each.has_files}
    return convert_files(value, own, convert, is_nested=True) if isinstance(value, Mapping) else value


def _problems(params: type[Any], error: Exception, present: Mapping[str, object]) -> Iterator[Problem]:
    if not isinstance(error, cattrs.ClassValidationError):
        yield Problem(_field_in_message(params, str(error)), str(error))
        return
    with_notes, without = error.group_exceptions()
    for cause, note in with_notes:
        if isinstance(cause, KeyError) and note.name not in present:
            yield Problem(note.name, "required")
        elif isinstance(cause, InvalidRequest):  # of a group's fields
            yield from (Problem(f"{note.name}.{each.field}", each.message) for each in cause.problems)
        else:
            yield Problem(note.name, _error_text(cause))
    for cause in without:
        if isinstance(cause, cattrs.ForbiddenExtraKeysError):
            fields = attrs.fields_dict(params)
            names = sorted(map(str, cause.extra_fields))
            yield from (_unknown_parameter(name, fields) for name in names[:MAX_PROBLEMS])  # each is compared with all
            yield from (Problem(name, "unknown parameter") for name in names[MAX_PROBLEMS:])
        else:
            yield Problem(_field_in_message(params, str(cause)), _error_text(cause))


def _drop_traceback(error: BaseException) -> None:
    """Drop cattrs's frames: they keep open files alive in cycles that only the garbage collector would break."""
    error.__traceback__ = None
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            _drop_traceback(each)


def _error_text(cause: BaseException) -> str:
    """Return an error's text; for an exception group the texts of all its errors."""
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(_error_text(each) for each in cause.exceptions)
    return str(cause) or type(cause).__name__


def _field_in_message(params: type[Any], message: str) -> str:
    return next((name for name in attrs.fields_dict(params) if f"'{name}'" in message), "parameters")


def _unknown_parameter(name: str, fields: Iterable[str]) -> Problem:
    """Return the problem of a name that no field has."""
    short = printable(name[:60])
    if name == "model_id":
        return Problem(name, "unknown parameter 'model_id'; give an ARN as the model: bedrock/arn:...")
    near = closest(short, fields, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(fields)}"
    return Problem(short, f"unknown parameter {short!r}; {hint}")
