"""What ends a run early: budgets, failures, deadlines, keys that die, signals. What is left is made by the next run."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from impasto import (
    ChargeUnknown,
    Client,
    Cost,
    ImpastoError,
    NotSent,
    PollExpired,
    Retry,
    UnusableResult,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto_plugins.batch.cli import run as run_module
from impasto_plugins.batch.runner import concurrency
from impasto_plugins.batch.runner.limits import MAX_CONSECUTIVE_UNKNOWN, MIN_FINISHED, FailureLimit, StopConditions
from impasto_plugins.batch.tasks import ImageTask, Outcome, OutcomeState
from impasto_plugins.emulator import Emulator
from impasto_plugins.transports.https import HttpsTransport
from tests.conftest import KEY
from tests.images import png
from tests.plugins.batch.conftest import CREATIVE, Run, Start, Write, codes, ledger_rows, lines, many, row

pytestmark = pytest.mark.waits


def status(batch: Run) -> dict[str, object]:
    found: dict[str, object] = json.loads(batch("status", "out", "--json").stdout)
    return found


def test_a_budget_is_never_passed(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(12))
    first = batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.10")
    assert first.exit_code == 1
    assert len(impasto_emulator.charges) == 3
    assert "Stopped: the budget of 0.10 USD is used up: 0.01 is left, and an image of" in first.stderr
    assert {name: status(batch)[name] for name in ("state", "done", "pending", "cost_usd")} == {
        "state": "stopped",
        "done": 3,
        "pending": 9,
        "cost_usd": 0.09,
    }
    assert batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.10").exit_code == 1
    assert len(impasto_emulator.charges) == 3, "the budget is the folder's, not the run's"
    assert batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.36").exit_code == 0
    assert len(impasto_emulator.charges) == 12


def test_a_possible_charge_counts_as_spent(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=502, body="html", times=2)
    manifest(*many(12))
    assert batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.12").exit_code == 1
    assert (status(batch)["ambiguous"], status(batch)["done"], status(batch)["cost_usd"]) == (2, 2, 0.12)


@pytest.mark.parametrize(
    ("text", "failed", "through", "met"),
    [
        ("3", 3, 3, False),
        ("3", 4, 4, True),
        ("0", 1, 1, True),
        ("5%", 1, MIN_FINISHED, False),
        ("5%", 2, MIN_FINISHED, True),
        ("5%", MIN_FINISHED - 1, MIN_FINISHED - 1, False),
        ("0%", 1, 100, True),
        ("100%", 100, 100, False),
        ("2.5%", 3, 100, True),
    ],
)
def test_the_failure_limit(text: str, failed: int, through: int, met: bool) -> None:
    assert FailureLimit.parse(text).is_exceeded(failed, through) is met
    assert str(FailureLimit.parse(text)) == text


def test_too_many_failures(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(60, prompt="a [public_figure]"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--max-failures", "4", "--concurrency", "2")
    assert done.exit_code == 1
    assert "images failed; --max-failures is 4" in done.stderr
    assert 5 <= len(impasto_emulator.requests) <= 7


def test_f22_a_provider_behind_a_broken_proxy_is_left_alone(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=502, body="html")
    manifest(*many(200))
    done = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "4")
    assert done.exit_code == 1
    assert "20 images in a row may have been charged" in done.stderr
    assert 20 <= len(impasto_emulator.requests) <= 24


@pytest.mark.parametrize(("code", "message"), [(401, "unauthorized"), (402, "payment_required")])
def test_f23_a_key_that_dies_leaves_the_rest_untouched(
    batch: Run, manifest: Write, impasto_emulator: Emulator, code: int, message: str
) -> None:
    manifest(*many(60))
    batch("run", "manifest.jsonl", "--out", "out", "--budget", "0.30")
    impasto_emulator.fault("status", status=code)
    done = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "4")
    assert done.exit_code == 1
    assert len(impasto_emulator.requests) <= 10 + 4
    assert codes(Path("out")) == {message}
    impasto_emulator.clear_faults()
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 60


def test_a_deadline_holds_while_the_provider_is_away(batch: Run, manifest: Write) -> None:
    manifest(*many(3))
    away = {"STABILITY_API_BASE": "http://127.0.0.1:9"}
    done = batch("run", "manifest.jsonl", "--out", "out", "--deadline", "1s", **away)
    assert done.exit_code == 1
    assert "the --deadline is over" in done.stderr


def test_a_deadline(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.3)
    manifest(*many(12))
    done = batch("run", "manifest.jsonl", "--out", "out", "--deadline", "0.5", "--concurrency", "2")
    assert done.exit_code == 1
    assert "the --deadline is over" in done.stderr
    found = status(batch)
    assert len(impasto_emulator.charges) < 12
    assert found["done"] == len(impasto_emulator.charges), "what was in flight was waited for"


def test_a_manifest_that_changes_during_the_run_cancels_no_image_in_flight(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=0.3, target="/v2beta/")
    path = manifest(*many(20))  # more than are read at a time
    run = start("run", "manifest.jsonl", "--out", "out", "--concurrency", "4")
    wait_for(Path("out"), "intent", 1)
    path.write_text(path.read_text() + json.dumps(row("late", seed=99)) + "\n")
    _, warned = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Traceback" not in warned
    assert "Stopped: the manifest changed during the run; run it again" in warned
    found = status(batch)
    assert (found["done"], found["ambiguous"]) == (len(impasto_emulator.charges), 0)
    impasto_emulator.clear_faults()
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 21


UNIT = ImageTask(id="a", index=0, n=1, model="m", cost=Cost(usd=0.1, as_of=""))


def outcome(state: OutcomeState, error: ImpastoError | None = None) -> Outcome:
    charged = error is None or error.billed != "no"
    return Outcome(id="a", index=0, model="m", state=state, error=error, cost=UNIT.cost if charged else None)


@pytest.mark.parametrize(
    ("came", "admitted"),
    [
        (outcome("done"), 2),
        (outcome("ambiguous", ChargeUnknown("lost")), 2),
        (outcome("unusable", UnusableResult("cut")), 2),
        (outcome("refused", ChargeUnknown("lost")), 2),
        (outcome("refused", NotSent("away")), 10),
    ],
    ids=["done", "ambiguous", "unusable", "charged and refused", "not sent"],
)
def test_whatever_may_have_been_charged_counts_against_the_budget(came: Outcome, admitted: int) -> None:
    stops = StopConditions(budget=0.25)
    for number in range(10):
        if not stops.try_reserve(UNIT):
            assert (number, stops.kind) == (admitted, "budget")
            break
        stops.settle(UNIT, came)
    else:
        assert admitted == 10


def test_reservations_for_images_in_flight_count_against_the_budget_until_these_end() -> None:
    stops = StopConditions(budget=0.25)
    assert stops.try_reserve(UNIT)
    assert stops.try_reserve(UNIT)
    stops.release(UNIT)  # nothing of it could be sent: it is asked for again
    assert stops.try_reserve(UNIT)
    assert not stops.try_reserve(UNIT)


def test_a_share_of_failures_is_one_of_the_finished_images() -> None:
    stops = StopConditions(max_failures=FailureLimit.parse("50%"))
    for _ in range(MIN_FINISHED // 2):
        stops.settle(UNIT, outcome("done"))
        stops.settle(UNIT, outcome("refused", NotSent("away")))
    assert stops.reason is None
    stops.settle(UNIT, outcome("refused", NotSent("away")))
    assert stops.reason == "11 of 21 images failed; --max-failures is 50%"


def test_unknown_outcomes_that_lie_apart_stop_nothing() -> None:
    stops = StopConditions()
    for _ in range(MAX_CONSECUTIVE_UNKNOWN):
        stops.settle(UNIT, outcome("ambiguous", ChargeUnknown("lost")))
        stops.settle(UNIT, outcome("done"))
    assert stops.reason is None
    for _ in range(MAX_CONSECUTIVE_UNKNOWN):
        stops.settle(UNIT, outcome("ambiguous", ChargeUnknown("lost")))
    assert stops.kind == "max_failures"


@pytest.mark.parametrize(
    ("states", "billed"),
    [
        ([outcome("refused", NotSent("away"))], "no"),
        ([outcome("refused", NotSent("away")), outcome("done")], "yes"),
        ([outcome("ambiguous", ChargeUnknown("lost")), outcome("done")], "unknown"),
        ([outcome("done"), outcome("expired", PollExpired("late"))], "unknown"),
    ],
)
def test_a_stop_says_whether_anything_was_charged(states: list[Outcome], billed: str) -> None:
    stops = StopConditions()
    assert stops.error() is None
    for each in states:
        stops.settle(UNIT, each)
    stops.stop("enough", "budget")
    error = stops.error()
    assert error is not None
    assert (error.billed, error.reason) == (billed, "budget")


def wait_for(out: Path, kind: str, number: int) -> None:
    until = time.monotonic() + 30
    while sum(row["row"] == kind for row in ledger_rows(out)) < number:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGHUP],
        [signal.SIGHUP, signal.SIGHUP, signal.SIGHUP],
        [signal.SIGTERM, signal.SIGHUP],
    ],
    ids=lambda each: "+".join(one.name for one in each),
)
def test_a_signal_waits_for_what_is_in_flight(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator, signals: list[signal.Signals]
) -> None:
    impasto_emulator.fault("delay", seconds=0.7)
    manifest(*many(40))
    run = start("run", "manifest.jsonl", "--out", "out", "--concurrency", "4")
    wait_for(Path("out"), "intent", 4)
    for each in signals:
        run.send_signal(each)
        time.sleep(0.05)  # so that the system does not make one of two
    output, warned = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "Stopped: interrupted" in warned
    found = status(batch)
    assert found["state"] == "stopped"
    assert (found["done"], found["ambiguous"]) == (len(impasto_emulator.charges), 0)
    assert 4 <= len(impasto_emulator.charges) < 40
    assert output.startswith(f"stopped: {found['done']} of 40 done")
    assert len(lines(Path("out/results.jsonl"))) == found["done"]


def test_ctrl_c_twice_stops_at_once_and_says_what_may_have_been_charged(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    impasto_emulator.fault("delay", seconds=60, target="/v2beta/stable-image/generate")
    (tmp_path / "small.png").write_bytes(png(64, 64))
    manifest(*many(3), row("job", model=CREATIVE, image="small.png", seed=9))
    run = start("run", "manifest.jsonl", "--out", "out", IMPASTO_POLL_INTERVAL="60")
    wait_for(Path("out"), "intent", 4)
    wait_for(Path("out"), "accepted", 1)
    run.send_signal(signal.SIGINT)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    run.communicate(timeout=30)
    assert run.returncode == 130
    assert time.monotonic() - began < 20
    found = status(batch)
    assert (found["ambiguous"], found["pending"], found["in_flight"]) == (3, 1, 1)
    assert codes(Path("out")) == {"charge_unknown"}
    impasto_emulator.clear_faults()
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert (status(batch)["done"], status(batch)["ambiguous"]) == (1, 3), "the job was fetched, the others left alone"
    assert [charge.seed for charge in impasto_emulator.charges if charge.seed == 9] == [9]


@pytest.mark.parametrize("as_json", [False, True])
def test_an_outage_is_waited_out_and_named(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator, as_json: bool
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        manifest(*many(6))
        to = f"http://127.0.0.1:{port}"
        words = ["--api-base", to, "--budget", "0.18", *(["--json"] if as_json else [])]
        run = start("run", "manifest.jsonl", "--out", "out", *words)
        stream = run.stdout if as_json else run.stderr
        assert stream is not None
        begin = next(line for line in stream if "can't reach" in line)  # at once, before any image is given up
        assert f"can't reach {to}: " in begin
        assert "Connection refused" in begin
        assert "; trying again for up to 10 minutes, Ctrl-C stops" in begin
        if as_json:
            assert json.loads(begin)["event"] == "note"
        wait_for(Path("out"), "refused", 6)
    # the provider comes up at that port
    from impasto_plugins.emulator import EmulatorSettings, serve

    with serve(EmulatorSettings(port=port, image_scale=0.02)) as provider:
        output, errors = run.communicate(timeout=60)
        rest = output if as_json else errors
        assert "can't reach" not in rest, "once for each outage"
        assert rest.count(f"{to} can be reached again") == 1
        assert KEY not in begin + output + errors
        assert run.returncode == 0
        assert len(provider.charges) == 6, "what was not sent uses up none of the budget"
        first = provider.requests[0]
        assert (first.method, first.target) == ("GET", "/v1/user/balance"), "what is free is asked before what is paid"
    assert math.isclose(float(str(status(batch)["cost_usd"])), 0.18)


async def test_client_batch_logs_an_outage_and_its_end(
    impasto_emulator: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    @hookimpl
    async def refuse_once(self: HttpsTransport, wire: WireRequest) -> WireResponse:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise NotSent(f"no connection (nobody took {KEY}); nothing was sent")
        return await send(self, wire)

    send = HttpsTransport.send
    monkeypatch.setattr(HttpsTransport, "send", refuse_once)
    async with Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        states = [outcome.state async for outcome in client.batch(many(2))]
    assert states == ["done", "done"]
    begin, end = (record.message for record in caplog.records if "reach" in record.message)
    assert begin.startswith(f"can't reach {impasto_emulator.url}: no connection (nobody took ")
    assert begin.endswith("; trying again for up to 10 minutes")
    assert KEY not in begin
    assert end == f"{impasto_emulator.url} can be reached again"


def test_a_run_that_gives_an_outage_up_names_the_reason(
    batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr(run_module, "RETRY", Retry(attempts=1))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        to = f"http://127.0.0.1:{closed.getsockname()[1]}"
        manifest(row("a"))
        done = batch("run", "manifest.jsonl", "--out", "out", "--api-base", to)
    assert done.exit_code == 1
    stopped = next(line for line in done.stderr.splitlines() if line.startswith("Stopped: "))
    assert "the provider can't be reached: " in stopped
    assert "Connection refused" in stopped


def test_ctrl_c_in_an_outage_ends_the_run_as_interrupted(start: Start, batch: Run, manifest: Write) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        to = f"http://127.0.0.1:{closed.getsockname()[1]}"
        manifest(row("a"))
        run = start("run", "manifest.jsonl", "--out", "out", "--api-base", to)
        assert any("can't reach" in line for line in run.stderr or ())
        run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert output == "stopped: 0 of 1 done, 1 to request again, charged: 0.00 USD\n", (
        "nothing was sent, nothing is final"
    )
    assert re.search("Stopped: interrupted while the provider could not be reached: .*Connection refused", errors)
    assert batch("status", "out").stdout == output
