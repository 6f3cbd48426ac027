"""State that processes share: what a plugin of the group ``impasto.states`` provides, by the scheme of its address.

Each operation of a store is one transaction, exclusive among all processes of the store. Once it returns it survives
the process; calls and objects that are inserted or changed survive a power loss too, but not the mark of ``claim``.
Times are seconds since 1970 by the store's own clock. Every operation raises StateError if the store can't be used
now. If its connection broke in the middle, the change may have been made: repeating it makes it once, but what is
reserved or settled may count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from .errors import ConfigError
from .registry import STATES
from .state_records import (
    LimitReached,
    ObjectsFull,
    Period,
    Reservation,
    StateError,
    StateReport,
    StoredCall,
    StoredObject,
    Use,
)

if TYPE_CHECKING:
    from .registry import Registry


RESULTS = "results"
"""The folder below that of a state for the images of calls with an idempotency key."""


class CallRecords(Protocol):
    """The calls of a store. Expired ones are not found."""

    async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
        """Insert a call before it is made, and return it; with ``join``, return an existing one with its fingerprint.

        A call with the same id is the same call: it is returned, and inserted once.
        """
        ...

    async def insert(self, calls: Sequence[StoredCall]) -> None:
        """Insert calls that are over."""
        ...

    async def update(self, id: str, **columns: str | bytes) -> None:
        """Change ``state``, ``outcome``, ``jobs`` or ``identity`` of a call.

        One that is done stays as it is if it is to become failed: another worker has its result.
        """
        ...

    async def delete(self, id: str) -> None:
        """Delete a call."""
        ...

    async def find(self, id: str, owner: bytes) -> StoredCall | None:
        """Return a call by its id, for its owner alone."""
        ...

    async def find_failed(self, identity: bytes) -> StoredCall | None:
        """Return a failed call with this fingerprint."""
        ...

    async def claim(self, identity: bytes, count: int, *, as_job: bool) -> StoredCall | None:
        """Return a result for retry number ``count``, as it was before it is marked with that number.

        Only one with a lower number is returned, the lowest and oldest first, so that each is handed to at most one
        retry per count. ``as_job``: a call that has a worker, whatever its outcome; otherwise one that is done.
        """
        ...

    async def release(self, call: StoredCall, count: int) -> None:
        """Take back the mark of retry number ``count`` on a call that ``claim`` returned, if it is the last."""
        ...

    async def take_over(
        self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
    ) -> list[StoredCall]:
        """Give the jobs of dead workers to a worker and return them; end their other running calls as failed.

        No caller waits for a job any more: its ``attempt`` is 0. ``outcome``: that of the failed ones. ``dead``: the
        fingerprints of each one's calls that have no record, for which a retry can ask; they get failed ones, for so
        many ``seconds``, except those whose job has one, with CALLER_WAITS.
        """
        ...

    async def delete_expired(self) -> Collection[str]:
        """Delete expired calls and return their ids."""
        ...

    async def missing(self, ids: Collection[str]) -> Collection[str]:
        """Return those of the ids that no call has."""
        ...


class Budgets(Protocol):
    """Amounts that keys have used, by period. Amounts of a later period count in this one: a clock was set back."""

    async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
        """Count all of these uses, or none of them if one would pass its limit. A name has one use in a period."""
        ...

    async def settle(self, reservation: Reservation, spent: Mapping[str, int]) -> None:
        """Count what was spent, by name, in place of what was reserved. What is not named stays."""
        ...

    async def check(self, key: bytes, uses: Sequence[Use]) -> LimitReached | None:
        """Return the first limit that these uses would pass, and count nothing."""
        ...

    async def used(self, key: bytes, what: str, period: Period) -> int:
        """Return the amount of the current period."""
        ...

    async def delete_old(self) -> None:
        """Delete the amounts of periods that are over."""
        ...


class ObjectRecords(Protocol):
    """Files and batches."""

    async def insert(
        self, item: StoredObject, *, max_count: int, max_bytes: int | None = None, since: float | None = None
    ) -> StoredObject | ObjectsFull:
        """Insert an object, or return the one that the same request of its owner made after ``since``.

        Returns ObjectsFull if the owner has ``max_count`` of the kind, or all objects would pass ``max_bytes``. An
        object with the same id is the same object: it is returned, and inserted once.
        """
        ...

    async def replace(
        self,
        old: StoredObject,
        new: StoredObject,
        *,
        further: Sequence[StoredObject] = (),
        max_bytes: int | None = None,
    ) -> bool | ObjectsFull:
        """Replace an object that is still as ``old``, and insert ``further`` ones; return False if it has changed.

        A repetition returns False too: the same change may be another process's.
        """
        ...

    async def delete(self, ids: Collection[str]) -> None:
        """Delete objects."""
        ...

    async def find(self, kind: str, id: str, owner: bytes) -> StoredObject | None:
        """Return an object by its id, for its owner alone, unless it has expired."""
        ...

    async def page(
        self,
        kind: str,
        owner: bytes,
        *,
        limit: int,
        after: str | None = None,
        ascending: bool = False,
        statuses: Collection[str] | None = None,
        label: str | None = None,
    ) -> Sequence[StoredObject]:
        """Return an owner's objects in the order in which they were made. Raises KeyError if ``after`` is unknown."""
        ...

    async def of_kind(self, kind: str, statuses: Collection[str] | None = None) -> Sequence[StoredObject]:
        """Return the objects of all owners, expired ones too, the oldest first."""
        ...

    async def delete_expired(self, kind: str, *, keep: Collection[str] = ()) -> Sequence[StoredObject]:
        """Delete expired objects, except those of some statuses, and return them."""
        ...


