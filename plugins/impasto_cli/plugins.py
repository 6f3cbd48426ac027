"""`impasto plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import as_json

if TYPE_CHECKING:
    from impasto import Registry


@click.command("plugins", short_help="List the installed plugins, without importing them.")
@as_json
def command(as_json: bool) -> None:
    """Lists every plugin that an installed distribution declares. Nothing is imported: `impasto doctor` does that."""
    from impasto import Registry

    rows = listed(Registry())
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
        return
    for owner in dict.fromkeys((row["distribution"], row["version"]) for row in rows):
        click.secho(" ".join(str(part) for part in owner if part), bold=True)
        mine = [row for row in rows if (row["distribution"], row["version"]) == owner]
        for group in dict.fromkeys(row["group"] for row in mine):
            click.echo(f"  {group}")
            for row in (row for row in mine if row["group"] == group):
                state = "" if row["state"] == "declared" else f"  {row['state']}"
                click.echo(f"    {row['name']}{state}")


def listed(registry: Registry) -> list[dict[str, str | None]]:
    """Every declaration; ``state`` is "declared", or names the distributions that claim the same name."""
    from impasto.registry import GROUPS

    rows: list[dict[str, str | None]] = []
    for group in GROUPS:
        declared = registry.declared(group)
        for each in declared:
            owners = sorted({str(other.distribution) for other in declared if other.name == each.name})
            alike = sum(other.name == each.name for other in declared)
            rows.append(
                {
                    "distribution": each.distribution,
                    "version": each.version,
                    "group": group,
                    "name": each.name,
                    "value": each.value,
                    "state": "declared" if alike == 1 else f"claimed by {' and '.join(owners)}",
                }
            )
    return sorted(rows, key=lambda row: str(row["distribution"]))
