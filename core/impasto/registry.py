"""From a name to the plugin that serves it. Knows every installed plugin and has imported none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .errors import BrokenPlugin, ConfigError, DuplicateOperation, ImpastoError, MissingExtra, UnknownOperation
from .redact import printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .operation import Operation

T = TypeVar("T")

OPERATIONS = "impasto.operations"
PROVIDERS = "impasto.providers"
TRANSPORTS = "impasto.transports"
MIDDLEWARE = "impasto.middleware"
COMMANDS = "impasto.commands"
GROUPS = (OPERATIONS, PROVIDERS, TRANSPORTS, MIDDLEWARE, COMMANDS)


class Declared(NamedTuple):
    """One plugin as its distribution's metadata declares it."""

    name: str
    group: str
    value: str
    distribution: str | None
    version: str | None


class Registry:
    """Names to plugins. ``discover=False`` sees only what ``add`` was told, whatever else is installed."""

    def __init__(self, discover: bool = True) -> None:
        self.discover = discover
        self._index: dict[str, dict[str, list[EntryPoint]]] = {}
        self._loaded: dict[tuple[str, str], object] = {}

    def add(self, group: str, name: str, plugin: object) -> None:
        """Declares a plugin by hand; it takes the place of a discovered one of that name."""
        self._loaded[group, name] = plugin

    def names(self, group: str) -> list[str]:
        """The names that are declared, sorted."""
        return sorted({*self._points(group), *(name for kind, name in self._loaded if kind == group)})

    def declared(self, group: str) -> list[Declared]:
        """Every declaration that is installed, duplicates too, from metadata alone."""
        owners: dict[int, tuple[str | None, str | None]] = {}  # a distribution's metadata is parsed once: it is long
        found = []
        for name, points in sorted(self._points(group).items()):
            for point in points:
                dist = point.dist
                if id(dist) not in owners:
                    owners[id(dist)] = (dist.name, dist.version) if dist is not None else (None, None)
                owner, version = owners[id(dist)]
                found.append(Declared(name=name, group=group, value=point.value, distribution=owner, version=version))
        return found

    def operation(self, model: str) -> Operation:
        """The operation behind a model's name. Imports its module. Raises RegistryError."""
        from .operation import Operation  # it brings cattrs and pluggy: not for those who only list names

        return self.load(OPERATIONS, model, Operation)

    def check_settings(self, given: Iterable[str], operation: Operation) -> None:
        """Raises ConfigError where a client has settings for a provider or transport that is not there."""
        named = {*self.names(PROVIDERS), *self.names(TRANSPORTS), operation.provider.name}
        known = named | {model.partition("/")[0] for model in self.names(OPERATIONS)}
        for name in given:
            if name not in known:
                raise ConfigError(f"providers: {name!r} is none; installed: {', '.join(sorted(known))}")

    def load(self, group: str, name: str, expected: type[T]) -> T:
        """The plugin of a name, imported on first use. Raises RegistryError; whatever a plugin does, nothing else."""
        key = group, name
        plugin = self._loaded.get(key)
        if plugin is None:
            plugin = self._loaded[key] = self._import(group, name)
        if not isinstance(plugin, expected):
            raise BrokenPlugin(f"{name!r} is {_article(type(plugin))}, but must be {_article(expected)}")
        return plugin

    def _import(self, group: str, name: str) -> object:
        match self._points(group).get(name):
            case None | []:
                raise UnknownOperation(self._unknown(group, name))
            case [point]:
                return _load(point)
            case points:
                owners = sorted({(p.dist.name if p.dist else None) or p.value for p in points})
                if len(owners) == 1:
                    raise DuplicateOperation(f"{name!r} is declared twice by {owners[0]}")
                raise DuplicateOperation(f"{name!r} is declared by {' and '.join(owners)}; uninstall one of them")

    def _points(self, group: str) -> Mapping[str, list[EntryPoint]]:
        index = self._index.get(group)
        if index is None:
            index = {}
            if self.discover:
                from importlib.metadata import entry_points  # 55 ms: not for those who only import

                for point in entry_points(group=group):
                    index.setdefault(point.name, []).append(point)
            self._index[group] = index  # whole: another thread may ask meanwhile
        return index

    def _unknown(self, group: str, name: str) -> str:
        import difflib  # only on the way to an error

        names = self.names(group)
        short = name[:120]
        near = difflib.get_close_matches(short, names, 3, 0.4)
        near += [n for n in names if n not in near and n.rpartition("/")[2] == short.rpartition("/")[2]][
            : 3 - len(near)
        ]
        kind = group.removeprefix("impasto.").removesuffix("s") if group != OPERATIONS else "model"
        if near or not names:
            there_is = f"closest: {', '.join(near) or 'none installed'}"
        elif group == OPERATIONS:
            there_is = f"closest: none of the {len(names)} installed is near; `impasto models` lists them"
        else:
            there_is = f"installed: {', '.join(names)}"
        return f"no {kind} is called {short!r}; {there_is}"


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except ImpastoError:
        raise
    except ModuleNotFoundError as error:
        if (command := _extra_for(error.name)) is not None:
            raise MissingExtra(f"{point.name!r} needs {error.name}, which is not installed: {command}") from error
        raise BrokenPlugin(_broken(point, error)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's module may raise anything, SystemExit too: it breaks only itself
        raise BrokenPlugin(_broken(point, error)) from error


def _broken(point: EntryPoint, error: BaseException) -> str:
    owner = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.name!r}{owner} failed to load ({point.value}): {type(error).__name__}: {printable(str(error))}"


_EXTRAS = {
    "aiobotocore": "bedrock",
    "botocore": "bedrock",
    "pybase64": "bedrock",
    "yaml": "gateway",
    "pyarrow": "batch",
}


def _extra_for(module: str | None) -> str | None:
    extra = _EXTRAS.get((module or "").partition(".")[0])
    return f"pip install 'impasto[{extra}]'" if extra else None


def _article(cls: type) -> str:
    return f"{'an' if cls.__name__[0] in 'AEIOU' else 'a'} {cls.__name__}"
