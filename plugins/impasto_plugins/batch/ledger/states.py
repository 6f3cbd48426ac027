"""The kinds of rows, and the state in which each leaves its image.

| row | written | on resume |
|---|---|---|
| run* | a run begins: images of its manifest | |
| invalid | a line of the manifest that ``--skip-invalid`` skipped | reported |
| gone | a finished image is missing, or has changed | reported |
| intent* | before each POST, after space on the disk was reserved | as the rows after it say; alone: ambiguous |
| accepted* | a job's id was received, before its first poll | polled with the same key |
| staged | the image is whole in the staging folder, and on the disk | published |
| done* | it has its name, file and name on the disk | skipped |
| refused | proved: nothing was charged | requested again, if ``again`` is true |
| ambiguous* | it may have been charged, and did not come | skipped, reported |
| unusable* | paid, without a usable image; its bytes are stored | skipped, reported |
| filtered* expired* | final | skipped, reported |
| shared | in a batch on several hosts: the part of a log that was written to the bucket, or read from there | |

The rows with a star are on the disk before anything else happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from .log import Row


class TaskState(IntEnum):
    """The state of an image."""

    INTENT = 1
    ACCEPTED = 2
    STAGED = 3
    DONE = 4
    REFUSED = 5
    """Final, unless ``--retry-failed``."""
    REFUSED_AGAIN = 6
    """The next run requests it again."""
    AMBIGUOUS = 7
    UNUSABLE = 8
    FILTERED = 9
    EXPIRED = 10

    @property
    def is_open(self) -> bool:
        """True if a run was working on it."""
        return self <= TaskState.STAGED


_OF_KIND: Mapping[object, int] = {
    "intent": int(TaskState.INTENT),
    "accepted": int(TaskState.ACCEPTED),
    "staged": int(TaskState.STAGED),
    "done": int(TaskState.DONE),
    "refused": int(TaskState.REFUSED),
    "ambiguous": int(TaskState.AMBIGUOUS),
    "unusable": int(TaskState.UNUSABLE),
    "filtered": int(TaskState.FILTERED),
    "expired": int(TaskState.EXPIRED),
}
"""Plain numbers, which are quicker: resuming a run reads hundreds of thousands of rows."""

_REFUSED, _REFUSED_AGAIN = int(TaskState.REFUSED), int(TaskState.REFUSED_AGAIN)


def state_of(row: Row) -> int | None:
    """Return the state number in which a row leaves its image; None for a row without an image."""
    state = _OF_KIND.get(row["row"])
    return _REFUSED_AGAIN if state == _REFUSED and row["again"] else state
