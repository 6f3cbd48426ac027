"""The data directory, which several workers make and use at once."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.gateway.storage.database import Database


class Watched(sqlite3.Connection):
    """Counts how many are being opened."""

    opening = most = 0

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        done = super().executescript(script)
        Watched.opening -= 1
        return done


def test_workers_that_begin_at_once_make_it_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite waits for another's lock, but not where it turns a new file to its log: one of them would fail then."""
    connect = sqlite3.connect

    def slow(*args: Any, **options: Any) -> sqlite3.Connection:
        Watched.opening += 1
        Watched.most = max(Watched.most, Watched.opening)
        time.sleep(0.02)
        return connect(*args, factory=Watched, **options)

    monkeypatch.setattr("impasto_plugins.gateway.storage.database.sqlite3.connect", slow)

    def begin(number: int) -> None:
        data = Database(tmp_path / "data")
        data.transact(lambda db: db.execute("INSERT INTO used VALUES (?, 'x', 1, 1)", (b"%d" % number,)))
        data._close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    data = Database(tmp_path / "data")
    assert data.transact(lambda db: db.execute("SELECT count(*) FROM used").fetchone()) == (4,)
    data._close()
    assert Watched.most == 1
