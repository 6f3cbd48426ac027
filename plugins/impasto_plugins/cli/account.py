"""`impasto account`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import as_json, connection_options
from .terminal.output import echo, protect_output

if TYPE_CHECKING:
    from typing import Unpack

    from .calls.connection import ConnectionOptions


@click.command("account", short_help="Show the balance and the owner of the key.")
@click.option(
    "--organization",
    metavar="ID",
    help="Show this organization's balance.  [default: the owner's default]",
)
@connection_options
@as_json
def command(*, organization: str | None, as_json: bool, **options: Unpack[ConnectionOptions]) -> None:
    """Show the balance of the Stability AI key's account, and its owner. This costs nothing.

    The vendor updates the balance with a delay.
    """
    import attrs  # this and the client: only for those who ask

    from impasto import Client

    from .calls.connection import settings_of
    from .terminal.signals import run_until_signal

    async def ask() -> dict[str, object]:
        async with Client(**settings_of(options, "stability")) as client:
            balance = await client.stability.balance(organization=organization)
            owner = await client.stability.account()
            return {**attrs.asdict(owner), "credits": balance.credits, "usd": balance.usd}

    protect_output()
    account = run_until_signal(ask())
    if as_json:
        import json

        echo(json.dumps(account, indent=2))
    else:
        _print(account)


def _print(account: dict[str, object]) -> None:
    echo(click.style(f"{account['credits']:,.2f} credits, {account['usd']:,.2f} USD", bold=True))
    echo(account["email"])
    organizations = account["organizations"]
    for each in organizations if isinstance(organizations, tuple | list) else ():
        default = ", the default" if each["is_default"] else ""
        echo(f"  {each['name']} ({each['id']}): {each['role'].lower()}{default}")
