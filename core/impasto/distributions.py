"""What is installed: one reading of every distribution's metadata, and which distributions may be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from .errors import BrokenPlugin, ConfigError, NotAllowed, RegistryError
from .metadata import NAME, Damaged, Folder, holds_running_code, read_folders, read_text
from .redact import kind_in_words

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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
_HOOKS_NAME = re.compile(r"[0-9]{1,6}")
_LONGEST_HOOKS_NAME = 20


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
            raise ConfigError(f"{source} must be a list of distributions' names, not {kind_in_words(names)}")
        match list(names):
            case ["all"]:
                return cls(None, source)
            case [] | [""] | ["none"]:
                return cls(frozenset(), source)
            case found:
                return cls(frozenset(_checked(name, source) for name in found), source)

    def take(self, owner: Owner) -> bool:
        """Return True if the plugins of a distribution may be used."""
        return self.names is None or owner.is_own or normalised(owner.name) in self.names

    def __str__(self) -> str:
        """The names, as they are given to ``of``."""
        return "all" if self.names is None else ", ".join(sorted(self.names)) or "none"


def _checked(name: object, source: str) -> str:
    if not isinstance(name, str) or NAME.fullmatch(name) is None or name in ("all", "none"):
        raise ConfigError(f"{source}: {name!r} is no distribution's name; give names, or none or all alone")
    return normalised(name)


class Owner:
    """A distribution that declares plugins. ``is_own``: it is impasto itself, by its files and not by its name."""

    def __init__(self, folder: Folder, *, is_own: bool = False) -> None:
        self.path, self.name, self.version, self.distribution, self.entries = folder
        self.is_own = is_own
        self.hooks: str | None = None
        """The version of the hooks that it says it was written for."""

    def read_text(self, name: str) -> str | None:
        """Return a file of its metadata, None if there is none. Raises OSError, ValueError."""
        return read_text(self.distribution, name)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Point(NamedTuple):
    """One declaration and the distribution that made it."""

    entry: EntryPoint
    owner: Owner

    def refusal(self, allowed: Allowed) -> RegistryError | None:
        """Why it must not even be imported; None where it may be."""
        owner = self.owner
        if allowed.names is not None and not allowed.take(owner):
            return NotAllowed(
                f"{self.entry.name!r} is of {owner}, which is not allowed here: {allowed.source} allows {allowed}; "
                f"add {normalised(owner.name)} to it"
            )
        if owner.hooks is None:
            return None
        wanted = int(owner.hooks) if _HOOKS_NAME.fullmatch(owner.hooks) else 0
        if 1 <= wanted <= HOOKS_VERSION:
            return None
        built = f"{self.entry.name!r} of {owner} was written for version {owner.hooks} of the hooks"
        if wanted == 0:
            return BrokenPlugin(f"{built}, which there never was; they have version {HOOKS_VERSION}")
        return BrokenPlugin(f"{built}, and this impasto has version {HOOKS_VERSION}: pip install --upgrade impasto")


class Scan(NamedTuple):
    """All declarations by group and name, their owners (impasto's own first), and the folders that are skipped."""

    points: dict[str, dict[str, list[Point]]]
    owners: list[Owner]
    damaged: list[Damaged]


def scanned(*, complete: bool = False) -> Scan:
    """Read the metadata of everything that is installed. ``complete`` looks for damage in what has no plugins too.

    As with modules, the first distribution of a name on ``sys.path`` hides those in other folders.
    """
    folders, damaged = read_folders(complete=complete)
    proofs = {each.path: _proof(each) for each in folders if normalised(each.name) == OWN}
    best = max(proofs, key=proofs.__getitem__, default="")
    own = next((each for each in folders if each.path == best and any(proofs[best])), None)
    places: dict[str, str] = {}
    owners: list[Owner] = []
    index: dict[str, dict[str, list[Point]]] = {}
    for folder in folders:
        if folder is not own and normalised(folder.name) == OWN:
            reason = "it calls itself impasto, and is not the impasto that runs; uninstall it, or delete the folder"
            damaged.append(Damaged(folder.path, reason, has_plugins=True))
            continue
        place = folder.path.rpartition("/")[0]
        if places.setdefault(normalised(folder.name), place) != place:
            continue
        owner = Owner(folder, is_own=folder is own)
        points = [Point(entry, owner) for entry in folder.entries if entry.group.startswith("impasto.")]
        if points:
            owners.append(owner)
        for point in points:
            if point.entry.group == _HOOKS:
                newest = max(owner.hooks or "", point.entry.name, key=lambda name: (len(name), name))
                owner.hooks = newest[:_LONGEST_HOOKS_NAME]
            else:
                index.setdefault(point.entry.group, {}).setdefault(point.entry.name, []).append(point)
    return Scan(index, sorted(owners, key=lambda owner: (not owner.is_own, owner.name)), damaged)


def _proof(folder: Folder) -> tuple[int, bool]:
    from . import __version__

    return holds_running_code(folder), folder.version == __version__
