"""The one converter: what a caller gave becomes an instance of an operation's parameter class.

Scalars are strict, unknown names are refused, and all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .errors import InvalidRequest, Problem
from .fields import KEY, Field
from .files import File
from .rules import Rule

T = TypeVar("T")

converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


def _exactly(expected: type[T]) -> Callable[[object, object], T]:
    def structure(value: object, _: object) -> T:
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"must be {expected.__name__}, not {type(value).__name__}")
        return value

    return structure


def _number(value: object, _: object) -> float:
    return cast(float, Field(kind="number").check(value))


# cattrs coerces by default: a prompt of 5 would become "5".
for _scalar in (str, int, bool, bytes):
    converter.register_structure_hook(_scalar, _exactly(_scalar))
converter.register_structure_hook(float, _number)
converter.register_structure_hook(File, lambda value, _: File.of(value))


@converter.register_structure_hook_factory(attrs.has)
def _structure(cls: type[Any]) -> Callable[[Mapping[str, Any], Any], Any]:
    """The structuring function of a parameter class: cattrs's own, with each field's bounds in it."""
    checks: dict[str, Any] = {
        a.name: override(struct_hook=_check(a.metadata[KEY])) for a in attrs.fields(cls) if KEY in a.metadata
    }
    return make_dict_structure_fn(cls, converter, **checks)


def _check(field: Field) -> Callable[[object, object], object]:
    check = field.check
    return lambda value, _: check(value)


def structure(params: type[T], given: Mapping[str, object], rules: Sequence[Rule] = ()) -> T:
    """Makes ``params`` of ``given``, where None means not given. Raises InvalidRequest with all problems."""
    present = {name: value for name, value in given.items() if value is not None}
    made: T | None = None
    problems: list[Problem] = []
    try:
        made = converter.structure(present, params)
    except (cattrs.ClassValidationError, ValueError) as error:  # ValueError: an attrs validator of a class's own
        problems += _problems(params, error)
    told = {problem.field for problem in problems}
    problems += [p for rule in rules for p in rule.problems(present) if p.field not in told]
    if made is not None and not problems:
        return made
    if made is not None:
        close_files(made)
    raise InvalidRequest(problems)


def close_files(params: object) -> None:
    """Lets go of every file among the parameters."""
    for attribute in attrs.fields(type(params)):  # type: ignore[arg-type]  # an instance of a parameter class
        if isinstance(value := getattr(params, attribute.name), File):
            value.close()


def _problems(params: type[Any], error: Exception) -> Iterator[Problem]:
    if not isinstance(error, cattrs.ClassValidationError):
        yield Problem(_named_in(params, str(error)), str(error))
        return
    with_notes, without = error.group_exceptions()
    for cause, note in with_notes:
        if isinstance(cause, KeyError):
            yield Problem(note.name, "required")
        else:
            yield Problem(note.name, str(cause))
    for cause in without:
        if isinstance(cause, cattrs.ForbiddenExtraKeysError):
            yield from (_unknown(name, attrs.fields_dict(params)) for name in sorted(cause.extra_fields))
        else:
            yield Problem(_named_in(params, str(cause)), str(cause))


def _named_in(params: type[Any], message: str) -> str:
    return next((name for name in attrs.fields_dict(params) if f"'{name}'" in message), "parameters")


def _unknown(name: str, known: Iterable[str]) -> Problem:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
    return Problem(name[:60], f"is no parameter of this model; {hint}")
