"""A watch for the hooks that read answers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from impasto import Operation


@contextmanager
def hook_outcomes(kind: type[Operation]) -> Iterator[list[object]]:
    """Collect what ``classify_error`` and ``normalize_response`` return or raise in this thread, for a block."""
    outcomes: list[object] = []
    thread = threading.get_ident()  # a check that hangs never leaves the block

    def noting(hook: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(hook)
        def note(*args: object, **options: object) -> object:
            if threading.get_ident() != thread:
                return hook(*args, **options)
            try:
                outcomes.append(hook(*args, **options))
            except Exception as error:
                outcomes.append(error)
                raise
            return outcomes[-1]

        return note

    classify, normalize = noting(kind.classify_error), noting(kind.normalize_response)
    with patch.object(kind, "classify_error", classify), patch.object(kind, "normalize_response", normalize):
        yield outcomes
