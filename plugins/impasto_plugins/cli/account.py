"""`impasto account`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import as_json, reaching

if TYPE_CHECKING:
    from typing import Unpack

    from .calls import Reaching


@click.command("account", short_help="Show the balance, and whose key it is.")
@click.option("--organization", metavar="ID", help="Whose balance.  [default: the owner's default organization]")
@reaching
@as_json
def command(*, organization: str | None, as_json: bool, **options: Unpack[Reaching]) -> None:
    """Shows what is left in the account of the key for Stability AI, and whose it is. It costs nothing.

    The balance lags behind what was charged.
    """
    import asyncio  # this and the client: only for those who ask

    import attrs

    from impasto import Client

    from .calls import settings_of

    async def ask() -> dict[str, object]:
        async with Client(**settings_of(options, "stability")) as client:
            balance = await client.stability.balance(organization=organization)
            owner = await client.stability.account()
            return {**attrs.asdict(owner), "credits": balance.credits, "usd": balance.usd}

    told = asyncio.run(ask())
    if as_json:
        import json

        click.echo(json.dumps(told, indent=2))
    else:
        _print(told)


def _print(told: dict[str, object]) -> None:
    click.secho(f"{told['credits']:,.2f} credits, {told['usd']:,.2f} USD", bold=True)
    click.echo(told["email"])
    organizations = told["organizations"]
    for each in organizations if isinstance(organizations, tuple | list) else ():
        default = ", the default" if each["is_default"] else ""
        click.echo(f"  {each['name']} ({each['id']}): {each['role'].lower()}{default}")
