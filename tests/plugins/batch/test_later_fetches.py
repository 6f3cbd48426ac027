"""Images that were charged, and that their host refuses: later runs fetch them, and request nothing again."""

from __future__ import annotations

import json
import time

import pytest

from .conftest import Run, Write, lines
from .test_native_n import OUT, Vendor, check_signed, several, vendor as vendor  # noqa: PLC0414 - a fixture


@pytest.mark.parametrize(("n", "refused"), [(4, {1, 3}), (1, {0})])
def test_a_paid_image_that_its_host_refuses_is_fetched_by_the_next_run(
    batch: Run, manifest: Write, vendor: type[Vendor], n: int, refused: set[int]
) -> None:
    manifest(several("cat", n, "signed", seed=1))
    vendor.refused = refused
    number = len(refused)
    for _ in range(2):  # as often as it is refused
        done = batch("run", "manifest.jsonl", "--out", "out")
        assert done.exit_code == 1
        left = f"{number} pending, {number} charged and not fetched yet (run again to fetch)"
        assert done.stdout == f"stopped: {n - number} of {n} done, {left}, charged: 0.20 USD\n"
        assert "could not be fetched: HTTP 403; it was charged; the next run fetches it" in done.stderr
        assert "resume" not in done.stderr
        status = json.loads(batch("status", "out", "--json").stdout)
        assert {name: status[name] for name in ("done", "unusable", "pending", "unfetched", "charges_unknown")} == {
            "done": n - number, "unusable": 0, "pending": number, "unfetched": number, "charges_unknown": 0
        }  # fmt: skip
        assert status["cost_usd"] == pytest.approx(0.2)
        assert not lines(OUT / "errors.jsonl")
        report = (OUT / "report.html").read_text()
        assert "charged and not fetched yet; run the batch again to fetch" in report
    vendor.refused = set()
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, done.stdout) == (0, f"complete: {n} of {n} done, charged: 0.20 USD\n")
    assert len(vendor.posts) == 1
    check_signed(n)


@pytest.mark.parametrize("passed", [False, True], ids=["the clock was set", "the time has passed"])
def test_a_paid_image_is_given_up_only_if_the_time_of_its_address_has_passed(
    batch: Run, manifest: Write, vendor: type[Vendor], monkeypatch: pytest.MonkeyPatch, passed: bool
) -> None:
    manifest(several("cat", 1, "signed", seed=1))
    vendor.refused = {0}
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    wall, boot, day = time.time, time.clock_gettime, 86_400.0
    monkeypatch.setattr(time, "time", lambda: wall() + day)
    if passed:
        monkeypatch.setattr(time, "clock_gettime", lambda clock: boot(clock) + day)
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert ("1 charged and not fetched yet" in done.stdout) is not passed
    vendor.refused = set()
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, len(vendor.posts)) == (1 if passed else 0, 1)
    assert ("not_fetched" in (OUT / "errors.jsonl").read_text()) is passed
