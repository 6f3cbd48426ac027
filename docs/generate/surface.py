"""The names of ``impasto``, by the module in which each is at home; Sphinx's autodoc says what they are."""

from __future__ import annotations

import inspect

import impasto

from .errors import every
from .text import fenced, page

_INTRODUCTION = """
What `import impasto` offers. [Errors](errors.md) and [hooks](hooks.md) stand on pages of their own.
"""
_HEADINGS = {
    "client": "The client",
    "records": "What comes of a call, and what goes over the wire",
    "describe": "What a model takes",
    "impasto_plugins.openai_compat": "Functions for code written for LiteLLM",
    "impasto_plugins.batch": "Batches",
    "impasto_plugins.stability.account": "Stability AI's account",
    "policy": "Retries and rates",
    "files": "Files",
    "operation": "For plugins: a model",
    "provider": "For plugins: a provider",
    "call": "For plugins: a call, as a transport sees it",
    "route": "For plugins: a model's route",
    "registry": "For plugins: what is installed",
}
_ELSEWHERE = {*(kind.__name__ for kind in every()), "Specs", "hookimpl", "hookspec"}


def pages() -> dict[str, str]:
    """One page."""
    names: dict[str, list[str]] = {}
    for name in impasto.__all__:
        if name not in _ELSEWHERE:
            names.setdefault(impasto._HOME_OF[name].removeprefix("impasto."), []).append(name)  # noqa: SLF001 - where the surface is written down
    parts = [part for home in sorted(names, key=_place) for part in (f"## {_heading(home)}", *map(_told, names[home]))]
    return {"reference/python.md": page("# Python", _INTRODUCTION, *parts)}


def _place(home: str) -> int:
    return list(_HEADINGS).index(home) if home in _HEADINGS else len(_HEADINGS)


def _heading(home: str) -> str:
    return _HEADINGS.get(home, home.capitalize())


def _told(name: str) -> str:
    thing = getattr(impasto, name)
    if inspect.isclass(thing):
        directive, options = "autoclass", "\n   :members:"
    else:
        directive, options = "autofunction" if callable(thing) else "autodata", ""
    return fenced("{eval-rst}", f".. {directive}:: impasto.{name}{options}")
