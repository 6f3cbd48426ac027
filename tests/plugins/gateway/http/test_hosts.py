"""The names by which a gateway may be called: patterns, probes by address, and an error that names the setting."""

from __future__ import annotations

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import MASTER, Running, Start, config

STRONG = "sk-" + "s" * 40


@pytest.fixture
async def public(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway that listens on more than loopback."""
    text = config(impasto_emulator.url, general="  allowed_hosts: [images.example, '*.art.example']\n")
    gateway = await start(text.replace(MASTER, STRONG), host="0.0.0.0")
    gateway.session.headers["authorization"] = f"Bearer {STRONG}"
    return gateway


@pytest.mark.parametrize(
    "host",
    [
        "images.example",
        "IMAGES.example:443",
        "a.art.example",
        "a.b.art.example:8443",
        "images.example:",
        "images.example.",
    ],
)
async def test_a_host_that_is_listed_or_matches_a_pattern(public: Running, host: str) -> None:
    assert (await public.ask("GET", "/v1/models", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["art.example", "aart.example", "a.art.example.evil", "evil.example", "10.1.2.3", "localhost", "a\u200bb"]
)
async def test_another_host_is_refused_by_an_error_that_names_the_setting(public: Running, host: str) -> None:
    answer = await public.ask("GET", "/v1/models", headers={"host": host.encode().decode("latin-1")})
    assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    message = answer.error["message"] or ""
    assert "general_settings.allowed_hosts" in message
    assert message.isprintable()
    assert host in message or not host.isascii()


@pytest.mark.parametrize("host", ["10.1.2.3:4000", "10.1.2.3", "[fd00::1]:4000", "images.example"])
async def test_a_probe_calls_by_address(public: Running, host: str) -> None:
    key = public.session.headers.pop("authorization")
    for path in ("/health/liveliness", "/health/readiness"):
        assert (await public.ask("GET", path, headers={"host": host})).status == 200
    assert (await public.ask("GET", "/metrics", headers={"host": host})).status == 401
    for header in ({"authorization": key}, {"x-api-key": STRONG}):
        assert (await public.ask("GET", "/metrics", headers={"host": host, **header})).status == 200


async def test_metrics_are_not_for_a_name_that_points_here(public: Running) -> None:
    assert (await public.ask("GET", "/metrics", headers={"host": "evil.example"})).status == 421


async def test_metrics_need_a_key_behind_a_proxy(start: Start, impasto_emulator: Emulator) -> None:
    general = "  allowed_hosts: [images.example]\n"
    gateway = await start(config(impasto_emulator.url, general=general).replace(MASTER, STRONG))
    gateway.session.headers["authorization"] = f"Bearer {STRONG}"
    assert (await gateway.ask("GET", "/metrics", headers={"host": "images.example"})).status == 200
    del gateway.session.headers["authorization"]
    for host in ("images.example", "localhost", "127.0.0.1"):
        assert (await gateway.ask("GET", "/metrics", headers={"host": host})).status == 401
