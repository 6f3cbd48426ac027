"""Killed ten times, a batch pays nothing twice and loses nothing that could be kept.

Hundreds of kills: ``python -m tests.campaigns.kills``.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.campaigns.kills import Figures, at_random


def test_ten_kills(tmp_path: Path) -> None:
    figures = Figures()
    at_random(figures, 10, tmp_path, random.Random(7), pictures=16)
    assert figures.broken == []
    assert figures.kills >= 10
    assert figures.done <= figures.charges <= figures.intents
    assert figures.done + figures.ambiguous == figures.pictures