class StateStore(Protocol):
    """A store of state. Constructed with its address: a folder, or a URL whose scheme is the plugin's name.

    ``setting``: the name of the setting that has the address, for messages. ``result_folders``: folders that have files
    only if there are records of them: a new store beside them is refused, since it would not know what was paid for.
    In the folder of a store, ``RESULTS`` is one of them.
    """

    def __init__(self, address: str, *, setting: str = "state", result_folders: Sequence[Path] = ()) -> None: ...

    @property
    def calls(self) -> CallRecords:
        """The calls of the store."""
        ...

    @property
    def budgets(self) -> Budgets:
        """The budgets of the store."""
        ...

    @property
    def objects(self) -> ObjectRecords:
        """The files and batches of the store."""
        ...

    async def open(self) -> None:
        """Open the store and create what is missing. Raises StateError, also for the schema of a newer program.

        If that fails, operations raise StateError until one of them can open it. An error that only a change of the
        address, the rights or the schema can end is permanent; one that ends by itself, such as a restart, is not.
        """
        ...

    async def aclose(self) -> None:
        """End running transactions and close all connections."""
        ...

    async def now(self) -> float:
        """Return the store's clock."""
        ...

    async def is_usable(self) -> bool:
        """Return True if the store takes writes now."""
        ...

    async def check(self) -> StateReport:
        """Examine a store, and change nothing. Needs no ``open``."""
        ...

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to this program's; return a line for each step, none if nothing was to do.

        Needs no ``open``.
        """
        ...


FOLDER_PLUGIN = "sqlite"
"""The plugin for addresses without a scheme."""


async def open_store(store: StateStore) -> StateError | None:
    """Open a store at the start of a program. Return the error of one that is away: its operations raise it until then.

    Raises ConfigError if waiting does not help.
    """
    try:
        await store.open()
    except StateError as error:
        if error.is_permanent:
            raise ConfigError(str(error)) from None
        return error
    return None


async def check_store(store: StateStore) -> str | None:
    """Return why a store can't be used now, or None. It is closed, and nothing in it is changed.

    Raises ConfigError if ``open_store`` would.
    """
    try:
        report = await store.check()
    finally:
        await store.aclose()
    if not report.problems:
        return None
    if not report.is_away:
        raise ConfigError("; ".join(report.problems))
    return report.problems[0]


def state_of(
    address: str, registry: Registry, *, setting: str = "state", result_folders: Sequence[Path] = ()
) -> StateStore:
    """Return the store of an address: a folder, or a URL whose scheme names the plugin. Raises RegistryError.

    ``setting``, ``result_folders``: see StateStore.
    """
    scheme = address.partition("://")[0].lower() if "://" in address else FOLDER_PLUGIN
    store = cast("type[StateStore]", registry.load(STATES, scheme, type))
    return store(address, setting=setting, result_folders=result_folders)
