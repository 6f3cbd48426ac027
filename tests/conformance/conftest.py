"""The suite's checks of memory and open files collect garbage: that of other models is none of their business."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="class")
def only_its_own_objects() -> None:
    """Exempt what there is from a model's garbage collections."""
    gc.freeze()
