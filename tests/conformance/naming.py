"""Suites made for many models at once."""

from __future__ import annotations

from typing import Any

from impasto import Operation
from tests.oracle.contract import EVERY, Contract

_BY_MODEL = {model: contract for contract in EVERY for model in contract.models}


def class_name(operation: Operation) -> str:
    """``TestStabilityStableImageCore``."""
    return "Test" + "".join(filter(str.isalnum, operation.id.title()))


def contract_of(operation: Operation) -> Contract:
    """Return what the vendor's documents say of a model: an independent statement of it."""
    return _BY_MODEL[operation.id]


def documented(contract: Contract) -> dict[str, Any]:
    """Return the declarations of limits, choices and defaults."""
    fields = contract.fields.items()
    return {
        "limits": {name: (field.least, field.most) for name, field in fields if field.kind in BOUNDED},
        "choices": {name: field.choices for name, field in fields if field.kind == "choice"},
        "defaults": {name: field.default for name, field in fields if field.default is not None},
    }


BOUNDED = ("text", "integer", "number")
