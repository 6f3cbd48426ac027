"""State that processes of several machines share, beside that of a StateStore: their leases, calls and rate windows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import attrs

from .leases import WorkerLease
from .policy import RateLimit
from .state_records import LimitReached, Reservation, Use
from .states import StateStore


@attrs.frozen(kw_only=True)
class CallInFlight:
    """A call that runs in a worker.

    It is ``running``, ``abandoned`` (its caller left) or ``lost`` (it is over, and its outcome is unknown).
    """

    id: str
    identity: bytes
    worker: str
    state: str = "running"


class Workers(Protocol):
    """Processes on several machines. Each has a lease, which it renews, and its calls in flight.

    A lease ends by the store's clock. From then on the worker can begin nothing, until it is renewed or registered.
    """

    async def register(self, worker: str, seconds: float) -> None:
        """Begin the lease of a worker, for so many seconds."""
        ...

    async def renew(self, worker: str, seconds: float) -> bool:
        """Let a lease last for so many seconds from now, also one that had ended.

        Return False if others have taken over the worker's calls.
        """
        ...

    async def end(self, worker: str) -> None:
        """End the lease of a worker that stops: others may take over its calls. Without calls it is deleted."""
        ...

    async def remove(self, workers: Collection[str]) -> None:
        """Delete workers whose calls others have taken over, and their calls in flight, unless they were renewed."""
        ...

    async def dead(self) -> Mapping[str, Sequence[bytes]]:
        """Return the workers whose leases have ended, with the fingerprints of their calls: see ``take_over``.

        A worker that was removed is among them as long as a running call in ``calls`` has its name.
        """
        ...

    async def begin_call(
        self, call: CallInFlight, *, key: bytes = b"", uses: Sequence[Use] = ()
    ) -> Reservation | LimitReached:
        """Add a call, and reserve uses of a key as ``Budgets.reserve`` does, if there are any. Raises WorkerEnded.

        A refusal adds no call.
        """
        ...

    async def find_calls(self, identity: bytes) -> Sequence[CallInFlight]:
        """Return the calls with a fingerprint."""
        ...

    async def mark_call(self, id: str, state: str) -> None:
        """Change the state of a call."""
        ...

    async def end_calls(self, ids: Collection[str]) -> None:
        """Delete calls, which may take some moments."""
        ...


class Rates(Protocol):
    """Requests of keys in sliding windows, counted as their providers count them: when they arrive.

    A permit holds a place until its holder reports that the request has arrived: at its answer, or when it must have,
    some seconds after all of it was written. The requests of a worker whose lease ends count as having arrived then.
    After the store has started again all keys wait for one whole window, since it may have forgotten requests.
    """

    async def begin(self, key: str, permit: int, worker: str, limit: RateLimit, slack: float) -> float:
        """Return 0 if a request may go, which then holds a place, or the seconds to wait before the next try.

        ``permit``: a number that its holder chooses. ``slack``: the seconds that a written request may take to arrive.
        Raises WorkerEnded.
        """
        ...

    async def count(self, permits: Collection[int]) -> None:
        """Note that requests have arrived. Repeating it changes nothing."""
        ...

    async def release(self, key: str, permits: Collection[int]) -> None:
        """Take back the permits of requests that never left."""
        ...

    async def pause(self, key: str, seconds: float) -> None:
        """Let no request of a key go for so many seconds. A pause is never made shorter."""
        ...


class ReplicaStore(StateStore, Protocol):
    """A store that processes of several machines can share. ``lease``: that of this process, which ``aclose`` ends."""

    workers: Workers
    rates: Rates
    lease: WorkerLease
