"""The declarations of installed plugins, from metadata alone."""

from __future__ import annotations

from typing import NamedTuple

from impasto import NotAllowed, Registry


class PluginInfo(NamedTuple):
    """One plugin as its distribution's metadata declares it.

    ``refusal``: the reason why it is not used, if that is known without importing it.
    """

    name: str
    group: str
    value: str
    distribution: str
    version: str
    refusal: str | None = None
    allowed: bool = True
    is_own: bool = False


def declared(registry: Registry, group: str) -> list[PluginInfo]:
    """Return every declaration that is installed, duplicates and plugins that may not be used too."""
    declarations = []
    for name, points in sorted(registry.scan.declarations.get(group, {}).items()):
        usable = registry.permitted(group, points)
        for point in points:
            why = registry.refusal(point, usable)
            declarations.append(
                PluginInfo(
                    name,
                    group,
                    point.entry.value,
                    point.owner.name,
                    point.owner.version,
                    refusal=why.message if why is not None else None,
                    allowed=not isinstance(why, NotAllowed),
                    is_own=point.owner.is_own,
                )
            )
    return declarations
