"""A user in front of a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.conftest import KEY


@pytest.fixture
def environment(impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a user whose provider is the emulator; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    return {
        "STABILITY_API_KEY": KEY,
        "STABILITY_API_BASE": impasto_emulator.url,
        "IMPASTO_POLL_INTERVAL": "0.05",
    }
