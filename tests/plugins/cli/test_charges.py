"""A failed call says if it was charged."""

from __future__ import annotations

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.cli.conftest import Run

MODEL = "stability/stable-image-core"


@pytest.mark.parametrize(("status", "name"), [(402, "payment_required"), (403, "content_moderation")])
def test_a_refused_call_cost_nothing(run: Run, impasto_emulator: Emulator, status: int, name: str) -> None:
    impasto_emulator.fault("status", status=status, name=name)
    assert run("generate", MODEL, "a lighthouse").stderr.splitlines()[-1] == "Nothing was charged."
    assert impasto_emulator.charges == []


def test_a_blurred_image_may_have_been_charged(run: Run) -> None:
    assert "may have been charged" in run("generate", MODEL, "[content_filtered]").stderr
