"""Killed ten times, a batch pays nothing twice and loses nothing that could be kept.

Hundreds of kills: ``python -m tests.campaigns.kills``.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.campaigns.kills import Figures, at_random
from tests.s3 import pretending_aside


def test_ten_kills(tmp_path: Path) -> None:
    figures = Figures()
    at_random(figures, 10, tmp_path, random.Random(7), pictures=16)
    assert figures.broken == []
    assert figures.kills >= 10
    assert figures.done <= figures.charges <= figures.intents
    assert figures.done + figures.ambiguous == figures.pictures


def test_five_kills_with_a_bucket(tmp_path: Path) -> None:
    figures = Figures()
    with pretending_aside() as s3:
        at_random(figures, 5, tmp_path, random.Random(7), pictures=12, s3=s3)
    assert figures.broken == []
    assert figures.kills >= 5
    assert figures.done + figures.ambiguous == figures.pictures
