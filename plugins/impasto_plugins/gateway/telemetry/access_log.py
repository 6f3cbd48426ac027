"""The access log: one JSON object a line for each request.

``impasto serve`` writes it; a gateway inside another program logs it on ``impasto.gateway.access``.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quote
from types import TracebackType
from typing import Self

from .request_record import Seen

access = logging.getLogger("impasto.gateway.access")

MOST_WAITING = 10_000
"""Lines that wait to be written. More are lost, and counted: a log that nobody takes must not hold requests up."""

_WRITE_SECONDS = 0.2
_AT_ONCE = 4096
"""Bytes that a pipe takes in one piece, so that lines of several workers do not mix."""


def to_logger(seen: Seen) -> None:
    """Logs a request, if anybody listens."""
    if access.isEnabledFor(logging.INFO):
        access.info("%s", line(seen))


def line(seen: Seen) -> str:
    """Return a request's line. ASCII only: what would forge another line, or steer a terminal, is escaped.

    Written by hand: a general encoder takes twice as long, for every request (``python -m benchmarks gateway``).
    """
    text = (
        f'{{"time": "{datetime.now(UTC).isoformat(timespec="milliseconds")}", "request_id": {_quote(seen.id)},'
        f' "method": {_quote(seen.method)}, "route": {_quote(seen.route)}, "status": {seen.status},'
        f' "ms": {round(seen.seconds * 1000, 1)}, "bytes_in": {seen.bytes_in}, "bytes_out": {seen.bytes_out}'
    )
    if seen.code is not None:
        text += f', "code": {_quote(seen.code)}'
    if seen.key is not None:
        text += f', "key": {_quote(seen.key)}'
    if seen.model is not None:
        text += f', "model": {_quote(seen.model)}'
    if seen.prompt is not None:
        text += f', "prompt": {_quote(seen.prompt)}'
    if seen.trace_id is not None:
        text += f', "trace_id": {_quote(seen.trace_id)}'
    if seen.deployment is not None:
        text += (
            f', "deployment": {_quote(seen.deployment)}, "upstream_ms": {round((seen.upstream or 0.0) * 1000, 1)},'
            f' "attempts": {seen.attempts:d}, "pictures": {seen.pictures},'
            f' "cost_usd": {"null" if seen.usd is None else seen.usd},'
            f' "charge_unknown": {"true" if seen.charge_unknown else "false"},'
            f' "provider_request_ids": [{", ".join(map(_quote, seen.provider_ids))}]'
        )
    return text + "}"


class Lines:
    """Writes the log to a file descriptor, such as stdout's, from a thread of its own, until the block ends.

    ``lost`` is told of each line that there was no room for.
    """

    def __init__(self, number: int) -> None:
        self.lost: Callable[[], object] = lambda: None
        self._number = number
        self._waiting: deque[bytes] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="impasto-access-log", daemon=True)
        self._thread.start()

    def log(self, seen: Seen) -> None:
        """Takes a request's line."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(line(seen).encode() + b"\n")
        else:
            self.lost()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what waits, if somebody takes it."""
        self._over.set()
        self._thread.join(1)

    def _write(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_WRITE_SECONDS)
            while self._waiting:
                piece = self._waiting.popleft()
                while self._waiting and len(piece) + len(self._waiting[0]) <= _AT_ONCE:
                    piece += self._waiting.popleft()
                try:
                    self._put(piece)
                except OSError:  # whoever read it is gone
                    self._waiting.clear()

    def _put(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._number, piece) :]
