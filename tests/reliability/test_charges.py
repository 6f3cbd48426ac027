"""The fault rows against the emulator's account: what was sent, what was charged, and what the client said of it.

The last word has the account: an error that says "no" is one of a call that was not charged, and no fault makes
the client pay twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import attrs
import pytest

import impasto
from impasto_plugins.emulator import Emulator, EmulatorSettings
from tests.reliability.conftest import CORE, JOB_MODEL, MakeClient
from tests.reliability.servers import PICTURE

QUICK = EmulatorSettings(image_scale=0.0625, job_seconds=0.05, seed=1, keep_alive_seconds=5)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(QUICK) as it:
        yield it


def posts(emulator: Emulator) -> int:
    return sum(1 for record in emulator.requests if record.method == "POST")


@attrs.frozen(kw_only=True)
class Row:
    """A fault of the emulator, and what must come of it: None is a result."""

    fault: dict[str, object]
    error: type[impasto.ImpastoError] | None
    charges: int
    posts: int = 1
    billed: str = "unknown"


UNKNOWN = impasto.ChargeUnknown
ROWS: dict[str, Row] = {
    "F6 headers in time": Row(fault={"kind": "delay", "seconds": 0.2}, error=None, charges=1),
    "F6 headers too late": Row(fault={"kind": "delay", "seconds": 1.2}, error=UNKNOWN, charges=1),
    "F8 slow body": Row(fault={"kind": "slow", "bytes_per_second": 50_000, "piece": 4096}, error=None, charges=1),
    "F9 dribble": Row(fault={"kind": "slow", "bytes_per_second": 10, "piece": 1}, error=UNKNOWN, charges=1),
    "F10 truncated": Row(fault={"kind": "truncate"}, error=UNKNOWN, charges=1),
    "F12 reset in the body": Row(fault={"kind": "reset", "at": "body", "charged": True}, error=UNKNOWN, charges=1),
    "F12 reset before headers, charged": Row(fault={"kind": "reset", "charged": True}, error=UNKNOWN, charges=1),
    "F12 reset before headers": Row(fault={"kind": "reset"}, error=UNKNOWN, charges=0),
    "closed without an answer": Row(fault={"kind": "close"}, error=UNKNOWN, charges=0),
    "F13 two lengths": Row(fault={"kind": "framing", "wrong": "two-lengths"}, error=UNKNOWN, charges=1),
    "F13 length and chunked": Row(fault={"kind": "framing", "wrong": "length-and-chunked"}, error=UNKNOWN, charges=1),
    "F13 short length": Row(fault={"kind": "framing", "wrong": "short-length"}, error=UNKNOWN, charges=1),
    "cut picture": Row(fault={"kind": "cut"}, error=impasto.UnusableResult, charges=1, billed="yes"),
    "cut picture to the close": Row(
        fault={"kind": "cut", "framing": "close"}, error=impasto.UnusableResult, charges=1, billed="yes"
    ),
    "F15 malformed json": Row(
        fault={"kind": "status", "status": 200, "body": "malformed", "charged": True},
        error=impasto.UnusableResult,
        charges=1,
        billed="yes",
    ),
    "empty picture": Row(
        fault={"kind": "status", "status": 200, "body": "empty", "charged": True},
        error=impasto.UnusableResult,
        charges=1,
        billed="yes",
    ),
    "F18 page for 200": Row(
        fault={"kind": "status", "status": 200, "body": "html", "charged": True}, error=UNKNOWN, charges=1
    ),
    "another media type": Row(fault={"kind": "media-type"}, error=UNKNOWN, charges=1),
    "F21 one 500": Row(fault={"kind": "status", "status": 500, "times": 1}, error=None, charges=1, posts=2),
    "F21 two 503": Row(fault={"kind": "status", "status": 503, "times": 2}, error=None, charges=1, posts=3),
    "F21 always 500": Row(
        fault={"kind": "status", "status": 500}, error=impasto.ProviderFault, charges=0, posts=3, billed="no"
    ),
    **{
        f"F22 {status}": Row(
            fault={"kind": "status", "status": status, "body": "html", "charged": True}, error=UNKNOWN, charges=1
        )
        for status in (408, 502, 504, 520, 521, 522, 523, 524, 529)
    },
    "redirect": Row(
        fault={"kind": "status", "status": 307, "headers": {"location": "/v2beta/elsewhere"}}, error=UNKNOWN, charges=0
    ),
    "F19 one 429": Row(
        fault={"kind": "status", "status": 429, "headers": {"retry-after": "0"}, "times": 1},
        error=None,
        charges=1,
        posts=2,
    ),
    "F28 moderation": Row(
        fault={"kind": "status", "status": 403, "name": "content_moderation"},
        error=impasto.ContentFiltered,
        charges=0,
        billed="no",
    ),
    "F28 filtered": Row(fault={"kind": "filtered"}, error=impasto.ContentFiltered, charges=1),
    "402": Row(fault={"kind": "status", "status": 402}, error=impasto.PaymentRequired, charges=0, billed="no"),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_call(emulator: Emulator, make_client: MakeClient, name: str) -> None:
    row = ROWS[name]
    emulator.fault(target="/v2beta/", **row.fault)  # type: ignore[arg-type]  # kind is among them
    client = make_client(emulator.url, timeout=1.0)
    if row.error is None:
        result = await client.run(CORE, prompt="a lighthouse")
        assert result.artifacts[0].data
    else:
        with pytest.raises(impasto.ImpastoError) as caught:
            await client.run(CORE, prompt="a lighthouse")
        assert type(caught.value) is row.error
        assert caught.value.billed == row.billed
    assert (posts(emulator), len(emulator.charges)) == (row.posts, row.charges)
    if row.billed == "no":
        assert emulator.charges == []


POLLS: dict[str, dict[str, object]] = {
    "F27 500": {"kind": "status", "status": 500, "times": 2},
    "F27 page": {"kind": "status", "status": 502, "body": "html", "times": 2},
    "F27 reset": {"kind": "reset", "times": 2},
    "F27 closed": {"kind": "close", "times": 2},
    "F27 truncated": {"kind": "truncate", "times": 2},
    "F27 cut": {"kind": "cut", "times": 2},
    "F27 malformed": {"kind": "status", "status": 200, "body": "malformed", "times": 2},
    "F27 429": {"kind": "status", "status": 429, "times": 1, "headers": {"retry-after": "0"}},
}


@pytest.mark.parametrize("name", POLLS)
async def test_a_job_survives_its_polls(emulator: Emulator, make_client: MakeClient, name: str) -> None:
    emulator.fault(method="GET", **POLLS[name])  # type: ignore[arg-type]  # kind is among them
    result = await make_client(emulator.url).run(JOB_MODEL, prompt="p", image=PICTURE)
    assert result.artifacts[0].data
    assert (posts(emulator), len(emulator.charges)) == (1, 1)


async def test_f25_a_job_that_never_ends_can_be_taken_up(emulator: Emulator, make_client: MakeClient) -> None:
    emulator.fault("pending", method="GET")
    client = make_client(emulator.url, timeout=0.3)
    with pytest.raises(impasto.ChargeUnknown) as caught:
        await client.run(JOB_MODEL, prompt="p", image=PICTURE)
    emulator.clear_faults()
    assert caught.value.id is not None
    assert (await client.resume(JOB_MODEL, caught.value.id)).artifacts[0].data
    assert (posts(emulator), len(emulator.charges)) == (1, 1)
    stranger = make_client(emulator.url, api_key="sk-somebody-else-0123456789")
    with pytest.raises(impasto.NotFound, match="another key"):
        await stranger.resume(JOB_MODEL, caught.value.id)


async def test_f30_half_of_all_answers_are_faults(emulator: Emulator, make_client: MakeClient) -> None:
    """Sixty calls meet an outage of one half: retries keep to their budget, nothing is paid twice."""
    emulator.fault("status", status=503, probability=0.5, seed=3)
    policy = impasto.Retry(base=0.001, cap=0.002, floor=5)
    client = make_client(emulator.url, retry=policy, timeout=30.0)
    outcomes = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(60)), return_exceptions=True)
    came = sum(isinstance(outcome, impasto.Result) for outcome in outcomes)
    assert len(emulator.charges) == came
    assert posts(emulator) <= 60 + 5 + 6


async def test_f32_calls_cancelled_at_random_are_charged_once_at_most(
    emulator: Emulator, make_client: MakeClient
) -> None:
    client = make_client(emulator.url)
    noted = 0
    for step in range(0, 60, 3):
        call = asyncio.ensure_future(client.run(CORE, prompt="p"))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError as cancelled:
            noted += bool(getattr(cancelled, "__notes__", ()))
        else:
            noted += 1
    await asyncio.sleep(0.1)
    assert len(emulator.charges) <= noted  # whatever may have been charged was told
