"""The page about the hooks, from their specifications: signature, docstring and example."""

from __future__ import annotations

import inspect
import textwrap

from impasto.hooks import Specs

from .text import doc, fenced, page

_INTRODUCTION = """
A plugin is any object with some of these methods, each marked `impasto.hookimpl`. An `impasto.Operation` is such an
object: its hooks call its dialect. Arguments are passed by name, so a method takes only the arguments that it uses, and
keeps working when a hook gets another argument.
"""


def pages() -> dict[str, str]:
    """Return the page."""
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
    meaning = doc(spec).partition("@hookimpl")[0]
    signature = str(inspect.signature(spec)).replace("'", "").replace("(self, ", "(self, *, ")
    return (
        f"## {name}",
        fenced("py", f"def {name}{signature}"),
        meaning.strip(),
        "The first value that is not None is used."
        if spec.impasto_spec["firstresult"]
        else "The values of all plugins are used.",
        fenced("python", example_of(name)),
    )


def example_of(name: str) -> str:
    """Return the implementation that a hook's docstring shows."""
    text = inspect.getdoc(getattr(Specs, name)) or ""
    return textwrap.dedent(text[text.rindex("\n", 0, text.index("@hookimpl")) + 1 :])
