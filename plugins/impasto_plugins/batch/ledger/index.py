"""The state of each image according to the ledger, and the money spent on all of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from impasto.ext import MAX_ARTIFACTS

from .log import Row
from .states import TaskState, state_of

_INTENT, _STAGED, _DONE = int(TaskState.INTENT), int(TaskState.STAGED), int(TaskState.DONE)
_PLACE_BITS, _STATE_BITS = 44, 4
_PLACE = (1 << _PLACE_BITS) - 1
_STATE = (1 << _STATE_BITS) - 1
_LINE = _PLACE_BITS + _STATE_BITS


class TaskIndex:
    """All images in the ledger, about 120 bytes each: state, position of the last row, digest of the line.

    Two ids with one key (one pair in 10**7 manifests of a million) differ in their lines. The ledger would report them
    as one id with two contents; neither would be paid twice or skipped.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._count = [0] * (len(TaskState) + 1)
        self.usd = 0.0
        """USD that were charged, or may have been, in all attempts, as far as prices are known."""
        self.unpriced = 0
        """Charges, certain or possible, whose price is not known."""
        self.charges_unknown = 0
        self.extra = 0
        """Images beyond those requested: a provider may answer one request with several."""
        self.usd_of_shares = defaultdict[str, float](float)
        """The part of ``usd`` that each share of a batch on several hosts has spent."""
        self._attempts: dict[int, int] = {}
        """Attempts after the first, in a batch on several hosts."""

    def __len__(self) -> int:
        return len(self._last)

    @property
    def count(self) -> Counter[TaskState]:
        """The number of images in each state."""
        return Counter({state: self._count[state] for state in TaskState if self._count[state]})

    def states(self, id: str, n: int, line: int | None = None) -> list[int]:
        """Return the state numbers of a row's images; 0 for one that the ledger does not know.

        With ``line``, only images that were requested by a line with this digest count.
        """
        last = self._last
        states = []
        for index in range(n):
            packed = last.get(hash((id, index)), 0)
            states.append(packed >> _PLACE_BITS & _STATE if line is None or packed >> _LINE == line else 0)
        return states

    def state(self, id: str, index: int) -> int:
        """Return the number of the state in which an image stands; 0 if the ledger does not know it."""
        return self._last.get(hash((id, index)), 0) >> _PLACE_BITS & _STATE

    def attempt(self, id: str, index: int) -> int:
        """Return the number of an image's last attempt, in a batch on several hosts; the first is 0."""
        return self._attempts.get(hash((id, index)), 0)

    def extras(self, id: str, n: int) -> list[int]:
        """Return the indices of the images that a row has beyond the ``n`` that it asks for."""
        found, index, last = list[int](), n, self._last
        while self.extra and index <= (found[-1] if found else n) + MAX_ARTIFACTS:  # one may be missing
            if hash((id, index)) in last:
                found.append(index)
            index += 1
        return found

    def place(self, id: str, index: int) -> int:
        """Return the position of its last row in the ledger. Raises KeyError."""
        return self._last[hash((id, index))] & _PLACE

    def open(self) -> Iterator[int]:
        """Return the positions of the last rows of images that a run was working on."""
        return (each & _PLACE for each in self._last.values() if each >> _PLACE_BITS & _STATE <= _STAGED)

    def apply(self, row: Row, place: int) -> None:
        """Update the index with a row."""
        state = state_of(row)
        if state is None:
            return
        # A hash instead of the id: at a million images the ids alone would take 100 MB
        key = hash((row["id"], row["index"]))
        before = self._last.get(key, 0)
        self._count[before >> _PLACE_BITS & _STATE] -= 1
        self._count[state] += 1
        if state == _DONE and "extra" in row:
            self.extra += before >> _PLACE_BITS & _STATE != _DONE
        line = before >> _LINE  # later rows of the image do not repeat the digest of its line
        if state == _INTENT:
            line = row["line"]
        elif state >= _STAGED and row["billed"] != "no":
            if before >> _PLACE_BITS & _STATE != _STAGED:  # what is staged is charged, and what follows is its end
                self._charge(row, 1)
            self.charges_unknown += row["billed"] == "unknown"
        if (replaced := row.get("replaces")) is not None:
            self._charge(replaced, -1)
            self.charges_unknown -= replaced["billed"] == "unknown"
        if "attempt" in row:
            self._attempts[key] = row["attempt"]
        self._last[key] = line << _LINE | state << _PLACE_BITS | place

    def _charge(self, row: Row, sign: int) -> None:
        usd = row["usd"]
        self.usd += sign * (usd or 0.0)
        self.unpriced += sign * (usd is None)
        if "share" in row:
            self.usd_of_shares[row["share"]] += sign * (usd or 0.0)

    def is_last(self, row: Row, place: int) -> bool:
        """Return True if a row is the last one of its image."""
        packed = self._last.get(hash((row["id"], row["index"])))
        return packed is not None and packed & _PLACE == place
