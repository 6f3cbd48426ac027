"""Checks of a model's default values, which a configuration states."""

from __future__ import annotations

from collections.abc import Mapping

from impasto import InvalidRequest, Operation, Problem
from impasto.ext import convert_files, structure
from impasto.fields import Field

from .translate import translate


def problems_of_defaults(operation: Operation, defaults: Mapping[str, object]) -> list[Problem]:
    """Return the problems of a model's default values, each checked by itself: a call gives the rest."""
    translation = translate(operation, defaults, makes=operation.output)
    problems = {problem.field: problem for problem in translation.problems}
    values: dict[str, object] = {}
    for name, value in translation.params.items():
        word = translation.words[name]
        if _has_file(operation.fields[name], value):
            problems[word] = Problem(word, "is a file, which each call gives; leave it out")
        else:
            values[name] = value
    try:
        structure(operation.params, values)
    except InvalidRequest as error:
        for problem in error.problems:
            name, dot, within = problem.field.partition(".")
            if name in values:
                word = f"{translation.words[name]}{dot}{within}"
                problems.setdefault(word, Problem(word, problem.message))
    return list(problems.values())


def _has_file(field: Field, value: object) -> bool:
    """Return True if a value has a file, alone or in a nested object."""
    found: list[object] = []
    convert_files({"": value}, {"": field} if field.has_files else {}, found.append)
    return bool(found)
