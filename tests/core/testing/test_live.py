"""The paid half of the suite, with an emulator in the provider's place."""

from __future__ import annotations

import pytest

from impasto_plugins.emulator import Emulator
from tests.core.testing.sessions import run_session

pytest_plugins = ["pytester"]

SUITE = """
from impasto.testing import OperationSuite


class TestCore(OperationSuite):
    model = "stability/stable-image-core"
    minimal = {"prompt": "a lighthouse"}
    reports = {"seed": 7}
    live_most_usd = MOST
"""


CASES = {
    "not wanted": ("0.10", (), 0, "pytest --impasto-live makes this call"),
    "wanted": ("0.10", ("--impasto-live",), 1, "stability/stable-image-core: about to spend 0.03 USD"),
    "too dear": ("0.01", ("--impasto-live",), 0, "the estimate is 0.03 USD, live_most_usd is 0.01: nothing was sent"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_paid_call_is_made_if_it_is_wanted_and_cheap(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator, case: str
) -> None:
    most, words, charges, says = CASES[case]
    monkeypatch.setenv("STABILITY_API_BASE", impasto_emulator.url)
    monkeypatch.setenv("STABILITY_API_KEY", "sk-live")
    pytester.makepyfile(test_live=SUITE.replace("MOST", most))
    ran = run_session(pytester, "-rs", "-k", "live_call", *words)
    assert len(impasto_emulator.charges) == charges
    text = ran.stdout.str()
    assert says in text
    assert ("spent 0.03 USD" in text) == bool(charges)
    assert ran.parseoutcomes()["passed" if charges else "skipped"] == 1
