"""Each of many defects of a store is caught by the check for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from impasto.ext import StateStore
from tests.plugins.state.defects import DEFECTS
from tests.plugins.state.test_sqlite_suite import TestSQLiteState as Suite


@pytest.fixture
def blocking_is_possible(nothing_blocks_the_loop: BlockBuster) -> Iterator[None]:
    """Other people's tests have no guard of ours."""
    nothing_blocks_the_loop.deactivate()
    yield
    nothing_blocks_the_loop.activate()


@pytest.mark.usefixtures("blocking_is_possible")
@pytest.mark.parametrize(("defect", "check", "says"), DEFECTS, ids=[defect.__name__ for defect, _, _ in DEFECTS])
def test_a_defect_is_caught(defect: type[StateStore], check: str, says: str, tmp_path: Path) -> None:
    class Defective(Suite):
        __test__ = False
        state_type = defect

    with pytest.raises(AssertionError, match=says):
        getattr(Defective(), f"test_{check}")(str(tmp_path / "state"))
