"""Tests for plugins, and for code that uses impasto: the suite that every model must pass, a recorder, fixtures."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .middleware_suite import MiddlewareSuite as MiddlewareSuite
    from .recorder import (
        Answer as Answer,
        RecordedRequest as RecordedRequest,
        Recorder as Recorder,
        recording as recording,
    )
    from .state_suite import StateSuite as StateSuite
    from .subject import (
        KEY as KEY,
        Refusal as Refusal,
        Requirements as Requirements,
        Scenario as Scenario,
        Stream as Stream,
    )
    from .suite import OperationSuite as OperationSuite
    from .transport_suite import TransportSuite as TransportSuite

_HOMES = {
    "Answer": "recorder",
    "KEY": "subject",
    "MiddlewareSuite": "middleware_suite",
    "OperationSuite": "suite",
    "Recorder": "recorder",
    "Refusal": "subject",
    "Requirements": "subject",
    "RecordedRequest": "recorder",
    "Scenario": "subject",
    "StateSuite": "state_suite",
    "Stream": "subject",
    "TransportSuite": "transport_suite",
    "recording": "recorder",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # the names are those above


if not TYPE_CHECKING:  # type checkers have the names above

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'impasto.testing' has no attribute {name!r}")
        return getattr(import_module(f"impasto.testing.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
