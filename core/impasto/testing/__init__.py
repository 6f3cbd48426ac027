"""For tests of code that uses impasto, and of plugins: the suite that a model must pass, and what it is told with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recorder import Answer as Answer, Recorder as Recorder, Seen as Seen, recording as recording
    from .requirements import KEY as KEY, Refusal as Refusal, Requirements as Requirements
    from .suite import OperationSuite as OperationSuite

_HOMES = {
    "Answer": "recorder",
    "KEY": "requirements",
    "OperationSuite": "suite",
    "Recorder": "recorder",
    "Refusal": "requirements",
    "Requirements": "requirements",
    "Seen": "recorder",
    "recording": "recorder",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # the names are those above


if not TYPE_CHECKING:  # type checkers have the names above

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'impasto.testing' has no attribute {name!r}")
        return getattr(import_module(f"impasto.testing.{_HOMES[name]}"), name)
