"""The page about the errors, from their classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from impasto import errors
from impasto.errors import ImpastoError

from .text import doc, fenced, page

_INTRODUCTION = """
Every error of impasto is an `impasto.ImpastoError`. Its attribute `billed` is `"no"`, `"yes"` or `"unknown"`, and
`retryable` is True if the same call may succeed later. [The promise](../promise.md) says what to do with each error.
"""


def pages() -> dict[str, str]:
    """Return the page."""
    tree = (inspect.getdoc(errors) or "").partition("\n\n")[2]
    return {
        "reference/errors.md": page(
            "# Errors", _INTRODUCTION, fenced("text", tree), *(part for kind in every() for part in _error(kind))
        )
    }


def every(kind: type[ImpastoError] = ImpastoError) -> Iterator[type[ImpastoError]]:
    """Return an error's class and all of impasto's own classes below it."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every(child)


def _error(kind: type[ImpastoError]) -> Iterator[str]:
    yield f"## {kind.__name__}"
    yield doc(kind)
    base = ", ".join(f"`{each.__name__}`" for each in kind.__bases__)
    yield f"Base: {base}. Billed: **{kind.billed}**. Retryable: **{'yes' if kind.retryable else 'no'}**."
    own = [name for name in inspect.get_annotations(kind) if name not in ("billed", "retryable")]
    arguments = list(inspect.signature(kind).parameters) if "__init__" in vars(kind) else []
    names = [name for name in dict.fromkeys((*arguments, *own)) if name not in ("message", "request_id", "retryable")]
    if kind is ImpastoError:
        names = ["message", "operation", "request_id", "id", "errors"]
    if names:
        yield f"Attributes: {', '.join(f'`{name}`' for name in names)}."
