"""The addresses that a batch's images come from: one for each provider of a folder.

Otherwise a run could continue with the images of an emulator, or of another server, and count them as done.
"""

from __future__ import annotations

from collections.abc import Iterable

from impasto import Client, ConfigError, Operation

from .ledger.states import TaskState
from .ledger.workspace import LedgerHistory

_PROVED_FREE = {TaskState.REFUSED, TaskState.REFUSED_AGAIN}


async def check_addresses(client: Client, operations: Iterable[Operation], history: LedgerHistory) -> None:
    """Raise ConfigError if a folder has images of these operations' providers from another address.

    An address without images does not count. A ledger of an earlier version names none.
    """
    if not history.addresses or not history.images.count.keys() - _PROVED_FREE:
        return
    for name, operation in {each.provider.name: each for each in operations}.items():
        before = history.addresses.get(name)
        if before is not None and (now := await _address(client, operation, before)) != before:
            raise ConfigError(
                f"the images of this batch came from {name} at {before}, and this run is for {now}; nothing was sent."
                " Use that address (--emulator, --api-base, or the client's options and variables), or give"
                " another folder"
            )


async def note_addresses(client: Client, operations: Iterable[Operation], history: LedgerHistory) -> bool:
    """Note the addresses of operations. Return True if the ledger does not have them yet. Raises ConfigError."""
    found = {each.provider.name: await client.address(each) for each in operations}
    is_new = not found.items() <= history.addresses.items()
    history.addresses |= found
    return is_new


def with_api_base(api_base: str, client: Client, operations: list[Operation]) -> Client:
    """Return a client for another address of these operations' provider. Raises ConfigError if there are several."""
    providers = sorted({operation.provider.name for operation in operations})
    if len(providers) > 1:
        raise ConfigError(
            f"--api-base is the address of one provider, but the models belong to {', '.join(providers)}; "
            "run a manifest for each"
        )
    return client.with_options(providers={name: {"api_base": api_base} for name in providers})


async def _address(client: Client, operation: Operation, before: str) -> str:
    """Return the address of an operation. Without a key no transport that needs one can be meant."""
    try:
        return await client.address(operation)
    except ConfigError:
        return before if "://" in before else operation.provider.base_url
