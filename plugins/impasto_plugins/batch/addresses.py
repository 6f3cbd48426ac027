"""The addresses of the providers that a batch's images come from: a folder has one for each provider.

Otherwise a run could go on with what an emulator, or another server, had made, and count its images as done.
"""

from __future__ import annotations

from collections.abc import Iterable

from impasto import Client, ConfigError, Operation

from .ledger.states import State
from .ledger.workspace import History

_PROVED_FREE = {State.REFUSED, State.REFUSED_AGAIN}


async def check_addresses(client: Client, operations: Iterable[Operation], history: History) -> None:
    """Raise ConfigError if a folder has images of these operations' providers from another address.

    An address that gave nothing binds nobody. A ledger of an earlier version names none.
    """
    if not history.addresses or not history.pictures.count.keys() - _PROVED_FREE:
        return
    for name, operation in {each.provider.name: each for each in operations}.items():
        before = history.addresses.get(name)
        if before is not None and (now := await _address(client, operation, before)) != before:
            raise ConfigError(
                f"the images of this batch came from {name} at {before}, and this run is for {now}; nothing was sent."
                " Go on with that address (--emulator, --api-base, or the client's options and variables), or give"
                " another folder"
            )


async def note_addresses(client: Client, operations: Iterable[Operation], history: History) -> bool:
    """Note where operations are called. Return True if the ledger does not say so yet. Raises ConfigError."""
    found = {each.provider.name: await client.address(each) for each in operations}
    is_new = not found.items() <= history.addresses.items()
    history.addresses |= found
    return is_new


async def _address(client: Client, operation: Operation, before: str) -> str:
    """Return where an operation is called. Without a key it can be at no transport that needs none."""
    try:
        return await client.address(operation)
    except ConfigError:
        return before if "://" in before else operation.provider.base_url
