"""The errors, made of their classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from impasto import errors
from impasto.errors import ImpastoError

from .text import doc, fenced, page

_INTRODUCTION = """
Everything that impasto raises of its own accord is an `impasto.ImpastoError`. Each says two independent facts:
`billed`, which is `"no"`, `"yes"` or `"unknown"`, and `retryable`, whether the same call may come right later. What to
do with each: [the promise](../promise.md).
"""


def pages() -> dict[str, str]:
    """One page."""
    tree = (inspect.getdoc(errors) or "").partition("\n\n")[2]
    return {
        "reference/errors.md": page(
            "# Errors", _INTRODUCTION, fenced("text", tree), *(part for kind in every() for part in _error(kind))
        )
    }


def every(kind: type[ImpastoError] = ImpastoError) -> Iterator[type[ImpastoError]]:
    """An error's class and all below it that are impasto's own."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every(child)


def _error(kind: type[ImpastoError]) -> Iterator[str]:
    yield f"## {kind.__name__}"
    yield doc(kind)
    base = ", ".join(f"`{each.__name__}`" for each in kind.__bases__)
    yield f"A kind of {base}. Billed: **{kind.billed}**. Retryable: **{'yes' if kind.retryable else 'no'}**."
    own = [name for name in inspect.get_annotations(kind) if name not in ("billed", "retryable")]
    taken = list(inspect.signature(kind).parameters) if "__init__" in vars(kind) else []
    held = [name for name in dict.fromkeys((*taken, *own)) if name not in ("message", "request_id", "retryable")]
    if kind is ImpastoError:
        held = ["message", "operation", "request_id", "id", "errors"]
    if held:
        yield f"It holds {', '.join(f'`{name}`' for name in held)}."
