"""`impasto plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import as_json
from .terminal.output import echo

if TYPE_CHECKING:
    from impasto import Registry


@click.command("plugins", short_help="List the installed plugins, without importing them.")
@as_json
def command(as_json: bool) -> None:
    """List every plugin that an installed distribution declares, if it may be used, and if the
    distribution's files are as installed. Nothing is imported: `impasto doctor` does that.

    IMPASTO_PLUGINS, or `impasto --plugins`, names the distributions whose plugins may be used beside impasto's own;
    `none` turns all of them off.
    """
    from impasto import Registry

    rows = listed(Registry())
    if as_json:
        import json

        echo(json.dumps(rows, indent=2))
        return
    for owner in dict.fromkeys((row["distribution"], row["version"], row["files"]) for row in rows):
        name, version, files = owner
        echo(click.style(f"{name} {version}", bold=True), nl=False)
        echo(f"  {files}")
        mine = [row for row in rows if (row["distribution"], row["version"], row["files"]) == owner]
        for group in dict.fromkeys(row["group"] for row in mine):
            echo(f"  {group}")
            for row in (row for row in mine if row["group"] == group):
                note = f"  {row['state']}: {row['reason']}" if row["reason"] is not None else ""
                echo(f"    {row['name']}{note}")


def listed(registry: Registry) -> list[dict[str, str | None]]:
    """Return every declaration. ``state``: ``declared``, ``not allowed``, or ``refused`` with a ``reason``."""
    from impasto.ext import GROUPS

    from .checks.installed_files import files_of

    files = {(owner.name, owner.version): files_of(owner) for owner in registry.owners()}
    return [
        {
            "distribution": owner[0],
            "version": owner[1],
            "group": group,
            "name": each.name,
            "value": each.value,
            "state": "declared" if each.refusal is None else "refused" if each.allowed else "not allowed",
            "reason": each.refusal,
            "files": own.text,
            "sha256": own.digest,
        }
        for owner, own in files.items()
        for group in GROUPS
        for each in registry.declared(group)
        if (each.distribution, each.version) == owner
    ]
