"""The order of evidence about an image, by which the rows of several hosts are merged.

Each row is a statement of somebody who knew: of the host that sent the request, or of one that settled what a dead host
left open. Such a verdict of "ambiguous" (``settles``: the state that it judged) stands only until its host comes
back with more evidence. "Done" is above everything: the image is there.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.log import Row, Rows, rows_at
from impasto_plugins.batch.ledger.states import TaskState, state_of
from impasto_plugins.batch.ledger.workspace import Workspace

_ORDER = (
    TaskState.INTENT,
    TaskState.ACCEPTED,
    TaskState.STAGED,
    TaskState.AMBIGUOUS,
    TaskState.EXPIRED,
    TaskState.REFUSED_AGAIN,
    TaskState.REFUSED,
    TaskState.FILTERED,
    TaskState.UNUSABLE,
    TaskState.DONE,
)
_RANK: Mapping[int, int] = {int(state): 2 * place for place, state in enumerate(_ORDER)}

Key = tuple[str, int]
"""An image: its id and index."""


def key_of_row(row: Row) -> Key:
    """Return the image of a row."""
    return row["id"], row["index"]


def evidence_of(row: Row) -> tuple[bool, int, int]:
    """Return a row's place in the order of evidence: if it is done, its attempt, its kind."""
    state = state_of(row)
    assert state is not None  # noqa: S101 - only rows of images are compared
    judged = row.get("settles")
    rank = _RANK[state] + ("unfetched" in row) if judged is None else _RANK[judged] + 1
    return state == TaskState.DONE, row.get("attempt", 0), rank


@attrs.define(eq=False)
class Merge:
    """Decides about each row of a folder's ledger. Its methods run in the writer's thread."""

    folder: Workspace
    claims: dict[Key, Mapping[str, object]] = attrs.field(factory=dict[Key, Mapping[str, object]])
    """``attempt`` and ``share`` of each image that this host has claimed."""
    left_open: dict[str, dict[Key, Row]] = attrs.field(factory=dict[str, dict[Key, Row]])
    """Images that other hosts have in progress: the last row of each, by host."""
    is_retriable: bool = False
    """True if another host's image has become one to request again."""
    _rows: Rows | None = None

    def __attrs_post_init__(self) -> None:
        for row in rows_at(self.folder.layout.ledger, self._images.open()):
            if "from" in row:
                self.left_open.setdefault(row["from"], {})[key_of_row(row)] = row

    @property
    def _images(self) -> TaskIndex:
        return self.folder.images

    def __call__(self, row: Row) -> Row | None:
        """Return the row as it is to be written, or None if the ledger has better evidence."""
        if (state := state_of(row)) is None:
            return row
        key = key_of_row(row)
        if "from" not in row and "settles" not in row:
            claim = self.claims.get(key) or {"attempt": self._images.attempt(*key)}
            row = {"row": row["row"], **claim, **row}
            if state > TaskState.STAGED:
                self.claims.pop(key, None)
        before = self._images.state(*key)
        if before:
            last = self._last_row(key)
            if evidence_of(row) <= evidence_of(last):
                return None
            if row.get("attempt", 0) == last.get("attempt", 0) and TaskState.AMBIGUOUS <= before != TaskState.DONE:
                replaced = {name: last[name] for name in ("usd", "billed", "share") if name in last}
                row = {"row": row["row"], "replaces": replaced, **row} if last["billed"] != "no" else row
            if "from" in last:
                self.left_open.get(last["from"], {}).pop(key, None)
        if "from" in row:
            if state <= TaskState.STAGED:
                self.left_open.setdefault(row["from"], {})[key] = row
            self.is_retriable = self.is_retriable or state == TaskState.REFUSED_AGAIN
        return row

    def _last_row(self, key: Key) -> Row:
        if self._rows is None:
            self._rows = Rows(self.folder.layout.ledger)
        return self._rows.at(self._images.place(*key))

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
