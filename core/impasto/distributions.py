"""Installed distributions with plugins, read from metadata in one pass, and the list of those that may be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from .errors import ConfigError, NotAllowed
from .metadata import NAME, DamagedDistribution, Distribution, folder_versions, holds_running_code, read_folders
from .redact import kind_in_words

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

VARIABLE = "IMPASTO_PLUGINS"
OWN_DISTRIBUTION = "impasto"
"""The distribution that is always allowed."""


def normalized_name(name: str) -> str:
    """Return a distribution's name in the normal form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


class AllowList(NamedTuple):
    """The distributions whose plugins may be used beside impasto's own; ``names`` is None if all may.

    ``source``: the setting or variable that the list comes from.
    """

    names: frozenset[str] | None
    source: str

    @classmethod
    def parse(cls, value: object) -> AllowList:
        """Parse a setting, or ``IMPASTO_PLUGINS`` if it is None: names, ``none`` or ``all``. Raises ConfigError."""
        source = "plugins" if value is not None else VARIABLE
        setting = os.environ.get(VARIABLE, "all") if value is None else value
        names = [name.strip() for name in setting.split(",")] if isinstance(setting, str) else setting
        if not isinstance(names, Iterable):
            raise ConfigError(f"{source} must be a list of distributions' names, not {kind_in_words(names)}")
        match list(names):
            case ["all"]:
                return cls(None, source)
            case [] | [""] | ["none"]:
                return cls(frozenset(), source)
            case listing:
                return cls(frozenset(_check_name(name, source) for name in listing), source)

    def permits(self, owner: Distribution) -> bool:
        """Return True if the plugins of a distribution may be used."""
        return self.names is None or owner.is_own or normalized_name(owner.name) in self.names

    def __str__(self) -> str:
        """Return the names in the form that ``parse`` takes."""
        return "all" if self.names is None else ", ".join(sorted(self.names)) or "none"


def _check_name(name: object, source: str) -> str:
    if not isinstance(name, str) or NAME.fullmatch(name) is None or name in ("all", "none"):
        raise ConfigError(f"{source}: invalid distribution name {name!r}; give names, or none or all alone")
    return normalized_name(name)


class Declaration(NamedTuple):
    """One entry point and the distribution that declares it."""

    entry: EntryPoint
    owner: Distribution

    def refusal(self, allowed: AllowList) -> NotAllowed | None:
        """Return the reason why it must not even be imported, or None."""
        owner = self.owner
        if allowed.names is not None and not allowed.permits(owner):
            return NotAllowed(
                f"{self.entry.name!r} belongs to {owner}, which is not allowed: {allowed.source} allows {allowed}; "
                f"add {normalized_name(owner.name)} to it"
            )
        return None


class Scan(NamedTuple):
    """All declarations by group and name, their distributions (impasto's own first), and the skipped folders."""

    declarations: dict[str, dict[str, list[Declaration]]]
    owners: list[Distribution]
    damaged: list[DamagedDistribution]


def scan_entry_points(*, complete: bool = False) -> Scan:
    """Read the metadata of all installed distributions. ``complete`` checks those without plugins for damage too.

    As with modules, the first distribution of a name on ``sys.path`` hides those in other folders. A scan takes 3 ms:
    that of one client serves the next, as long as the folders are unchanged.
    """
    versions = None if complete else folder_versions()
    return _scan(complete=complete) if versions is None else _scan_of(versions)


@lru_cache(maxsize=1)
def _scan_of(versions: object) -> Scan:
    return _scan(complete=False)


def _scan(*, complete: bool) -> Scan:
    folders, damaged = read_folders(complete=complete)
    proofs = {each.path: _own_evidence(each) for each in folders if normalized_name(each.name) == OWN_DISTRIBUTION}
    best = max(proofs, key=proofs.__getitem__, default="")
    own = next((each for each in folders if each.path == best and any(proofs[best])), None)
    places: dict[str, str] = {}
    owners: list[Distribution] = []
    index: dict[str, dict[str, list[Declaration]]] = {}
    for folder in folders:
        if folder is not own and normalized_name(folder.name) == OWN_DISTRIBUTION:
            reason = "it is named impasto, but it is not the impasto that runs; uninstall it, or delete the folder"
            damaged.append(DamagedDistribution(folder.path, reason, has_plugins=True))
            continue
        place = folder.path.rpartition("/")[0]
        if places.setdefault(normalized_name(folder.name), place) != place:
            continue
        owner = folder._replace(is_own=folder is own)
        points = [Declaration(entry, owner) for entry in folder.entries if entry.group.startswith("impasto.")]
        if points:
            owners.append(owner)
        for point in points:
            index.setdefault(point.entry.group, {}).setdefault(point.entry.name, []).append(point)
    return Scan(index, sorted(owners, key=lambda owner: (not owner.is_own, owner.name)), damaged)


def _own_evidence(folder: Distribution) -> tuple[int, bool]:
    from . import __version__

    return holds_running_code(folder), folder.version == __version__
