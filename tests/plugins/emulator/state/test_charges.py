"""The account: requests, charges, the balance, and how fast a key asks."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from tests.plugins.emulator.conftest import CREATIVE, GENERATE, INPAINT, KEY, SD3, Clock, Wire, plain, started

PROMPT = {"prompt": "a lighthouse"}


async def test_every_request_is_recorded(wire: Wire) -> None:
    image = plain((80, 64))
    await wire.post(INPAINT, {**PROMPT, "image": image, "seed": 3})
    await wire.post(GENERATE, {})
    payload = json.loads((await wire.get("/_emulator/requests"))[2])
    first, second = payload["requests"]
    assert payload["count"] == 2
    assert (first["method"], first["target"], first["status"]) == ("POST", INPAINT, 200)
    assert first["fields"] == {"prompt": "a lighthouse", "seed": "3"}
    assert first["files"] == {
        "image": {
            "filename": "image.png",
            "declared": "image/png",
            "media_type": "image/png",
            "bytes": len(image),
            "sha256": hashlib.sha256(image).hexdigest(),
            "width": 80,
            "height": 64,
        }
    }
    assert first["charged"] == 5
    assert first["seconds"] > 0
    assert (second["status"], second["charged"]) == (400, None)


async def test_the_key_is_stored_nowhere(wire: Wire) -> None:
    await wire.post(GENERATE, PROMPT)
    for path in ("/_emulator/requests", "/_emulator/charges"):
        body = (await wire.get(path))[2].decode()
        assert KEY not in body
        assert "authorization" not in body
        assert hashlib.sha256(KEY.encode()).hexdigest()[:12] in body
    assert KEY not in repr(wire.emulator.requests)


async def test_charges_add_up(wire: Wire) -> None:
    await wire.post(SD3, {**PROMPT, "model": "sd3.5-medium", "seed": 9})
    await wire.post(CREATIVE, {**PROMPT, "image": plain()})
    payload = json.loads((await wire.get("/_emulator/charges"))[2])
    assert (payload["count"], payload["credits"], payload["usd"]) == (2, 63.5, 0.635)
    first = payload["charges"][0]
    assert (first["operation"], first["seed"], first["finish_reason"]) == ("stability/sd3.5-medium", 9, "SUCCESS")
    assert first["request_id"] == wire.emulator.requests[0].id
    assert payload["lockouts"] == {"count": 0, "retriggered": 0, "refused": 0}


async def test_v1_returns_the_account(wire: Wire) -> None:
    await wire.post(GENERATE, PROMPT)
    assert json.loads((await wire.get("/v1/user/balance"))[2]) == {"credits": 999_997.0}
    account = json.loads((await wire.get("/v1/user/account"))[2])
    assert account["organizations"][0].keys() == {"id", "name", "role", "is_default"}
    engines = json.loads((await wire.get("/v1/engines/list"))[2])
    assert all(engine.keys() == {"id", "name", "description", "type"} for engine in engines)
    status, _, body = await wire.get("/v1/user/balance", key=None)
    assert (status, json.loads(body)["name"]) == (401, "unauthorized")
    assert json.loads(body).keys() == {"id", "name", "message"}


async def test_an_account_without_credits_is_402_also_for_parallel_calls() -> None:
    async with started(credits=10) as wire:
        answers = await asyncio.gather(*(wire.post(GENERATE, PROMPT) for _ in range(8)))
        statuses = sorted(status for status, _, _ in answers)
        assert statuses == [200] * 3 + [402] * 5
        assert wire.emulator.credits == 9
        refused = next(body for status, _, body in answers if status == 402)
        assert json.loads(refused)["name"] == "payment_required"
        assert json.loads((await wire.get("/v1/user/balance"))[2]) == {"credits": 1.0}


async def test_reset_forgets_everything(wire: Wire) -> None:
    _, _, body = await wire.post(CREATIVE, {**PROMPT, "image": plain()})
    wire.emulator.fault("status")
    assert (await wire.send("POST", "/_emulator/reset"))[0] == 200
    assert (wire.emulator.charges, wire.emulator.requests, wire.emulator.credits) == ([], [], 0)
    assert (await wire.get(f"/v2beta/results/{json.loads(body)['id']}"))[0] == 404
    assert (await wire.post(GENERATE, PROMPT))[0] == 200


async def test_history_is_bounded_and_the_totals_are_not() -> None:
    async with started(history=2) as wire:
        for _ in range(3):
            await wire.post(GENERATE, PROMPT)
        payload = json.loads((await wire.get("/_emulator/charges"))[2])
        assert (payload["count"], payload["credits"], len(payload["charges"])) == (3, 9.0, 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the windows of keys."""
    clock = Clock()
    monkeypatch.setattr("impasto_plugins.emulator.state.charges.time", clock)
    return clock


async def test_the_151st_request_in_the_window_locks_the_key_out(clock: Clock) -> None:
    async with started(rate_seconds=600, lock_seconds=600) as wire:
        for _ in range(150):
            assert (await wire.get("/v1/user/balance"))[0] == 200
        status, headers, body = await wire.post(GENERATE, PROMPT)
        assert status == 429
        assert (json.loads(body)["id"], json.loads(body)["name"]) == ("rate_limit_exceeded", "rate_limit_exceeded")
        assert "retry-after" not in headers
        assert (await wire.post(GENERATE, {}))[0] == 429, "before anything is checked"
        assert (await wire.post(GENERATE, PROMPT, key="sk-another"))[0] == 200, "each key by itself"
        assert (wire.emulator.lockouts, len(wire.emulator.charges)) == (1, 1)
        clock.ahead = 601
        assert (await wire.post(GENERATE, PROMPT))[0] == 200
        payload = json.loads((await wire.get("/_emulator/charges"))[2])
        assert payload["lockouts"] == {"count": 1, "retriggered": 0, "refused": 2}


async def test_a_second_lock_out_counts_as_triggered_again(clock: Clock) -> None:
    async with started(rate_requests=1, rate_seconds=6000, lock_seconds=600, retry_after=True) as wire:
        for _ in range(2):
            await wire.get("/v1/user/balance")
            status, headers, _ = await wire.get("/v1/user/balance")
            assert (status, headers["retry-after"]) == (429, "600")
            clock.ahead += 601
        payload = json.loads((await wire.get("/_emulator/charges"))[2])
        assert payload["lockouts"] == {"count": 2, "retriggered": 1, "refused": 2}


async def test_seeds_repeat_if_the_emulator_has_a_seed() -> None:
    bounds = []
    for _ in range(2):
        async with started(seed=4) as wire:
            bounds.append([(await wire.post(GENERATE, {**PROMPT, "seed": 0}))[1]["seed"] for _ in range(2)])
    assert bounds[0] == bounds[1]
    assert bounds[0][0] != bounds[0][1]
