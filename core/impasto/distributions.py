"""What is installed: one reading of every distribution's metadata, and which distributions may be used."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, cast

from .errors import BrokenPlugin, ConfigError, NotAllowed, RegistryError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

HOOKS_VERSION = 2
"""Of the hooks that plugins are made of. It grows with every hook and every argument that is added.

A plugin that takes fewer arguments works as it did. A distribution says what it was written for by an entry point of
the group ``impasto.hooks`` whose name is that number; nothing is imported to read it.

1. The first.
2. ``middleware`` is given the ``operation`` too, and ``normalize_response`` the ``account``.
"""

VARIABLE = "IMPASTO_PLUGINS"
OWN = "impasto"
"""The distribution that is always allowed."""

_HOOKS = "impasto.hooks"
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


def normalised(name: str) -> str:
    """A distribution's name as an index knows it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Allowed(NamedTuple):
    """The distributions whose plugins may be used, beside impasto's own; ``names`` is None where all may.

    ``source`` is where that was said.
    """

    names: frozenset[str] | None
    source: str

    @classmethod
    def of(cls, given: object) -> Allowed:
        """What a caller said, or where they said nothing ``IMPASTO_PLUGINS``: names, ``none`` or ``all``.

        Raises ConfigError.
        """
        source = "plugins" if given is not None else VARIABLE
        said = os.environ.get(VARIABLE, "all") if given is None else given
        names = [name.strip() for name in said.split(",")] if isinstance(said, str) else said
        if not isinstance(names, Iterable):
            raise ConfigError(f"{source} must be a list of distributions' names, not {type(names).__name__}")
        match list(names):
            case ["all"]:
                return cls(None, source)
            case [] | [""] | ["none"]:
                return cls(frozenset(), source)
            case found:
                return cls(frozenset(_checked(name, source) for name in found), source)

    def take(self, name: str) -> bool:
        """Whether the plugins of a distribution may be used."""
        return self.names is None or normalised(name) in (OWN, *self.names)

    def __str__(self) -> str:
        """The names, as they are given to ``of``."""
        return "all" if self.names is None else ", ".join(sorted(self.names)) or "none"


def _checked(name: object, source: str) -> str:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in ("all", "none"):
        raise ConfigError(f"{source}: {name!r} is no distribution's name; give names, or none or all alone")
    return normalised(name)


class Owner:
    """A distribution that declares plugins. Its metadata is long: it is parsed where its name is asked for."""

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.hooks: str | None = None
        """The version of the hooks that it says it was written for."""

    @cached_property
    def name(self) -> str:
        return self.distribution.name

    @cached_property
    def version(self) -> str:
        return self.distribution.version

    @property
    def is_own(self) -> bool:
        """Whether it is impasto itself."""
        return normalised(self.name) == OWN

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Point(NamedTuple):
    """One declaration and the distribution that made it."""

    entry: EntryPoint
    owner: Owner

    def refusal(self, allowed: Allowed) -> RegistryError | None:
        """Why it must not even be imported; None where it may be."""
        owner = self.owner
        if allowed.names is not None and not allowed.take(owner.name):
            return NotAllowed(
                f"{self.entry.name!r} is of {owner}, which is not allowed here: {allowed.source} allows {allowed}; "
                f"add {normalised(owner.name)} to it"
            )
        if owner.hooks is None:
            return None
        wanted = int(owner.hooks) if owner.hooks.isascii() and owner.hooks.isdigit() else 0
        if 1 <= wanted <= HOOKS_VERSION:
            return None
        built = f"{self.entry.name!r} of {owner} was written for version {owner.hooks} of the hooks"
        if wanted == 0:
            return BrokenPlugin(f"{built}, which there never was; they have version {HOOKS_VERSION}")
        return BrokenPlugin(f"{built}, and this impasto has version {HOOKS_VERSION}: pip install --upgrade impasto")


def scanned() -> dict[str, dict[str, list[Point]]]:
    """Every declaration for impasto that is installed, by group and name: one reading of all metadata."""
    owners: dict[int, Owner] = {}
    index: dict[str, dict[str, list[Point]]] = {}
    for entry in _entries():
        if entry.dist is None or not entry.group.startswith("impasto."):
            continue
        owner = owners.get(id(entry.dist))
        if owner is None:
            owner = owners[id(entry.dist)] = Owner(entry.dist)
        if entry.group == _HOOKS:
            owner.hooks = max(owner.hooks or "", entry.name, key=lambda said: (len(said), said))
        else:
            index.setdefault(entry.group, {}).setdefault(entry.name, []).append(Point(entry, owner))
    return index


def _entries() -> Iterator[EntryPoint]:
    from importlib.metadata import entry_points  # 55 ms: not for those who only import

    if sys.version_info >= (3, 12):
        return iter(entry_points())
    groups = cast("dict[str, Iterable[EntryPoint]]", entry_points())
    return chain.from_iterable(dict.values(groups))  # groups.values() is deprecated
