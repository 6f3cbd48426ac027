"""The check of an input file whose field has none of its own: that of its role, an entry point of impasto's plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import cast

from .errors import UnknownOperation
from .files import File

Inspector = Callable[[File], Iterable[str]]
"""Yields the problems of a file. ``str()`` may say in words what it takes."""


@cache
def inspector_of(role: str) -> Inspector | None:
    """Return the check of files in this role, or None."""
    from .registry import INSPECTORS, Registry

    try:
        return cast(Inspector, Registry(allow="none").load(INSPECTORS, role, object))
    except UnknownOperation:
        return None


def limits_in_words(inspect: Inspector | None) -> str:
    """Return what an inspector takes, if its class says it."""
    return str(inspect) if inspect is not None and getattr(type(inspect), "__str__", None) is not object.__str__ else ""
