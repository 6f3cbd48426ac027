"""The registry: finds the plugin of a name. It knows every installed plugin and imports none until it is used."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from types import CoroutineType
from typing import TYPE_CHECKING, TypeVar

from .distributions import VARIABLE, AllowList, Declaration, Scan, normalized_name, scan_entry_points
from .errors import (
    BrokenPlugin,
    ConfigError,
    DuplicateOperation,
    RegistryError,
    UnknownOperation,
)
from .loading import load
from .plugin_boundary import plugin_boundary
from .redact import printable
from .suggestions import closest

if TYPE_CHECKING:
    from .operation import Operation

T = TypeVar("T")

OPERATIONS = "impasto.operations"
PROVIDERS = "impasto.providers"
TRANSPORTS = "impasto.transports"
MIDDLEWARE = "impasto.middleware"
COMMANDS = "impasto.commands"
EMULATORS = "impasto.emulators"
"""The stand-in of a provider, or of one model: a function that returns an async context manager, which yields a URL."""

EXPORTS = "impasto.exports"
"""Names that plugins add to the package ``impasto``."""

STATES = "impasto.states"
"""Stores of state that processes share, by the scheme of their addresses."""

INSPECTORS = "impasto.inspectors"
"""Checks of input files by the role of their field. Only impasto's own are used."""

GROUPS = (OPERATIONS, PROVIDERS, TRANSPORTS, MIDDLEWARE, COMMANDS, EMULATORS, EXPORTS, STATES, INSPECTORS)

_LONGEST_RESOLVED = 200
"""Characters of a name that resolvers are asked for."""

_REMEMBERED = 1024
"""Names for which a registry remembers the answers of resolvers; callers may ask for any name."""


