"""Bad settings (rows B55, B56, B58, B60 of the promise): a clear error before any socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest

import impasto
from impasto.urls import check_base_url
from tests.reliability.conftest import CORE, KEY, MakeClient
from tests.reliability.servers import Server

BAD_KEYS = ["", "sk\n", "\nsk", "é", "sk key", " sk", "sk ", "sk\x00", "sk\u200b", "sk\r\nx-evil: 1", b"sk", 5]


@pytest.fixture
async def canary(server: Server) -> AsyncIterator[Server]:
    """A server that nobody may connect to."""
    yield server
    await asyncio.sleep(0.01)
    assert server.connections == 0


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_b55_a_bad_key(canary: Server, key: object) -> None:
    with pytest.raises(impasto.ConfigError, match="key") as caught:
        impasto.Client(api_key=key, api_base=canary.url)  # type: ignore[arg-type]  # wrong on purpose
    assert not isinstance(key, str) or len(key) < 3 or key.strip() not in str(caught.value)


async def test_b55_no_key(canary: Server, make_client: MakeClient) -> None:
    with pytest.raises(impasto.ConfigError, match="STABILITY_API_KEY"):
        await make_client(canary.url, api_key=None).run(CORE, prompt="p")


@pytest.mark.parametrize("key", ["", "sk\n", "é", "sk key"])
async def test_b55_a_bad_key_in_the_environment(
    canary: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("STABILITY_API_KEY", key)
    with pytest.raises(impasto.ConfigError, match="^the API key in STABILITY_API_KEY "):
        await make_client(canary.url, api_key=None).run(CORE, prompt="p")


BAD_BASES = [
    "",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "127.0.0.1:8008",
    "//127.0.0.1",
    "http://",
    "https://",
    "https:///v2beta",
    "http://example.com",
    "http://127.evil.com",
    "http://localhost.evil.com",
    "http://127.0.0.1.evil.com",
    "http://127.0.0.1@evil.com",
    "http://127.0.0.1\\@evil.com",
    "http://0x7f.1",
    "http://127.1",
    "http://2130706433",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::ffff:127.0.0.1%25lo]",
    "http://[::1%25eth0]",
    "http://[fe80::1%25lo]",
    "http://[::1",
    "http://169.254.169.254",
    "https://user:password@api.example.com",
    "https://key@api.example.com",
    "https://api.example.com/v2beta",
    "https://api.example.com//",
    "https://api.example.com?x=1",
    "https://api.example.com?",
    "https://api.example.com#",
    "https://api.example.com;x",
    "https://api.example.com:0",
    "https://api.example.com:99999",
    "https://api.example.com:x",
    "https://api.example.com\\evil.com",
    "https://exa mple.com",
    "https://exämple.com",
    "https://api.example.com\n",
    " https://api.example.com",
    "https://api.example.com\t",
    "https://api..example.com",
    "https://.",
    "https://api.example.com\x00",
    "https://%61pi.example.com",
    5,
    b"https://api.example.com",
]


@pytest.mark.parametrize("base", BAD_BASES)
def test_b56_a_bad_base_url(base: object) -> None:
    with pytest.raises(impasto.ConfigError, match="api_base") as caught:
        impasto.Client(api_key=KEY, api_base=base)  # type: ignore[arg-type]  # wrong on purpose
    assert "password" not in str(caught.value).replace("user or password", "")


@pytest.mark.parametrize("base", ["", 0, False, b"", "ftp://127.0.0.1"])
async def test_b56_a_bad_base_url_of_one_provider(
    canary: Server, base: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STABILITY_API_BASE", canary.url)  # where it would go if the given one counted for nothing
    async with impasto.Client(api_key=KEY, providers={"stability": {"api_base": base}}) as client:
        with pytest.raises(impasto.ConfigError, match="api_base"):
            await client.run(CORE, prompt="p")


@pytest.mark.parametrize(
    ("base", "clean"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("HTTPS://API.Example.com.:8443/", "https://api.example.com:8443"),
        ("https://xn--exmple-cua.com", "https://xn--exmple-cua.com"),
        ("http://localhost:8008", "http://localhost:8008"),
        ("http://127.0.0.53", "http://127.0.0.53"),
        ("http://[::1]:8008/", "http://[::1]:8008"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_b56_a_good_base_url(base: str, clean: str) -> None:
    assert check_base_url(base) == clean


async def test_b58_after_close(canary: Server, make_client: MakeClient) -> None:
    client = make_client(canary.url)
    await client.aclose()
    await client.aclose()
    for call in (client.run(CORE, prompt="p"), client.resume(CORE, "a" * 64), client.warm(CORE)):
        with pytest.raises(impasto.ClientClosedError):
            await call
    with pytest.raises(impasto.ClientClosedError):
        await client.with_options(timeout=1.0).run(CORE, prompt="p")
    with pytest.raises(impasto.ClientClosedError):
        async with client:
            pass


async def test_b58_from_another_loop(canary: Server, make_client: MakeClient) -> None:
    client = make_client(canary.url)
    await client.warm(CORE)
    outcome: list[BaseException] = []

    def elsewhere() -> None:
        for use in (lambda: client.run(CORE, prompt="p"), client.aclose):
            try:
                asyncio.run(use())
            except impasto.ImpastoError as error:
                outcome.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [type(error) for error in outcome] == [impasto.LoopMismatchError] * 2
    await client.aclose()  # at home it still works


def test_b58_in_a_second_loop_after_the_first_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def make() -> impasto.Client:
        client = impasto.Client(api_key=KEY, api_base="http://127.0.0.1:9")
        with pytest.raises(impasto.NotSent):
            await client.run(CORE, prompt="p", retry=impasto.Retry(attempts=1))
        return client

    with asyncio.Runner() as first:
        client = first.run(make())
        with asyncio.Runner() as second, pytest.raises(impasto.LoopMismatchError, match="loop"):
            second.run(client.run(CORE, prompt="p"))
        first.run(client.aclose())


async def test_b58_in_a_nested_run(canary: Server, make_client: MakeClient) -> None:
    client = make_client(canary.url)
    call = client.run(CORE, prompt="p")
    with pytest.raises(RuntimeError, match="running event loop"):
        asyncio.run(call)
    call.close()


FORKS = """
import asyncio, os, impasto

