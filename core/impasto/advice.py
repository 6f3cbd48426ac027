"""Advice in messages that helps only those who write Python. Other entrances show the messages without it."""

from __future__ import annotations

import re

RESUME_ADVICE = "; client.resume fetches its result"
CANCELLED_ADVICE = "; this error's `result` has them"
STREAM_ADVICE = "; client.stream makes one image"
KEY_ADVICE = " or give api_key"

_ENDS = (RESUME_ADVICE, CANCELLED_ADVICE, STREAM_ADVICE, KEY_ADVICE)
_BYTES = re.compile(r"(?:;|, and) its (?:[0-9,]+ )?bytes are in (?:the error's )?\.(?:raw|file)\b")


def bytes_advice(size: int, attribute: str) -> str:
    """Return the end of a message about a paid answer: the attribute of the error that has its bytes."""
    return f", and its {size:,} bytes are in the error's .{attribute}"


def without_python_advice(message: str) -> str:
    """Return a message for those who do not write Python."""
    for advice in _ENDS:
        message = message.replace(advice, "")
    return _BYTES.sub("", message)
