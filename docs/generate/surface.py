"""The page about the names of ``impasto``, by module; Sphinx's autodoc describes them."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points

import impasto
from impasto.registry import EXPORTS

from .errors import every
from .text import fenced, page

_INTRODUCTION = """
The names of `impasto`. [Errors](errors.md) and [hooks](hooks.md) have pages of their own.
"""
_HEADINGS = {
    "client": "The client",
    "records": "Results, requests and responses",
    "describe": "Descriptions of models",
    "impasto_plugins.openai_compat": "Drop-in functions for LiteLLM",
    "impasto_plugins.batch": "Batches",
    "impasto_plugins.batch.engines": "Batches on Ray",
    "impasto_plugins.stability.account": "Account of Stability AI",
    "policy": "Retries and rate limits",
    "files": "Files",
    "operation": "For plugins: a model",
    "provider": "For plugins: a provider",
    "call": "For plugins: a call in a transport",
    "route": "For plugins: a model's route",
    "registry": "For plugins: the registry",
}
_ELSEWHERE = {*(kind.__name__ for kind in every()), "Specs", "hookimpl", "hookspec"}


def pages() -> dict[str, str]:
    """Return the page."""
    names: dict[str, list[str]] = {}
    homes: dict[str, str] = dict(vars(impasto)["_HOME_OF"])
    homes |= {point.name: point.module for point in sorted(entry_points(group=EXPORTS))}
    for name, home in homes.items():
        if name not in _ELSEWHERE:
            names.setdefault(home.removeprefix("impasto."), []).append(name)
    parts = [
        part
        for home in sorted(names, key=_position)
        for part in (f"## {_heading(home)}", *map(_directive, names[home]))
    ]
    return {"reference/python.md": page("# Python", _INTRODUCTION, *parts)}


def _position(home: str) -> int:
    return list(_HEADINGS).index(home) if home in _HEADINGS else len(_HEADINGS)


def _heading(home: str) -> str:
    return _HEADINGS.get(home, home.capitalize())


def _directive(name: str) -> str:
    thing = getattr(impasto, name)
    if inspect.ismodule(thing):
        return fenced("{eval-rst}", f".. automodule:: {thing.__name__}\n   :members:")
    if inspect.isclass(thing):
        kind, options = "autoclass", "\n   :members:"
    else:
        kind, options = "autofunction" if callable(thing) else "autodata", ""
    return fenced("{eval-rst}", f".. {kind}:: impasto.{name}{options}")
