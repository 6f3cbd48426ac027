"""What checks of the kit share with the whole process: its garbage, and a watch that a hanging check leaves behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from impasto import Operation


@pytest.fixture(autouse=True)
def only_its_own_objects() -> Iterator[None]:
    """Exempt what there is from a test's garbage collections: a session within the test has a dozen, of 0.1 s each."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_watch_of_a_check_that_hangs() -> Iterator[None]:
    """Take the watch of hooks from the class of all operations: a thread that hangs never does."""
    hooks = {name: getattr(Operation, name) for name in ("classify_error", "normalize_response")}
    with patch.multiple(Operation, **hooks):
        yield
