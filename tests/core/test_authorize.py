"""Tokens that expire: one refresh and one free resend after a proven 401, for requests and polls."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    Account,
    Artifact,
    BrokenPlugin,
    Call,
    ChargeUnknown,
    Cost,
    FlatPrice,
    ImpastoError,
    NotSent,
    Operation,
    Pending,
    Provider,
    Registry,
    Request,
    Result,
    Retry,
    Unauthorized,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.dialects import Token, TokenCache
from impasto.fields import text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, recording
from tests.images import png

IMAGE = png(64, 64)
PICTURE = Answer(headers={"content-type": "image/png"}, body=IMAGE)
JSON = {"content-type": "application/json"}
REFUSED = Answer(status=401, headers=JSON, body=b'{"error": "token_expired"}')
ACCEPTED = Answer(headers=JSON, body=b'{"job": "job-1"}')
ONCE = Retry(attempts=1, refused=0)


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")


class Dialect:
    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        if request.job is not None:
            return poll(request.job)
        return WireRequest(target=request.target, fields={"prompt": "a kite"})

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 401 and response.media_type == "application/json":
            return Unauthorized(f"the token {json.loads(response.body)}", status=401)
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))
        return Pending(id="job-1", poll=poll("job-1"), is_ready=True)


def poll(job: str) -> WireRequest:
    return WireRequest(target=f"/jobs/{job}", method="GET", anonymous=job == "signed")


@attrs.define
class Tokens:
    """The vendor's tokens: ``token-1``, ``token-2``, ... ``fails``: an error in place of each."""

    count: int = 0
    lifetime: float = 3600.0
    fails: Exception | None = None
    pause: float = 0.0

    async def fetch(self, account: Account) -> Token:
        self.count += 1
        await asyncio.sleep(self.pause)
        if self.fails is not None:
            raise self.fails
        return Token(f"token-{self.count}", self.lifetime)


@attrs.frozen(kw_only=True, eq=False)
class Cloud(Provider):
    cache: TokenCache

    @hookimpl
    async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await self.cache.get(account, refused=refused)}"}


def operation(tokens: Tokens) -> Operation:
    provider = Cloud(name="cloud", base_url="https://api.cloud.example", cache=TokenCache(tokens.fetch))
    price = FlatPrice(cost=Cost(usd=0.01, as_of="2026-11-01"))
    return Operation(
        id="cloud/x", title="X", params=Params, target="/x", provider=provider, dialect=Dialect(), price=price
    )


@asynccontextmanager
async def client_of(tokens: Tokens, url: str, **settings: Any) -> AsyncIterator[impasto.Client]:
    registry = Registry()
    registry.add(OPERATIONS, "cloud/x", operation(tokens))
    providers = {"cloud": {"api_base": url, **settings.pop("own", {}).get("cloud", {})}}
    async with impasto.Client(registry=registry, providers=providers, timeout=20, **settings) as client:
        yield client


def accepts(*valid: str, then: Answer = PICTURE) -> Callable[[RecordedRequest], Answer]:
    """Return an answer that takes these tokens only, of which the header may come once."""

    def answer(request: RecordedRequest) -> Answer:
        [sent] = [value for name, value in request.headers if name.lower() == "authorization"]
        if sent.removeprefix("Bearer ") not in valid:
            return REFUSED
        return then if request.method == "POST" else PICTURE

    return answer


class Noting(Call):
    calls: list[Noting]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.free: list[ImpastoError] = []
        Noting.calls.append(self)

    def mark_not_charged(self, error: ImpastoError) -> None:
        self.free.append(error)


async def test_a_refused_token_is_replaced_and_the_request_sent_again_for_free() -> None:
    tokens, Noting.calls = Tokens(), []
    async with (
        recording(accepts("token-2")) as api,
        client_of(tokens, api.url, spend_limit_usd=0.015, retry=ONCE) as client,
    ):
        result = await client.invoke("cloud/x", {"prompt": "a kite"}, call=Noting)
    assert (len(api.posts), tokens.count) == (2, 2)
    assert result.artifacts[0].data == IMAGE
    assert (result.cost, result.warnings) == (Cost(usd=0.01, as_of="2026-11-01"), ())
    [call] = Noting.calls
    assert ([type(each) for each in call.free], call.possible_charges, call.unknown_attempts) == ([Unauthorized], 1, 0)


