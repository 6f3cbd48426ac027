"""The hooks, made of their specifications: signature, docstring, and the example in it."""

from __future__ import annotations

import inspect
import textwrap

from impasto.hooks import Specs

from .text import doc, fenced, page

_INTRODUCTION = """
A plugin is any object with some of these methods, each marked `impasto.hookimpl`. An `impasto.Operation` is one: it
asks its dialect. Arguments are passed by name, so a hook takes only those that it uses, and one written before an
argument was added goes on working.
"""


def pages() -> dict[str, str]:
    """One page."""
    names = [name for name in vars(Specs) if not name.startswith("_")]
    return {
        "reference/hooks.md": page(
            "# Hooks",
            _INTRODUCTION,
            *(part for name in names for part in _hook(name)),
        )
    }


def _hook(name: str) -> tuple[str, ...]:
    spec = getattr(Specs, name)
    said = doc(spec).partition("@hookimpl")[0]
    signature = str(inspect.signature(spec)).replace("'", "").replace("(self, ", "(self, *, ")
    first = (
        "The first answer that is not None counts."
        if spec.impasto_spec["firstresult"]
        else "Every plugin that has it is asked."
    )
    return (
        f"## {name}",
        fenced("py", f"def {name}{signature}"),
        said.strip(),
        "The first answer that is not None counts." if first else "Every plugin that has it is asked.",
        fenced("python", example_of(name)),
    )


def example_of(name: str) -> str:
    """The implementation that a hook's docstring shows."""
    said = inspect.getdoc(getattr(Specs, name)) or ""
    return textwrap.dedent(said[said.rindex("\n", 0, said.index("@hookimpl")) + 1 :])
