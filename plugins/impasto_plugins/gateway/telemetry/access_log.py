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

from .request_record import RequestRecord

access_logger = logging.getLogger("impasto.gateway.access")

MAX_QUEUED_LINES = 10_000
"""Lines that wait to be written. More are dropped and counted: a log without a reader must not delay requests."""

_WRITE_SECONDS = 0.2
_ATOMIC_WRITE_BYTES = 4096
"""Bytes that a pipe writes in one piece, so that lines of several workers do not mix."""


def log_request(record: RequestRecord) -> None:
    """Log a request, if anybody listens."""
    if access_logger.isEnabledFor(logging.INFO):
        access_logger.info("%s", format_line(record))


def format_line(record: RequestRecord) -> str:
    """Return a request's line. ASCII only: characters that could forge another line, or steer a terminal, are escaped.

    Written by hand: a general encoder takes twice as long, for every request (``python -m benchmarks gateway``).
    """
    text = (
        f'{{"time": "{datetime.now(UTC).isoformat(timespec="milliseconds")}", "request_id": {_quote(record.id)},'
        f' "method": {_quote(record.method)}, "route": {_quote(record.route)}, "status": {record.status},'
        f' "ms": {round(record.seconds * 1000, 1)}, "bytes_in": {record.bytes_in}, "bytes_out": {record.bytes_out}'
    )
    if record.code is not None:
        text += f', "code": {_quote(record.code)}'
    if record.key is not None:
        text += f', "key": {_quote(record.key)}'
    if record.model is not None:
        text += f', "model": {_quote(record.model)}'
    if record.prompt is not None:
        text += f', "prompt": {_quote(record.prompt)}'
    if record.trace_id is not None:
        text += f', "trace_id": {_quote(record.trace_id)}'
    if record.deployment is not None:
        text += (
            f', "deployment": {_quote(record.deployment)}, "upstream_ms": {round((record.upstream or 0.0) * 1000, 1)},'
            f' "attempts": {record.attempts:d}, "pictures": {record.images},'
            f' "cost_usd": {"null" if record.cost_usd is None else record.cost_usd},'
            f' "charge_unknown": {"true" if record.charge_unknown else "false"},'
            f' "provider_request_ids": [{", ".join(map(_quote, record.provider_ids))}]'
        )
    return text + "}"


class AccessLogWriter:
    """Writes the log to a file descriptor, such as stdout's, in a thread of its own, until the block ends.

    ``on_dropped_line`` is called for each line that there was no room for.
    """

    def __init__(self, fd: int) -> None:
        self.on_dropped_line: Callable[[], object] = lambda: None
        self._fd = fd
        self._queue: deque[bytes] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="impasto-access-log", daemon=True)
        self._thread.start()

    def log(self, record: RequestRecord) -> None:
        """Queue a request's line."""
        if len(self._queue) < MAX_QUEUED_LINES:
            self._queue.append(format_line(record).encode() + b"\n")
        else:
            self.on_dropped_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the queued lines, if anybody reads them."""
        self._closing.set()
        self._thread.join(1)

    def _write_lines(self) -> None:
        is_closing = False
        while not is_closing:
            is_closing = self._closing.wait(_WRITE_SECONDS)
            while self._queue:
                chunk = self._queue.popleft()
                while self._queue and len(chunk) + len(self._queue[0]) <= _ATOMIC_WRITE_BYTES:
                    chunk += self._queue.popleft()
                try:
                    self._write_all(chunk)
                except OSError:  # the reader closed it
                    self._queue.clear()

    def _write_all(self, chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(self._fd, chunk) :]
