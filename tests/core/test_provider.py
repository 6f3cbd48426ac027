"""Accounts: what a key and an address must be, whose they are, and what tells two of them apart."""

from __future__ import annotations

import attrs
import pytest

from impasto import BrokenPlugin, ConfigError, Provider, RateLimit
from impasto.provider import Account, account_of, check_key, check_setting_names
from impasto.urls import check_base_url, is_loopback

PROVIDER = Provider(
    name="acme",
    base_url="https://api.acme.example",
    base_url_variable="ACME_BASE",
    key_variable="ACME_KEY",
    rate_limit=RateLimit(5, 1),
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACME_BASE", "ACME_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_an_address_of_this_machine(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://api.example:0", "has an invalid host"),
        ("https://api..example", "has an invalid host"),
        ("https://api.example\n", "has an invalid host"),
        (" https://api.example", "has an invalid host"),
        ("https://ápi.example", "has an invalid host"),
        ("https://api.example:x", "is not a URL"),
        ("https://api.example:65536", "is not a URL"),
        ("https://api.example?", "must end after the host"),
        ("https://api.example#", "must end after the host"),
        ("https://api.example//", "must end after the host"),
        ("http://api.example", "is plain http"),
        ("https://u@api.example", "must not contain a user or password"),
    ],
)
def test_an_invalid_base_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^api_base {message}"):
        check_base_url(url)


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/.", "/a?b", "/a#b", "/a b", "/..", "/ä"])
def test_a_path_that_two_readers_could_take_for_two(path: str) -> None:
    with pytest.raises(
        ConfigError, match="endpoint must end after the path; give scheme, host and at most a path, such as"
    ):
        check_base_url(f"https://api.example{path}", "endpoint", with_path=True)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://api.example:1", "https://api.example:1"),
        ("https://api.example:65535/v1/", "https://api.example:65535/v1"),
        ("https://api.example/a.b/..c", "https://api.example/a.b/..c"),
        ("https://API.example./", "https://api.example"),
    ],
)
def test_a_base_url_with_a_path(url: str, clean: str) -> None:
    assert check_base_url(url, with_path=True) == clean


def test_a_key_is_one_word_of_ascii_and_no_message_holds_it() -> None:
    assert check_key("sk-!~") == "sk-!~"
    for wrong in ("", " ", "sk one", "sk\t", "ské", "sk\x7f"):
        with pytest.raises(ConfigError) as caught:
            check_key(wrong, "the key")
        assert not wrong.strip() or wrong not in str(caught.value)


def test_an_account_of_what_is_given_first_then_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_BASE", "https://other.example")
    monkeypatch.setenv("ACME_KEY", "of-variable")
    params = PROVIDER.account({"api_key": "given", "api_base": "http://127.0.0.1:1"}, emulator_url="http://127.0.0.1:2")
    assert (params.base_url, params.headers, params.secrets) == (
        "http://127.0.0.1:1",
        {"authorization": "Bearer given"},
        ("given",),
    )
    found = PROVIDER.account({})
    assert (found.base_url, found.secrets) == ("https://other.example", ("of-variable",))
    assert PROVIDER.account({}, emulator_url="http://127.0.0.1:2").base_url == "http://127.0.0.1:2"
    monkeypatch.setenv("ACME_BASE", "")
    assert PROVIDER.account({}).base_url == "https://api.acme.example"


def test_the_vendors_limit_is_for_the_vendors_host() -> None:
    assert PROVIDER.account({"api_key": "k"}).rate_limit == RateLimit(5, 1)
    assert PROVIDER.account({"api_key": "k", "api_base": "http://127.0.0.1:1"}).rate_limit is None


def test_an_emulators_key_is_a_word_that_messages_may_hold() -> None:
    account = PROVIDER.account({}, emulator_url="http://127.0.0.1:1")
    assert (account.headers, account.secrets) == ({"authorization": "Bearer emulator"}, ())
    with pytest.raises(ConfigError, match="no key for acme: set ACME_KEY or give api_key"):
        PROVIDER.account({})


def test_a_provider_without_an_address_of_its_own_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Provider(name="acme", base_url_variable="ACME_URL")
    with pytest.raises(ConfigError, match="no address for acme: set ACME_URL or give api_base"):
        own.account({})
    assert not own.is_own_host("https://studio.example")
    assert own.account({"api_base": "https://studio.example"}).base_url == "https://studio.example"
    monkeypatch.setenv("ACME_URL", "https://other.example")
    assert own.account({}).base_url == "https://other.example"


def test_a_provider_without_keys_sends_none() -> None:
    account = attrs.evolve(PROVIDER, key_variable=None).account({})
    assert (account.headers, account.secrets) == ({}, ())


def test_each_part_of_an_account_tells_it_from_others() -> None:
    def account(**parts: object) -> Account:
        params = {"provider": PROVIDER, "base_url": "https://a.example", "headers": {}, "secrets": ("k",), **parts}
        return Account(**params)  # type: ignore[arg-type]  # each of its own type

    one = account(settings={"a": "1", "b": "2"})
    assert one.fingerprint == account(settings={"b": "2", "a": "1"}).fingerprint
    others = [
        account(),
        account(secrets=("k", "l")),
        account(base_url="https://b.example"),
        account(settings={"a": "1"}),
    ]
    assert len({each.fingerprint for each in (one, *others)}) == 5


def test_a_setting_that_is_not_known_is_named_with_those_that_are() -> None:
    check_setting_names("acme", {"api_key": "k", "region": None}, ("api_key",))
    with pytest.raises(ConfigError, match="unknown setting 'region' of acme; allowed: api_key, api_base"):
        PROVIDER.account({"region": "x"})


def test_a_provider_that_gives_something_else_is_named() -> None:
    class Odd(Provider):
        def account(self, settings: object, *, emulator_url: str | None = None) -> Account:
            return 5  # type: ignore[return-value]  # what the test is about

    with pytest.raises(BrokenPlugin, match="provider acme: its account is int, not an Account"):
        account_of(Odd(name="acme", base_url="https://a.example"), {})