async def main():
    async with impasto.Client(api_key="sk-fork", api_base="http://127.0.0.1:9") as client:
        await client.warm("stability/stable-image-core")
        child = os.fork()
        if child == 0:
            for use in (client.run("stability/stable-image-core", prompt="p"), client.aclose()):
                try:
                    await use
                except impasto.LoopMismatchError as error:
                    os.write(1, f"{error}\\n".encode())
            os._exit(0)
        os.waitpid(child, 0)

asyncio.run(main())
"""


def test_b58_after_a_fork() -> None:
    """The child has the parent's loop object; the process id gives it away, and nothing of the parent's is closed."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["the client was made before a fork; make one in this process"] * 2, done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_charges": 0},
        {"max_charges": True},
        {"max_charges": 1.0},
        {"attempts": 0},
        {"attempts": "4"},
        {"refused": -1},
        {"base": -0.1},
        {"base": float("nan")},
        {"cap": float("inf")},
        {"budget": "10%"},
        {"max_wait": None},
        {"on_ambiguous": 1},
        {"floor": 1.5},
    ],
)
def test_b60_a_bad_retry_policy(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(impasto.ConfigError, match=name):
        impasto.Retry(**wrong)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("policy", ["aggressive", 3, True, {"attempts": 4}])
async def test_b60_no_policy_at_all(canary: Server, make_client: MakeClient, policy: object) -> None:
    with pytest.raises(impasto.ConfigError, match="retry"):
        impasto.Client(api_key=KEY, retry=policy)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(impasto.ConfigError, match="retry"):
        await make_client(canary.url).run(CORE, prompt="p", retry=policy)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [(0, 1.0), (True, 1.0), (1.5, 1.0), (1, 0), (1, float("inf")), (1, "1")])
def test_a_bad_rate_limit(limit: tuple[object, object]) -> None:
    with pytest.raises(impasto.ConfigError, match="RateLimit"):
        impasto.RateLimit(*limit)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_user_that_can_not_stand_in_a_header(canary: Server, make_client: MakeClient) -> None:
    for user in ("a\r\nx-evil: 1", "é", "u" * 257, ""):
        with pytest.raises(impasto.InvalidRequest, match="user"):
            await make_client(canary.url).invoke(CORE, {"prompt": "p"}, user=user)


async def test_closing_while_a_model_is_opened_leaks_nothing(canary: Server, make_client: MakeClient) -> None:
    """``aclose`` meets a first call that has not opened its transport yet; a leak would be a ResourceWarning."""
    for turns in range(12):
        client = make_client(canary.url.replace(str(canary.port), "9"))
        call = asyncio.ensure_future(client.warm(CORE))
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.aclose()
        outcome = (await asyncio.gather(call, return_exceptions=True))[0]
        assert outcome is None or isinstance(outcome, impasto.ClientClosedError)
        assert not client._shared.routes
