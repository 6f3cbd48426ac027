"""What rows there are, and where each leaves its picture.

| row | written | on resume |
|---|---|---|
| run* | a run begins: pictures of its manifest | |
| invalid | a line of the manifest that ``--skip-invalid`` passed over | told |
| gone | a picture that was done is not there any more, or not as it was | told |
| intent* | before each POST, after room on the disk was set aside | as the rows after it say; alone: ambiguous |
| accepted* | a job's id was received, before its first poll | polled with the same key |
| staged | the picture is whole in the staging folder, and on the disk | put in its place |
| done* | it is in its place, file and name on the disk | skipped |
| refused | proved: nothing was charged | taken up again, if ``again`` says so |
| ambiguous* | it may have been charged, and did not come | skipped, told |
| unusable* | paid for, and no picture; what came is kept | skipped, told |
| filtered* expired* | final | skipped, told |

The rows with a star are on the disk before anything else happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from .log import Row


class State(IntEnum):
    """Where a picture stands."""

    INTENT = 1
    ACCEPTED = 2
    STAGED = 3
    DONE = 4
    REFUSED = 5
    """For good, unless ``--retry-failed``."""
    REFUSED_AGAIN = 6
    """The next run takes it up."""
    AMBIGUOUS = 7
    UNUSABLE = 8
    FILTERED = 9
    EXPIRED = 10

    @property
    def is_open(self) -> bool:
        """Whether a run was at it."""
        return self <= State.STAGED


_OF_KIND: Mapping[object, int] = {
    "intent": int(State.INTENT),
    "accepted": int(State.ACCEPTED),
    "staged": int(State.STAGED),
    "done": int(State.DONE),
    "refused": int(State.REFUSED),
    "ambiguous": int(State.AMBIGUOUS),
    "unusable": int(State.UNUSABLE),
    "filtered": int(State.FILTERED),
    "expired": int(State.EXPIRED),
}
"""As plain numbers, which are quicker: a run that goes on reads hundreds of thousands of rows."""

_REFUSED, _REFUSED_AGAIN = int(State.REFUSED), int(State.REFUSED_AGAIN)


def state_of(row: Row) -> int | None:
    """The number of the state in which a row leaves its picture; None for a row that is no picture's."""
    state = _OF_KIND.get(row["row"])
    return _REFUSED_AGAIN if state == _REFUSED and row["again"] else state
