"""The calls that run: those of this worker, and what it knows of those of others, on its machine or on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, cast

from aiohttp import web

from impasto.ext import ReplicaStore, StateStore, StoredCall

from .in_flight import InFlightCall, MachineCalls, SlotState
from .replica_calls import ReplicaCalls


class FoundCall(Protocol):
    """A call in any worker."""

    @property
    def state(self) -> SlotState:
        """Its state when it was found."""
        ...

    def is_over(self) -> bool:
        """Return True if it is known to be over."""
        ...


class CallsInFlight(Protocol):
    """The calls of all workers. Those of this one change without a wait, and others see it some moments later.

    Methods that are awaited raise StateError and OSError if the calls of others can't be read, or these not be written.
    """

    notice_seconds: float
    """Seconds after which each worker has seen that its callers left, and others have seen that."""
    look_seconds: float
    """Seconds after which a call of another worker is looked at again for the first time."""
    take_over_seconds: float
    """Seconds between looks for dead workers."""

    @property
    def leased(self) -> ReplicaCalls | None:
        """These calls, if a worker that lives may be taken for dead: each is checked before it is sent."""
        ...

    @property
    def has_room(self) -> bool:
        """True if a call may stay here for a long time: half of the places are for new ones."""
        ...

    async def start(self) -> None:
        """Let others see this worker."""
        ...

    async def aclose(self) -> None:
        """Leave the running calls to others."""
        ...

    async def worker(self) -> str:
        """Return the name of this worker, which is alive."""
        ...

    def begin(self, identity: bytes, request: web.BaseRequest | None, *, has_key: bool) -> InFlightCall:
        """Add a call; ``has_key`` if its row identifies it. Raises APIError if too many run."""
        ...

    def adopt(self, row: StoredCall) -> InFlightCall:
        """Add a call that was taken over, with its job. Raises APIError if too many run."""
        ...

    async def share(self, call: InFlightCall) -> str:
        """Return the name under which other workers find a call that has a row of its own."""
        ...

    def finish(self, call: InFlightCall) -> None:
        """Remove a call whose outcome is stored, if it has to be."""
        ...

    def mark_lost(self, call: InFlightCall) -> None:
        """Mark a call that is over with an unknown outcome."""
        ...

    def mark_abandoned(self, call: InFlightCall) -> None:
        """Mark a call whose caller left."""
        ...

    def mark_disconnected(self) -> None:
        """Mark calls whose callers left: their retries may reach another worker."""
        ...

    async def look(self, identity: bytes) -> Sequence[FoundCall]:
        """Return the calls with a fingerprint in all workers, and those with an unknown outcome."""
        ...

    async def find_running(self, row: StoredCall) -> FoundCall | None:
        """Return the running call of a row, None if it is over or its worker died."""
        ...

    def dead_workers(self) -> AbstractAsyncContextManager[Mapping[str, Sequence[bytes]]]:
        """Yield dead workers with their calls without a key; they are deleted when the block ends without an error."""
        ...


def calls_in_flight(state: StateStore, folder: Path) -> CallsInFlight:
    """Return the calls of a state's workers; ``folder``: where the workers of one machine have their tables."""
    if hasattr(state, "workers"):
        return ReplicaCalls(cast("ReplicaStore", state))
    return MachineCalls(folder)
