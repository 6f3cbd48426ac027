"""``client.stability``: balance, owner and engines."""

from __future__ import annotations

import pytest

import impasto
from impasto import ConfigError, InvalidRequest, TransportError, Unauthorized
from impasto_plugins.emulator import SHORT, Emulator
from impasto_plugins.stability.account import Balance, Engine, Organization, Owner
from tests.recorder import Answer, Recorder, in_json

OWNER = {
    "id": "user-1",
    "email": "ann@example.com",
    "organizations": [{"id": "org-1", "name": "Studio", "role": "OWNER", "is_default": True}],
    "profile_picture": "https://example.com/a.png",
}
ENGINE = {"id": "sdxl", "name": "SDXL", "description": "XL", "type": "PICTURE"}


async def test_each_call_is_a_get_with_the_key(client: impasto.Client, recorder: Recorder) -> None:
    payload = {"/v1/user/balance": {"credits": 12.5}, "/v1/user/account": OWNER, "/v1/engines/list": [ENGINE]}
    recorder.answer = lambda request: in_json(payload[request.path])
    assert isinstance(client.stability, impasto.StabilityAccount)
    balance = await client.stability.balance()
    assert (balance, balance.usd) == (Balance(credits=12.5), 0.125)
    assert await client.stability.account() == Owner(
        id="user-1",
        email="ann@example.com",
        organizations=(Organization(id="org-1", name="Studio", role="OWNER", is_default=True),),
        profile_picture="https://example.com/a.png",
    )
    assert await client.stability.engines() == (Engine(**ENGINE),)
    for request in recorder.requests:
        assert (request.method, request.body) == ("GET", b"")
        assert (request.header("authorization") or "").startswith("Bearer sk-")
        assert request.header("organization") is None


async def test_an_organization_can_be_named(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda request: in_json({"credits": 1} if "balance" in request.path else [])
    assert (await client.stability.balance(organization="org-7")).credits == 1
    assert await client.stability.engines(organization="org-7") == ()
    assert [request.header("organization") for request in recorder.requests] == ["org-7", "org-7"]
    for wrong in ("", "a\r\nx: y", "\xe9", "x" * 257, 7):
        with pytest.raises(InvalidRequest, match="organization"):
            await client.stability.balance(organization=wrong)  # type: ignore[arg-type]  # what the test is about
    assert len(recorder.requests) == 2


async def test_unknown_keys_of_the_vendor_are_ignored(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: in_json({"credits": 3, "currency": "none"})
    assert (await client.stability.balance()).credits == 3


async def test_a_wrong_key_is_reported_without_the_key(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: in_json({"id": "1", "name": "unauthorized", "message": "sk-tests"}, status=401)
    with pytest.raises(Unauthorized, match="check STABILITY_API_KEY") as caught:
        await client.stability.account()
    assert "sk-tests" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=502, headers={"content-type": "text/html"}, body=b"<h1>Bad gateway</h1>"),
        Answer(headers={"content-type": "text/html"}, body=b"<h1>Hello</h1>"),
        Answer(headers={"content-type": "application/json"}, body=b"{"),
        in_json([]),
        in_json({"credit": 3}),
        in_json({"credits": "many"}),
        in_json(None),
    ],
)
async def test_any_other_answer_is_an_error_that_cost_nothing(
    client: impasto.Client, recorder: Recorder, answer: Answer
) -> None:
    recorder.answer = lambda _: answer
    with pytest.raises(TransportError) as caught:
        await client.stability.balance()
    assert caught.value.billed == "no"
    assert "html" not in str(caught.value)
    assert "<h1>" not in str(caught.value)


async def test_nothing_is_sent_without_a_key() -> None:
    async with impasto.Client() as client:
        with pytest.raises(ConfigError, match="STABILITY_API_KEY"):
            await client.stability.balance()


async def test_faults_of_the_exchange_cost_nothing() -> None:
    async with Emulator(SHORT) as emulator, impasto.Client(api_base=emulator.url, api_key="k") as client:
        before = await client.stability.balance()
        await client.run("stability/stable-image-core", prompt="a boat")
        assert (await client.stability.balance()).credits == before.credits - 3
        for fault in ("reset", "close"):
            emulator.fault(fault)
            with pytest.raises(TransportError) as caught:
                await client.stability.balance()
            assert (caught.value.billed, caught.value.retryable) == ("no", True)
            emulator.clear_faults()
        emulator.fault("truncate")
        with pytest.raises(TransportError, match="this request is free") as caught:
            await client.stability.balance()
        assert (caught.value.billed, caught.value.retryable) == ("no", True)
        assert len(emulator.charges) == 1


async def test_the_emulator_has_an_account() -> None:
    async with impasto.Client(transport="emulator") as client:
        assert (await client.stability.account()).organizations[0].is_default
        assert len(await client.stability.engines()) == 2
        assert client.models().count("stability.balance") == 0
