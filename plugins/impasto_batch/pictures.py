"""Where each picture stands, as its rows in the ledger tell; and what was spent on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, cast

from .ledger import Row
from .rows import State, state_of

_DIGEST = 64
"""How many bits of a content's digest are kept in memory."""

_STATE = 4


class Standing(NamedTuple):
    """A picture's last word: its state, the place of that row, the beginning of its content's digest."""

    state: State
    place: int
    digest: int


def digest_bits(digest: str) -> int:
    """The beginning of a digest in hexadecimal."""
    return int(digest[: _DIGEST // 4], 16)


class Pictures:
    """All pictures that the ledger knows. A picture takes about 120 bytes.

    Two of them that fell on one key (one in 10**13, for a million) would differ in their digests, and so be told as
    one id with two contents: nothing would be paid twice or passed over.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self.count: Counter[State] = Counter()
        self.usd = 0.0
        """What was charged, or may have been, in all attempts; what has no known price is not in it."""
        self.charges_unknown = 0

    def __len__(self) -> int:
        return len(self._last)

    def find(self, id: str, index: int) -> Standing | None:
        """Where a picture stands; None for one that the ledger does not know."""
        packed = self._last.get(hash((id, index)))
        return None if packed is None else _unpacked(packed)

    def take(self, row: Row, place: int) -> None:
        """Takes note of a row."""
        state = state_of(row["row"], again=row.get("again"))
        if state is None:
            return
        key = hash((row["id"], row["index"]))
        digest = 0
        if (before := self._last.get(key)) is not None:
            old = _unpacked(before)
            digest = old.digest
            self.count[old.state] -= 1
        if state is State.INTENT:
            digest = digest_bits(cast(str, row["sha256"]))
        elif not state.is_open and row.get("billed") != "no":
            self.usd += cast("float | None", row.get("usd")) or 0.0
            self.charges_unknown += row.get("billed") == "unknown"
        self.count[state] += 1
        self._last[key] = (digest << _STATE | state) << _PLACE | place

    def is_last(self, row: Row, place: int) -> bool:
        """Whether a row is its picture's last word."""
        packed = self._last.get(hash((row["id"], row["index"])))
        return packed is not None and packed & _PLACES == place

    def standing(self) -> Iterator[Standing]:
        """Every picture, in the order in which they came."""
        return map(_unpacked, self._last.values())


_PLACE = 44
_PLACES = (1 << _PLACE) - 1


def _unpacked(packed: int) -> Standing:
    return Standing(State(packed >> _PLACE & 15), packed & _PLACES, packed >> _PLACE + _STATE)
