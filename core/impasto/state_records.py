"""Records of a store of state, its answers and its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from .errors import NotSent, StorageError

Period = Literal["minute", "day", "month", "ever"]
"""The minute slides; days and months are those of UTC."""


CALLER_WAITS = 1_000_000
"""The ``attempt`` of a call whose caller waits for it: higher than the number of any retry, so that none gets it."""


class StateAway(NotSent):
    """The store can't be used now. The message names its address: it is for whoever runs the program."""


class StateError(Exception):
    """The store can't be used. The message names the cause and the setting, and holds no password."""

    may_have_changed = False
    """True if the operation was sent to the store, and may have been made."""

    def __init__(self, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent
        """True if waiting does not help: the address, the user's rights or the schema must be changed first."""

    def refusal(self, what: str) -> StateAway | StorageError:
        """Return the error of a call that needs ``what`` of the store: it may be repeated if waiting helps."""
        if self.is_permanent:
            return StorageError(f"{self}; without {what} nothing is sent")
        return StateAway(f"{self}; without {what} nothing is sent, try again")


@attrs.frozen(kw_only=True)
class StoredCall:
    """A call that a repeated request must find.

    It is ``running``, ``done`` or ``failed``. ``identity`` is the fingerprint that a repeated request finds it by,
    ``content`` that of its content. ``worker``: the process that runs it. ``attempt``: the highest attempt number of an
    SDK that got it. ``jobs`` describes the provider's own jobs, ``outcome`` the outcome; both are JSON. If ``created``
    is 0, the store that inserts it sets it to now, and ``expires`` counts from then.
    """

    id: str
    owner: bytes
    identity: bytes
    content: bytes = b""
    state: str = "running"
    model: str = ""
    response_format: str = ""
    worker: str = ""
    attempt: int = 0
    jobs: str = ""
    outcome: str = attrs.field(default="", repr=False)
    created: float = 0.0
    expires: float


@attrs.frozen(kw_only=True)
class Use:
    """An amount of something whose total in a period is limited, or only counted (``limit`` is None)."""

    what: str
    period: Period
    amount: int
    limit: int | None = None


@attrs.frozen(kw_only=True)
class Reservation:
    """Amounts that count against a key's limits, each in the period in which it was reserved."""

    key: bytes
    amounts: Mapping[tuple[str, Period, int], int]
    """By name, period, and number of the period."""


@attrs.frozen(kw_only=True)
class LimitReached:
    """The refusal of a reservation: the first use that has no room, and what its limit has left, which may be 0.

    ``ends``: the end of the day or the month; the moment at which a minute will have room; infinite if there will never
    be any. ``seconds``: how long until then.
    """

    use: Use
    left: int
    ends: float
    seconds: float


@attrs.frozen(kw_only=True)
class StoredObject:
    """A file or a batch. ``label``: a word to list it by; ``size``: bytes that it may take; ``body``: its JSON.

    ``identity``: the fingerprint of the request that made it.
    """

    kind: str
    id: str
    owner: bytes
    status: str
    label: str = ""
    identity: bytes = b""
    size: int
    body: str
    created: float
    expires: float


@attrs.frozen(kw_only=True)
class ObjectsFull:
    """The refusal of an object: the number and the bytes that are left."""

    count: int
    bytes: int


@attrs.frozen(kw_only=True)
class StateReport:
    """A store's schema and records. ``version``: that of its schema, 0 if it has none; ``newest``: the program's.

    ``counts``: the number of records by their kind. ``oldest``: when the oldest was created. ``is_away``: True if the
    only problem is that the store can't be reached now.
    """

    version: int
    newest: int
    counts: Mapping[str, int] = attrs.field(factory=dict[str, int])
    oldest: float | None = None
    problems: Sequence[str] = ()
    is_away: bool = False
