"""Each of many defects of a store is caught by the check for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from impasto.ext import StateStore
from tests.plugins.state.defects import DEFECTS
from tests.plugins.state.test_sqlite_suite import TestSQLiteState as Suite


@pytest.mark.parametrize(("defect", "check", "says"), DEFECTS, ids=[defect.__name__ for defect, _, _ in DEFECTS])
def test_a_defect_is_caught(defect: type[StateStore], check: str, says: str, tmp_path: Path) -> None:
    class Defective(Suite):
        __test__ = False
        state_type = defect

    with pytest.raises(AssertionError, match=says):
        getattr(Defective(), f"test_{check}")(str(tmp_path / "state"))