async def test_a_second_refusal_is_the_end_and_costs_nothing() -> None:
    tokens = Tokens()
    async with recording(accepts()) as api, client_of(tokens, api.url) as client:
        with pytest.raises(Unauthorized) as caught:
            await client.run("cloud/x", prompt="a kite")
    assert (len(api.posts), tokens.count, caught.value.billed, caught.value.retryable) == (2, 2, "no", False)


async def test_a_proxys_401_proves_nothing_and_is_not_sent_again() -> None:
    tokens = Tokens()
    page = Answer(status=401, headers={"content-type": "text/html"}, body=b"sign in")
    async with recording(lambda _: page) as api, client_of(tokens, api.url) as client:
        with pytest.raises(ChargeUnknown):
            await client.run("cloud/x", prompt="a kite")
    assert (len(api.posts), tokens.count) == (1, 1)


async def test_a_provider_without_the_hook_sends_a_refused_request_once() -> None:
    registry = Registry()
    plain = Provider(name="cloud", base_url="https://api.cloud.example", key_variable="CLOUD_KEY")
    registry.add(OPERATIONS, "cloud/x", attrs.evolve(operation(Tokens()), provider=plain))
    async with recording(lambda _: REFUSED) as api:
        providers = {"cloud": {"api_base": api.url, "api_key": "any"}}
        async with impasto.Client(registry=registry, providers=providers) as client:
            with pytest.raises(Unauthorized):
                await client.run("cloud/x", prompt="a kite")
    assert len(api.posts) == 1


async def test_a_poll_and_a_resumed_job_get_a_new_token_too() -> None:
    tokens, valid = Tokens(), ["token-1"]

    def answer(request: RecordedRequest) -> Answer:
        found = accepts(*valid, then=ACCEPTED)(request)
        if request.method == "POST":
            valid[:] = ["token-2"]
        return found

    async with recording(answer) as api, client_of(tokens, api.url, poll_interval=0.01) as client:
        result = await client.run("cloud/x", prompt="a kite")
        assert ([each.method for each in api.requests], tokens.count) == (["POST", "GET", "GET"], 2)
        valid[:] = ["token-3"]
        resumed = await client.resume("cloud/x", "job-1")
    assert result.artifacts == resumed.artifacts
    assert ([each.method for each in api.requests[3:]], tokens.count) == (["GET", "GET"], 3)


async def test_a_poll_that_is_refused_twice_names_the_job() -> None:
    tokens = Tokens()
    async with recording(accepts("token-1", then=ACCEPTED)) as api, client_of(tokens, api.url) as client:
        api.answer = lambda request: ACCEPTED if request.method == "POST" else REFUSED
        with pytest.raises(Unauthorized) as caught:
            await client.run("cloud/x", prompt="a kite")
    assert [each.method for each in api.requests] == ["POST", "GET", "GET"]
    assert (caught.value.id, caught.value.billed) == ("job-1", "unknown")


async def test_a_signed_address_gets_no_token() -> None:
    tokens = Tokens()
    async with recording(lambda _: PICTURE) as api, client_of(tokens, api.url, poll_interval=0.01) as client:
        await client.resume("cloud/x", "signed")
    assert (api.requests[0].header("authorization"), tokens.count) == ("", 0)


async def test_the_token_is_in_no_message_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = Answer(status=401, headers=JSON, body=json.dumps(["Bearer token-1", "token-2"]).encode())
    async with recording(lambda _: echo) as api, client_of(Tokens(), api.url) as client:
        with pytest.raises(Unauthorized) as caught:
            await client.run("cloud/x", prompt="a kite")
    assert "token-" not in f"{caught.value}{caught.value!r}{caplog.text}"


@pytest.mark.parametrize(
    ("failure", "error", "fetches", "message"),
    [
        (ConnectionRefusedError("secret"), NotSent, 2, "can't authorize the request (ConnectionRefusedError)"),
        (TimeoutError("secret"), NotSent, 2, "can't authorize the request (TimeoutError); nothing was sent"),
        (NotSent("the token server is down"), NotSent, 2, "the token server is down"),
        (impasto.ConfigError("CLOUD_FILE is missing"), impasto.ConfigError, 1, "CLOUD_FILE is missing"),
        (RuntimeError("secret"), BrokenPlugin, 1, "authorize raised RuntimeError; nothing was sent"),
    ],
)
async def test_nothing_is_sent_without_a_token(
    failure: Exception, error: type[ImpastoError], fetches: int, message: str
) -> None:
    tokens = Tokens(fails=failure)
    async with (
        recording(lambda _: PICTURE) as api,
        client_of(tokens, api.url, retry=Retry(attempts=2, base=0.01)) as client,
    ):
        with pytest.raises(error) as caught:
            await client.run("cloud/x", prompt="a kite")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (api.requests, caught.value.billed, tokens.count) == ([], "no", fetches)


