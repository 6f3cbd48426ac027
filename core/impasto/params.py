"""The one converter: what a caller gave becomes an instance of an operation's parameter class.

Scalars are strict, unknown names are refused, and all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .errors import MOST_PROBLEMS, InvalidRequest, Problem
from .fields import KEY, Field
from .files import File
from .redact import kind_in_words, printable
from .rules import Rule
from .suggestions import closest

T = TypeVar("T")

converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


def _exactly(expected: type[T], words: str) -> Callable[[object, object], T]:
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
converter.register_structure_hook(bool, _exactly(bool, "true or false"))
converter.register_structure_hook(bytes, _exactly(bytes, "bytes"))


@converter.register_structure_hook_factory(attrs.has)
def _structure(cls: type[Any]) -> Callable[[Mapping[str, Any], Any], Any]:
    """The structuring function of a parameter class: cattrs's own, with each field's bounds in it."""
    checks: dict[str, Any] = {
        a.name: override(struct_hook=a.metadata[KEY].check) for a in attrs.fields(cls) if KEY in a.metadata
    }
    return make_dict_structure_fn(cls, converter, **checks)


_WRONG = object()
"""What a rule sees of a value that was refused: given, and equal to nothing."""


def structure(
    params: type[T], given: Mapping[str, object], rules: Sequence[Rule] = (), known: Iterable[Problem] = ()
) -> T:
    """Makes ``params`` of ``given``, where None means not given.

    Raises InvalidRequest with all problems, those that are ``known`` first.
    """
    present = {name: value for name, value in given.items() if value is not None}
    made: T | None = None
    problems: list[Problem] = [*known]
    try:
        made = converter.structure(present, params)
    except (cattrs.ClassValidationError, ValueError) as error:  # ValueError: an attrs validator of a class's own
        problems += _problems(params, error, present)
        _let_go(error)
    if rules:
        told = {problem.field for problem in problems}
        seen = {name: _WRONG if name in told else value for name, value in present.items()}
        problems += [p for rule in rules for p in rule.problems(seen) if p.field not in told]
    if made is not None:
        if not problems:
            return made
        close_files(made)
    raise InvalidRequest(problems)


def close_files(params: object) -> None:
    """Lets go of every file among the parameters."""
    for attribute in attrs.fields(type(params)):  # type: ignore[arg-type]  # an instance of a parameter class
        if isinstance(value := getattr(params, attribute.name), File):
            value.close()


def _problems(params: type[Any], error: Exception, present: Mapping[str, object]) -> Iterator[Problem]:
    if not isinstance(error, cattrs.ClassValidationError):
        yield Problem(_named_in(params, str(error)), str(error))
        return
    with_notes, without = error.group_exceptions()
    for cause, note in with_notes:
        if isinstance(cause, KeyError) and note.name not in present:
            yield Problem(note.name, "required")
        else:
            yield Problem(note.name, _said(cause))
    for cause in without:
        if isinstance(cause, cattrs.ForbiddenExtraKeysError):
            fields = attrs.fields_dict(params)
            names = sorted(map(str, cause.extra_fields))
            yield from (_unknown(name, fields) for name in names[:MOST_PROBLEMS])  # each is compared with all
            yield from (Problem(name, "is no parameter of this model") for name in names[MOST_PROBLEMS:])
        else:
            yield Problem(_named_in(params, str(cause)), _said(cause))


def _let_go(error: BaseException) -> None:
    """Drops cattrs's frames: they hold the files made so far, in cycles that only the garbage collector would end."""
    error.__traceback__ = None
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            _let_go(each)


def _said(cause: BaseException) -> str:
    """An error's own words; of a nested one those of everything in it."""
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(_said(each) for each in cause.exceptions)
    return str(cause) or type(cause).__name__


def _named_in(params: type[Any], message: str) -> str:
    return next((name for name in attrs.fields_dict(params) if f"'{name}'" in message), "parameters")


def _unknown(name: str, known: Iterable[str]) -> Problem:
    """Return the problem of a name that no field has."""
    short = printable(name[:60])
    if name == "model_id":
        return Problem(name, "is no parameter of a model; give an ARN as the model: bedrock/arn:...")
    near = closest(short, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
    return Problem(short, f"is no parameter of this model; {hint}")