class Registry:
    """Plugins by name. ``discover=False`` finds only plugins from ``add``, whatever else is installed.

    ``allow`` names the distributions whose plugins may be used beside impasto's own, as a list or comma-separated text;
    ``"none"`` turns all of them off. Without it ``IMPASTO_PLUGINS`` applies. Raises ConfigError.
    """

    def __init__(self, discover: bool = True, allow: str | Iterable[str] | None = None) -> None:
        self.discover = discover
        self._allowed = AllowList.parse(allow) if allow is not None else None
        self._scanned: Scan | None = None
        self._loaded: dict[tuple[str, str], object] = {}
        self._resolve = lru_cache(_REMEMBERED)(self._ask_resolver)

    def add(self, group: str, name: str, plugin: object) -> None:
        """Declare a plugin by hand. It replaces a discovered one of that name."""
        self._loaded[group, name] = plugin
        self._resolve.cache_clear()

    @property
    def allowed(self) -> AllowList:
        """The distributions whose plugins may be used. Raises ConfigError."""
        if self._allowed is None:
            self._allowed = AllowList.parse(None)
        return self._allowed

    @property
    def scan(self) -> Scan:
        """All installed declarations, read once from the metadata of distributions."""
        if self._scanned is None:  # whole: another thread may ask meanwhile
            self._scanned = scan_entry_points() if self.discover else Scan({}, [], [])
        return self._scanned

    def names(self, group: str) -> list[str]:
        """Return the names that are declared and allowed, sorted."""
        points, allowed = self.scan.declarations.get(group, {}), self.allowed
        if allowed.names is not None:
            points = {n: each for n, each in points.items() if any(allowed.permits(point.owner) for point in each)}
        return sorted({*points, *(name for kind, name in self._loaded if kind == group)})

    def operation(self, model: str) -> Operation:
        """Return the operation of a model's name. Imports its module. Raises RegistryError.

        A name that nobody declares is looked up by the resolver of the longest prefix (``bfl/*``), if there is one.
        """
        from .operation import Operation  # it brings cattrs and pluggy: not for those who only list names

        if is_pattern(model):
            raise UnknownOperation(f"{printable(model[:120])!r} stands for many models; give the name of one")
        if (OPERATIONS, model) in self._loaded or (pattern := self.resolver_of(model)) is None:
            return self.load(OPERATIONS, model, Operation)
        operation = self._resolve(pattern, model)
        if operation is None:
            short = printable(model[:120])
            raise UnknownOperation(f"unknown model {short!r}; the resolver {pattern!r} has no model of this name")
        return operation

    def resolver_of(self, model: str) -> str | None:
        """Return the name of the resolver that decides about a model's name, None if the name itself is declared.

        What may not be used counts only if nothing else fits: its error then says how to allow it.
        """
        heads = model.split("/")[:-1] if len(model) <= _LONGEST_RESOLVED and not model.endswith("/") else []
        patterns = ["/".join((*heads[:end], "*")) for end in range(len(heads), 0, -1)]
        declared = [name for name in (model, *patterns) if self._is_declared(name)]
        usable = [name for name in declared if self._is_declared(name, usable=True)]
        name = next(iter(usable or declared), model)
        return name if is_pattern(name) else None

    def _is_declared(self, model: str, *, usable: bool = False) -> bool:
        points = self.scan.declarations.get(OPERATIONS, {}).get(model, [])
        return (OPERATIONS, model) in self._loaded or bool(self.permitted(OPERATIONS, points) if usable else points)

    def check_settings(self, names: Iterable[str], operation: Operation) -> None:
        """Raise ConfigError if a client has settings for a provider, transport or middleware that is not installed."""
        groups = (PROVIDERS, TRANSPORTS, MIDDLEWARE)
        installed = {operation.provider.name, *(name for group in groups for name in self.names(group))}
        valid = installed | {model.partition("/")[0] for model in self.names(OPERATIONS)}
        for name in names:
            if name not in valid:
                hint = f"; did you mean {near[0]}?" if (near := closest(name, valid, 1)) else ""
                raise ConfigError(f"providers: {name!r} is not installed{hint}; installed: {', '.join(sorted(valid))}")

    def _ask_resolver(self, pattern: str, model: str) -> Operation | None:
        from .operation import Operation

        resolver = self.load(OPERATIONS, pattern, object)
        what = f"the resolver {pattern!r}"
        if not callable(resolver):
            raise BrokenPlugin(f"{what} must be a function (name) -> Operation | None, not {_article(type(resolver))}")
        with plugin_boundary(f"{what} failed for {printable(model)!r}"):
            operation = resolver(model)
        if operation is None or isinstance(operation, Operation):
            return operation
        if isinstance(operation, CoroutineType):
            operation.close()  # nobody awaits it
        kind = _article(type(operation))
        raise BrokenPlugin(f"{what} must return an Operation or None; for {printable(model)!r} it returned {kind}")

    def load(self, group: str, name: str, expected: type[T]) -> T:
        """Return the plugin of a name, imported on first use. Raises RegistryError, whatever a plugin does."""
        key = group, name
        plugin = self._loaded.get(key)
        if plugin is None:
            plugin = self._loaded[key] = self._import(group, name)
        if not isinstance(plugin, expected):
            raise BrokenPlugin(f"{name!r} is {_article(type(plugin))}, but must be {_article(expected)}")
        return plugin

    def _import(self, group: str, name: str) -> object:
        points = self.scan.declarations.get(group, {}).get(name)
        if points is None:
            raise UnknownOperation(self._unknown_name(group, name))
        usable = self.permitted(group, points)
        point = usable[0] if usable else points[0]
        if (why := self.refusal(point, usable)) is not None:
            raise why
        return load(point)

    def permitted(self, group: str, points: list[Declaration]) -> list[Declaration]:
        """Return those of one name's declarations that may be used. If that is more than one, none is.

        Identical ones of one distribution count as one. What every model needs (a transport, a middleware, a
        command) stays impasto's own, whoever else claims it. Which of two models is meant, and paid, nobody can know.
        """
        usable: dict[tuple[str, str], Declaration] = {}
        for point in sorted(points, key=lambda point: not point.owner.is_own):
            if point.refusal(self.allowed) is None:
                usable.setdefault((normalized_name(point.owner.name), point.entry.value), point)
        if len(usable) > 1 and group != OPERATIONS:
            return [point for point in usable.values() if point.owner.is_own] or [*usable.values()]
        return [*usable.values()]

    def refusal(self, point: Declaration, usable: list[Declaration]) -> RegistryError | None:
        """Return the reason why a declaration is not used, or None; ``usable``: the permitted ones of its name."""
        if (refusal := point.refusal(self.allowed)) is not None:
            return refusal
        name, owners = point.entry.name, sorted({each.owner.name for each in usable})
        if point not in usable and any(each.owner.is_own for each in usable) and not point.owner.is_own:
            return DuplicateOperation(f"{name!r} of {point.owner} is reserved for impasto's own plugin")
        if len(usable) == 1:
            return None
        if len(owners) == 1:
            folders = sorted({each.owner.path.rpartition("/")[2] for each in usable})
            places = f", in {' and '.join(folders)}; delete the folder that is out of date" if len(folders) > 1 else ""
            return DuplicateOperation(f"{name!r} is declared twice by {owners[0]}{places}")
        claim = f"{name!r} is declared by {' and '.join(owners)}"
        return DuplicateOperation(f"{claim}; uninstall one of them, or remove it from {VARIABLE}")

    def _unknown_name(self, group: str, name: str) -> str:
        points = self.scan.declarations.get(group, {})
        names = [each for each in self.names(group) if not is_pattern(each)]
        names = [each for each in names if each not in points or len(self.permitted(group, points[each])) == 1]
        short = printable(name[:120])
        near = closest(name, dict.fromkeys(names), 4)
        kind = group.removeprefix("impasto.").removesuffix("s") if group != OPERATIONS else "model"
        if near or not names:
            there_is = f"closest: {', '.join(near)}" if near else "none is installed"
        elif group == OPERATIONS:
            there_is = f"none of the {len(set(names))} installed models is similar; `impasto models` lists them"
        else:
            there_is = f"installed: {', '.join(sorted(set(names)))}"
        broken = any(each.has_plugins for each in self.scan.damaged)
        advice = "; a distribution with plugins is damaged, see `impasto doctor`" if broken else ""
        return f"unknown {kind} {short!r}; {there_is}{advice}"


def is_pattern(name: str) -> bool:
    """Return True if a name in the group of operations belongs to a resolver of many models, as ``bfl/*`` does."""
    return name.endswith("/*")


def _article(cls: type) -> str:
    return f"{'an' if cls.__name__[0] in 'AEIOUaeiou' else 'a'} {cls.__name__}"
