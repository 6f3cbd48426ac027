"""A hook ``authorize`` that breaks its contract, or whose error repeats a secret."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

import impasto
from impasto import Account, BrokenPlugin, hookimpl
from impasto.dialects import Token
from impasto.testing import Answer, recording
from tests.core.test_authorize import PICTURE, REFUSED, Cloud, Tokens, client_of

WRONG_TOKENS: tuple[Any, ...] = (
    {"access_token": "secret-1"},
    ("secret-1", 3600),
    "secret-1",
    None,
    Token(b"secret-1", 3600),  # type: ignore[arg-type]  # wrong on purpose
    Token("", 3600),
    Token("secret-1", "3600"),  # type: ignore[arg-type]  # wrong on purpose
    Token("secret-1", float("nan")),
    Token("secret-1", True),
)


@pytest.mark.parametrize("returned", WRONG_TOKENS, ids=repr)
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_fetch_that_returns_no_token_is_a_broken_plugin_that_says_what_to_return(
    returned: object, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(account: Account) -> object:
        return returned

    tokens = Tokens()
    monkeypatch.setattr(Tokens, "fetch", lambda _, account: fetch(account) if is_async else returned)
    async with recording(lambda _: PICTURE) as api, client_of(tokens, api.url) as client:
        await asyncio.gather(client.run("cloud/x", prompt="a"), return_exceptions=True)
        with pytest.raises(BrokenPlugin, match=r"must be async and return impasto\.dialects\.Token") as caught:
            await client.run("cloud/x", prompt="a kite")  # the failure was not stored as a token
    assert (api.requests, caught.value.billed) == ([], "no")
    assert "secret-1" not in everything_of(caught.value)


@pytest.mark.parametrize("answer", [REFUSED, PICTURE], ids=["same call", "next call"])
async def test_an_error_of_authorize_shows_neither_the_key_nor_a_token(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint of tokens may repeat in its error what it was sent, and what it answered before."""
    key, answers = "key-canary-0123456789", ["token-canary-9876543210"]

    async def authorize(self: Cloud, account: Account, refused: bool) -> Mapping[str, str]:
        if answers:
            return {"authorization": f"Bearer {answers.pop()}"}
        message = f"{key} and token-canary-9876543210"
        error = impasto.BadRequest(
            f"the identity service says {message}", name=message, messages=(message,), request_id=message
        )
        error.add_note(message)
        raise error from ValueError(message)

    monkeypatch.setattr(Cloud, "authorize", hookimpl(authorize))
    own = {"cloud": {"api_key": key}}
    async with recording(lambda _: answer) as api, client_of(Tokens(), api.url, own=own) as client:
        if answer is PICTURE:
            await client.run("cloud/x", prompt="a kite")
        with pytest.raises(impasto.BadRequest) as caught:
            await client.run("cloud/x", prompt="a kite")
        assert len(api.posts) == 1
    assert "the identity service says" in str(caught.value)
    text = everything_of(caught.value)
    assert "canary" not in text


@pytest.mark.parametrize("error", [ValueError, OSError, LookupError])
async def test_an_unexpected_error_of_a_provider_leaves_no_trace_of_its_words(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracker of errors shows what is behind an error, also if a traceback does not."""

    async def authorize(self: Cloud, account: Account, refused: bool) -> Mapping[str, str]:
        raise error("refresh-canary-0123456789")

    def find(self: Cloud, settings: object, *, emulator_url: str | None = None) -> Account:
        raise error("refresh-canary-0123456789")

    monkeypatch.setattr(Cloud, "authorize", hookimpl(authorize))
    once = impasto.Retry(attempts=1)
    async with recording(lambda _: PICTURE) as api, client_of(Tokens(), api.url, retry=once) as client:
        with pytest.raises(impasto.ImpastoError) as caught:
            await client.run("cloud/x", prompt="a kite")
        with monkeypatch.context() as other:
            other.setattr(Cloud, "account", find)
            with pytest.raises(impasto.ImpastoError) as unfound:
                await client.with_options(api_key="k").run("cloud/x", prompt="a kite")
        assert api.requests == []
    for each in (caught.value, unfound.value):
        assert (each.__cause__, each.__context__) == (None, None)
        assert "canary" not in everything_of(each)


async def test_an_error_of_a_providers_account_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(self: Cloud, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
        raise impasto.ConfigError(f"the key {settings['api_key']} is of another region")

    monkeypatch.setattr(Cloud, "account", find)
    async with client_of(Tokens(), "http://127.0.0.1:1", own={"cloud": {"api_key": "key-canary-0123456789"}}) as client:
        with pytest.raises(impasto.ConfigError, match=r"the key \*\*\* is of another region") as caught:
            await client.run("cloud/x", prompt="a kite")
    assert "canary" not in everything_of(caught.value)


def everything_of(error: BaseException) -> str:
    """Return what a log or a tracker of errors shows of an error, and of those behind it."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
