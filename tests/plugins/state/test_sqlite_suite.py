"""The suite of stores on the default one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from impasto.ext import StateStore
from impasto.testing import StateSuite
from impasto_plugins.state.sqlite import SQLiteState


class TestSQLiteState(StateSuite):
    state_type: ClassVar[type[StateStore] | None] = SQLiteState

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return str(tmp_path / "state")

    def set_clock(self, state: StateStore, seconds: float) -> None:
        assert isinstance(state, SQLiteState)
        state.database.clock = lambda: time.time() + seconds

    @contextmanager
    def outage(self, address: str) -> Iterator[None]:
        folder, away = Path(address), Path(f"{address}-away")
        folder.rename(away)
        yield
        away.rename(folder)
