"""Where each picture stands, as its rows in the ledger tell; and what was spent on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from impasto.ext import MOST_ARTIFACTS

from .log import Row
from .states import State, state_of

_INTENT, _STAGED, _DONE = int(State.INTENT), int(State.STAGED), int(State.DONE)
_PLACE_BITS, _STATE_BITS = 44, 4
_PLACE = (1 << _PLACE_BITS) - 1
_STATE = (1 << _STATE_BITS) - 1
_LINE = _PLACE_BITS + _STATE_BITS


class Pictures:
    """All pictures that the ledger knows, about 120 bytes each: state, place of the last row, digest of the line.

    Two ids that fell on one key (one pair in 10**7 manifests of a million) differ in their lines, and then in what
    the ledger says of them: they would be told as one id with two contents, and not paid twice or passed over.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._count = [0] * (len(State) + 1)
        self.usd = 0.0
        """What was charged, or may have been, in all attempts; what has no known price is not in it."""
        self.charges_unknown = 0
        self.extra = 0
        """Images that came and were not asked for: a provider may answer one request with several."""

    def __len__(self) -> int:
        return len(self._last)

    @property
    def count(self) -> Counter[State]:
        """How many pictures stand where."""
        return Counter({state: self._count[state] for state in State if self._count[state]})

    def states(self, id: str, n: int, line: int | None = None) -> list[int]:
        """The numbers of the states in which a row's pictures stand; 0 for one that the ledger does not know.

        With ``line`` only those that a line of this digest asked for are known.
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

    def extras(self, id: str, n: int) -> list[int]:
        """Return the indices of the images that a row has beyond the ``n`` that it asks for."""
        found, index, last = list[int](), n, self._last
        while self.extra and index <= (found[-1] if found else n) + MOST_ARTIFACTS:  # one may be missing
            if hash((id, index)) in last:
                found.append(index)
            index += 1
        return found

    def place(self, id: str, index: int) -> int:
        """Where its last row is in the ledger. Raises KeyError."""
        return self._last[hash((id, index))] & _PLACE

    def open(self) -> Iterator[int]:
        """The places of the last rows of those that a run was at."""
        return (each & _PLACE for each in self._last.values() if each >> _PLACE_BITS & _STATE <= _STAGED)

    def take(self, row: Row, place: int) -> None:
        """Takes note of a row."""
        state = state_of(row)
        if state is None:
            return
        key = hash((row["id"], row["index"]))
        before = self._last.get(key, 0)
        self._count[before >> _PLACE_BITS & _STATE] -= 1
        self._count[state] += 1
        if state == _DONE and "extra" in row:
            self.extra += before >> _PLACE_BITS & _STATE != _DONE
        line = before >> _LINE
        if state == _INTENT:
            line = row["line"]
        elif state >= _STAGED and row["billed"] != "no":
            if before >> _PLACE_BITS & _STATE != _STAGED:  # what is staged is charged, and what follows is its end
                self.usd += row["usd"] or 0.0
            self.charges_unknown += row["billed"] == "unknown"
        self._last[key] = line << _LINE | state << _PLACE_BITS | place

    def is_last(self, row: Row, place: int) -> bool:
        """Whether a row is its picture's last word."""
        packed = self._last.get(hash((row["id"], row["index"])))
        return packed is not None and packed & _PLACE == place
