"""`impasto plugins`."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import click

from .declarations import PluginInfo, declared
from .options import as_json, registry_of
from .terminal.output import echo

if TYPE_CHECKING:
    from impasto import Registry


@click.command("plugins", short_help="List the installed plugins, without importing them.")
@as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the plugins that installed distributions declare.

    It also shows if each may be used, and if its distribution's files are as installed. Nothing is imported:
    `impasto doctor` does that.

    IMPASTO_PLUGINS, or `impasto --plugins`, names the distributions whose plugins may be used beside impasto's own;
    `none` turns all of them off.
    """
    rows = listed(registry_of(ctx))
    if as_json:
        import json

        echo(json.dumps(rows, indent=2))
        return
    lines = []
    for (name, version, files), of_owner in groupby(rows, key=itemgetter("distribution", "version", "files")):
        lines.append(f"{click.style(f'{name} {version}', bold=True)}  {files}")
        for group, of_group in groupby(of_owner, key=itemgetter("group")):
            lines.append(f"  {group}")
            for row in of_group:
                note = f"  {row['state']}: {row['reason']}" if row["reason"] is not None else ""
                lines.append(f"    {row['name']}{note}")
    echo("\n".join(lines))


def listed(registry: Registry) -> list[dict[str, str | None]]:
    """Return every declaration. ``state``: ``declared``, ``not allowed``, or ``refused`` with a ``reason``."""
    from impasto.ext import GROUPS

    from .checks.installed_files import files_of

    by_owner: dict[tuple[str, str], list[PluginInfo]] = {}
    for group in GROUPS:
        for each in declared(registry, group):
            by_owner.setdefault((each.distribution, each.version), []).append(each)
    files = {(owner.name, owner.version): files_of(owner) for owner in registry.scan.owners}
    return [
        {
            "distribution": each.distribution,
            "version": each.version,
            "group": each.group,
            "name": each.name,
            "value": each.value,
            "state": "declared" if each.refusal is None else "refused" if each.allowed else "not allowed",
            "reason": each.refusal,
            "files": own.text,
            "sha256": own.digest,
        }
        for owner, own in files.items()
        for each in by_owner.get(owner, ())
    ]
