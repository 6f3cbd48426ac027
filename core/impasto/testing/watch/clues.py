"""The words for a check that hangs: its last request and answer, and the job that the plugin waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import FrameType

from impasto import Call, WireRequest
from impasto.testing.recorder import Exchanges, without_query


def clues(frames: Iterable[FrameType]) -> Iterator[str]:
    """Yield what the local variables of suspended coroutines tell of a call."""
    for frame in frames:
        for value in frame.f_locals.values():
            if isinstance(value, Exchanges) and value.last_exchange:
                yield f"the last request: {value.last_exchange}"
            elif isinstance(value, Call) and (pending := value.pending) is not None:
                poll = pending.poll or WireRequest()
                yield (
                    f"normalize_response took the answer for job {without_query(pending.id)!r}, which is polled again: "
                    f"{poll.method} {without_query(poll.url or poll.target)}"
                )