@pytest.mark.parametrize("headers", [{"authorization": "a\r\nb: c"}, {"authorization": None}, None, "Bearer x"])
async def test_headers_that_are_not_headers_are_a_broken_plugin(headers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def authorize(self: Cloud, account: Account, refused: bool) -> Any:
        return headers

    monkeypatch.setattr(Cloud, "authorize", hookimpl(authorize))
    async with recording(lambda _: PICTURE) as api, client_of(Tokens(), api.url) as client:
        with pytest.raises(BrokenPlugin) as caught:
            await client.run("cloud/x", prompt="a kite")
    assert (api.requests, caught.value.billed) == ([], "no")


class Memory:
    """A transport that answers from memory. ``valid`` is the token that it takes."""

    valid = "token-1"
    sent = 0

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        with wire.call.sending(paid=wire.method == "POST"):
            self.sent += 1
            await asyncio.sleep(0)
            if wire.headers["Authorization"] != f"Bearer {self.valid}":
                return WireResponse(status=401, headers=JSON, body=b"{}")
            return WireResponse(status=200, headers={"content-type": "image/png"}, body=IMAGE)


async def test_a_thousand_calls_fetch_each_token_once() -> None:
    tokens, transport = Tokens(pause=0.01), Memory()
    async with client_of(tokens, "http://127.0.0.1:1", transport=transport, max_concurrency=1000) as client:
        for expected, requests in ((1, 1000), (2, 3000)):
            await asyncio.gather(*(client.run("cloud/x", prompt="a kite") for _ in range(1000)))
            assert (tokens.count, transport.sent) == (expected, requests)
            transport.valid = "token-2"


async def test_a_thousand_calls_share_a_failure() -> None:
    tokens = Tokens(pause=0.01, fails=impasto.ConfigError("no file"))
    async with client_of(tokens, "http://127.0.0.1:1", transport=Memory(), max_concurrency=1000) as client:
        await client.warm("cloud/x")
        calls = (client.run("cloud/x", prompt="a kite") for _ in range(1000))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in results} == {impasto.ConfigError}
        assert tokens.count == 1
        tokens.fails = None
        tokens.count = 0
        assert (await client.run("cloud/x", prompt="a kite")).artifacts


async def test_a_caller_who_leaves_while_it_fetches_leaves_the_others_a_token() -> None:
    tokens, transport = Tokens(pause=0.02), Memory()
    transport.valid = "token-2"
    async with client_of(tokens, "http://127.0.0.1:1", transport=transport) as client:
        first, *others = (asyncio.create_task(client.run("cloud/x", prompt="a kite")) for _ in range(3))
        while not tokens.count:
            await asyncio.sleep(0)
        first.cancel()
        results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError, Result, Result]
    assert (tokens.count, transport.sent) == (2, 2)


async def test_a_token_is_fetched_again_before_it_expires() -> None:
    tokens, transport = Tokens(lifetime=0.2), Memory()
    async with client_of(tokens, "http://127.0.0.1:1", transport=transport) as client:
        await client.run("cloud/x", prompt="a kite")
        await client.run("cloud/x", prompt="a kite")
        assert tokens.count == 1
        await asyncio.sleep(0.19)
        transport.valid = "token-2"
        await client.run("cloud/x", prompt="a kite")
    assert (tokens.count, transport.sent) == (2, 3)


def test_a_cache_serves_several_loops() -> None:
    tokens = Tokens()
    cache = TokenCache(tokens.fetch)
    account = Account(
        provider=Provider(name="cloud", base_url="https://c.example"), base_url="https://c.example", headers={}
    )
    got = [asyncio.run(_get(cache, account)) for _ in range(2)]
    assert (got, tokens.count) == (["token-1", "token-1"], 1)


async def _get(cache: TokenCache, account: Account) -> str:
    return await cache.get(account)


async def test_a_batch_counts_a_refused_token_as_no_charge(tmp_path: Path) -> None:
    async with recording(accepts("token-2")) as api, client_of(Tokens(), api.url) as client:
        rows = [{"id": "a", "model": "cloud/x", "prompt": "a kite"}]
        outcomes = [each async for each in client.batch(rows, out=tmp_path / "out")]
    assert [(each.state, each.cost and each.cost.usd) for each in outcomes] == [("done", 0.01)]
    assert len(api.posts) == 2
