"""Settings: defaults that are documented, and bounds on their accepted side. What is refused: test_client.py."""

from __future__ import annotations

import resource
import ssl
from pathlib import Path
from typing import Any

import pytest

import impasto
from impasto import Client, ConfigError, ImpastoError
from impasto.options import Options, check_seconds, default_concurrency


def test_the_times_by_default_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_POLL_INTERVAL", raising=False)
    options = Options()
    assert (options.timeout, options.connect_timeout, options.poll_interval) == (300.0, 10.0, None)
    assert (options.max_concurrency, options.rate_limit, options.spend_limit_usd) == (None, None, None)
    assert options.settings("stability") == {"api_key": None, "api_base": None}


@pytest.mark.parametrize("seconds", [1e-9, 1, 1e9])
def test_a_time_up_to_a_thousand_million_seconds_is_taken(seconds: float) -> None:
    assert check_seconds("timeout", seconds) == seconds


@pytest.mark.parametrize("seconds", [1.1e9, 10**9 + 1])
def test_a_longer_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"above 0 and at most 1e\+09"):
        check_seconds("timeout", seconds)


@pytest.mark.parametrize(
    ("files", "calls"),
    [(resource.RLIM_INFINITY, 10_000), (1_000_000, 10_000), (20_000, 10_000), (19_998, 9_999), (256, 128), (32, 64)],
)
def test_half_of_the_open_files_may_be_calls_in_flight(monkeypatch: pytest.MonkeyPatch, files: int, calls: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, resource.RLIM_INFINITY))
    assert default_concurrency() == calls


@pytest.mark.parametrize(
    "settings",
    [
        {"max_concurrency": 1},
        {"proxy": "http://127.0.0.1:3128"},
        {"proxy": "https://user:password@proxy.example"},
        {"ssl": "ca.pem"},
        {"ssl": Path("ca.pem")},
        {"ssl": ssl.create_default_context()},
        {"transport": "emulator"},
        {"providers": {}},
        {"providers": None},
        {"middleware": ()},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_in_each_of_its_forms(settings: dict[str, Any]) -> None:
    Options(**settings)


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "127.0.0.1:3128",
        "socks5://127.0.0.1:1",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://a b",
        "http://a\n",
        5,
    ],
)
def test_an_invalid_proxy_is_refused_without_its_password(proxy: object) -> None:
    with pytest.raises(ConfigError, match="proxy must be the URL of an http:// or https:// proxy"):
        Options(proxy=proxy)  # type: ignore[arg-type]  # what the test is about


def test_each_provider_gets_its_own_settings_and_no_others() -> None:
    options = Options(api_key="sk-own", aws_region="us-west-2", providers={"acme": {"api_key": "sk-acme"}})
    assert options.settings("acme") == {"api_key": "sk-acme"}
    assert options.settings("other") == {}
    bedrock = options.settings("bedrock")
    assert (bedrock["region"], bedrock["secret_access_key"], bedrock.get("api_key")) == ("us-west-2", None, None)


def test_a_setting_for_a_named_provider_wins() -> None:
    options = Options(
        api_key="sk-general",
        aws_region="us-west-2",
        providers={"stability": {"api_key": "sk-named"}, "bedrock": {"region": "us-east-1"}},
    )
    assert options.settings("stability")["api_key"] == "sk-named"
    assert options.settings("bedrock")["region"] == "us-east-1"


async def test_an_unknown_setting_is_named_with_the_closest() -> None:
    with pytest.raises(TypeError, match="unknown setting 'api_ky'; did you mean 'api_key'"):
        impasto.Client(api_ky="sk-x")  # type: ignore[call-arg]  # what the test is about
    with pytest.raises(TypeError, match="unknown setting 'zzz'; the settings are api_key, "):
        impasto.Client().with_options(zzz=1)  # type: ignore[call-arg]  # what the test is about


async def test_a_sibling_keeps_the_settings_of_providers_that_it_does_not_name() -> None:
    providers = {"acme": {"api_key": "k", "api_base": "https://a.example", "project": "p"}, "other": {"api_key": "o"}}
    async with impasto.Client(providers=providers) as client:
        sibling = client.with_options(providers={"acme": {"api_key": "k2", "project": None}, "third": {"api_key": "t"}})
        assert dict(sibling._options.providers) == {
            "acme": {"api_key": "k2", "api_base": "https://a.example", "project": None},
            "other": {"api_key": "o"},
            "third": {"api_key": "t"},
        }
        assert sibling.with_options(timeout=5, providers={})._options.providers == sibling._options.providers
        assert sibling.with_options(providers=None)._options.providers == {}
        assert client._options.providers == providers
        with pytest.raises(ConfigError, match="providers must be a mapping of names to settings"):
            client.with_options(providers={"acme": "k"})  # type: ignore[dict-item]  # what the test is about


URL = "postgresql://me:p4ssw0rd@db.example/impasto?password=p4ssw0rd"


async def test_a_state_may_be_a_url_whose_password_is_in_no_text() -> None:
    options = Options(state=URL)
    assert options.state == URL
    assert "p4ssw0rd" not in repr(options)
    assert "'postgresql://...'" in repr(options)
    with pytest.raises(ImpastoError, match="unknown state 'nobody'; installed: ") as caught:
        async with Client(state=URL.replace("postgresql", "nobody"), api_key="sk-" + "k" * 20):
            pass
    assert "p4ssw0rd" not in str(caught.value)


@pytest.mark.parametrize("state", ["", "://x", "p 4://me:p4ssw0rd@x", "a://\n", 7, b"x"], ids=repr)
def test_a_state_that_is_neither_a_folder_nor_a_url_is_refused(state: Any) -> None:
    with pytest.raises(ConfigError, match="state") as caught:
        Options(state=state)
    assert "p4ssw0rd" not in str(caught.value)
