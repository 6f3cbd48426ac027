"""Suites made for many models at once."""

from __future__ import annotations

from impasto import Operation


def class_name(operation: Operation) -> str:
    """``TestStabilityStableImageCore``."""
    return "Test" + "".join(filter(str.isalnum, operation.id.title()))
