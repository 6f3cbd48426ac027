"""The plugins of a route: their hooks as functions, and their middleware in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from .errors import BrokenPlugin
from .hooks import Specs
from .operation import Operation
from .permission import around, around_attempts
from .plugin_boundary import plugin_boundary
from .records import Handler, Middleware

_ORDER: dict[str, int] = {"outer": 0, "retry": 1, "limit": 2, "inner": 3}
_HOOKS = tuple(name for name in vars(Specs) if not name.startswith("_"))
_REQUIRED = ("send", "transform_request", "classify_error", "normalize_response")
"""Hooks without which nothing is sent, or an answer that was paid for would be lost."""


def direct_call(hook: pluggy.HookCaller) -> Callable[..., Any]:
    """Return a hook that is called with keyword arguments: its only plain implementation if it has just one.

    Most routes have just one. Through pluggy the four hooks of a call are an eighth of a dispatch.
    """
    match hook.get_hookimpls():
        case [only] if not (only.wrapper or only.hookwrapper) and hook.spec and only.argnames == hook.spec.argnames:
            return only.function
        case _:
            return hook


def wrong_type(what: str, value: object, expected: str) -> BrokenPlugin:
    """Return the error for a hook that returned a value of another type."""
    return BrokenPlugin(f"{what} returned {type(value).__name__}, not {expected}")


def _position(middleware: Middleware) -> int:
    if not callable(middleware):
        raise wrong_type("a middleware hook", middleware, "a function (wire, next)")
    position = getattr(middleware, "position", "inner")
    if not isinstance(position, str) or position not in _ORDER:
        raise BrokenPlugin(f"a middleware's position must be one of {', '.join(_ORDER)}, not {position!r}")
    return _ORDER[position]


class _Manager(pluggy.PluginManager):
    """pluggy's manager, but ``__init__`` and the like are no hooks: half of a route's opening (``test_counts.py``)."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)


def _manager(*plugins: object) -> pluggy.PluginManager:
    manager = _Manager("impasto")
    manager.add_hookspecs(Specs)
    for plugin in plugins:
        manager.register(plugin)
    manager.check_pending()
    return manager


def _check_marks(plugin: object) -> None:
    """Raise BrokenPlugin if a method is named like a hook and not marked as one: nobody would ever call it."""
    manager = pluggy.PluginManager("impasto")
    for name in _HOOKS:
        if callable(getattr(plugin, name, None)) and manager.parse_hookimpl_opts(plugin, name) is None:
            kind = type(plugin)
            raise BrokenPlugin(
                f"{kind.__module__}.{kind.__qualname__}.{name} is named like a hook, but it is not marked with "
                "@impasto.hookimpl; mark it, or rename it; nothing was sent"
            )


def compose(
    operation: Operation, transport: object, middleware: Sequence[object], retries: object
) -> tuple[pluggy.HookRelay, Callable[[Handler], Handler]]:
    """Return the hooks of these plugins, and a function that puts their middleware around a handler.

    Raises BrokenPlugin.
    """
    with plugin_boundary(f"{operation.id}: a plugin does not match the hooks"):
        for plugin in (plugins := (transport, *middleware, operation.provider, operation)):
            _check_marks(plugin)
        try:
            hook = _manager(*plugins).hook
            owner = _manager(*(() if retries is None else (retries,)))  # no other plugin's middleware is among its
        except pluggy.PluginValidationError as error:
            what = f"{type(error.plugin).__name__}: {' '.join(str(error).split())}"
            advice = "if it was written for newer hooks: pip install --upgrade impasto"
            raise BrokenPlugin(f"{operation.id}: a plugin does not match the hooks: {what}; {advice}") from error
        for name in _REQUIRED:
            if not getattr(hook, name).get_hookimpls():
                raise BrokenPlugin(f"{operation.id}: no plugin has the hook {name}; mark one with @impasto.hookimpl")
        attempting = owner.hook.middleware(operation=operation)
        layers = hook.middleware(operation=operation)
        ordered = sorted((*attempting, *layers), key=_position, reverse=True)

    def wrap(send: Handler) -> Handler:
        for layer in ordered:
            send = around_attempts(layer, send) if any(layer is each for each in attempting) else around(layer, send)
        return send

    return hook, wrap
