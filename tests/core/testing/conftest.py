"""A check that fails or measures memory looks through all objects: those of other tests are none of its business."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def only_its_own_objects() -> Iterator[None]:
    """Exempt what there is from a test's garbage collections: a session within the test has a dozen, of 0.1 s each."""
    gc.freeze()
    yield
    gc.collect()
