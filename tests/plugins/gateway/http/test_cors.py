"""Web pages of other origins: those of ``cors_origins`` may call the gateway from a browser and read its answers."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.gateway.conftest import Running, Start, config

APP, EVIL = "https://app.example", "https://evil.example"
PATHS = ("/v1/images/generations", "/images/edits", "/v1/files", "/openai/deployments/sd3/images/generations")
EXPOSED = {"x-request-id", "x-impasto-cost-usd", "x-impasto-warnings", "x-should-retry", "retry-after"}
SENT = (
    *("authorization", "content-type", "api-key", "x-api-key", "idempotency-key"),
    *("x-stainless-os", "x-stainless-lang", "x-stainless-retry-count", "x-stainless-timeout", "x-stainless-new-one"),
)


@pytest.fixture
async def gateway(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway that one page may call."""
    return await start(config(impasto_emulator.url, general=f"  cors_origins: [{APP}, 'http://localhost:3000']\n"))


def listed(headers: Mapping[str, str], name: str) -> set[str]:
    """The items of a header that is a list."""
    return {each.strip().lower() for each in headers.get(name, "").split(",")} - {""}


def of_cors(headers: Mapping[str, str]) -> list[str]:
    """The names of the headers that a browser reads."""
    return [name for name in headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_needs_no_key_and_costs_nothing(
    gateway: Running, impasto_emulator: Emulator, path: str
) -> None:
    headers = {
        "origin": APP,
        "access-control-request-method": "POST",
        "access-control-request-headers": ",".join(SENT),
    }
    del gateway.session.headers["authorization"]
    answer = await gateway.ask("OPTIONS", path, headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert set(SENT) <= listed(answer.headers, "access-control-allow-headers")
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in listed(answer.headers, "vary")
    assert not impasto_emulator.requests


async def test_a_preflight_allows_no_other_header(gateway: Running) -> None:
    headers = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "x-evil,a b"}
    answer = await gateway.ask("OPTIONS", PATHS[0], headers=headers)
    assert not {"x-evil", "a b", "*"} & listed(answer.headers, "access-control-allow-headers")


async def test_a_preflight_of_another_origin_is_refused(gateway: Running) -> None:
    for origin in (EVIL, "null", f"{APP}:8443", "http://app.example", f"{APP}.evil.example"):
        answer = await gateway.ask(
            "OPTIONS", PATHS[0], headers={"origin": origin, "access-control-request-method": "POST"}
        )
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        assert "general_settings.cors_origins" in (answer.error["message"] or "")
        assert not of_cors(answer.headers)


async def test_a_page_may_read_an_image_and_what_it_cost(gateway: Running) -> None:
    answer = await gateway.ask(
        "POST", PATHS[0], json={"model": "sd3", "prompt": "p"}, headers={"origin": "http://localhost:3000"}
    )
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert listed(answer.headers, "access-control-expose-headers") >= EXPOSED


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_has_the_headers_too(gateway: Running, impasto_emulator: Emulator, stream: bool) -> None:
    body = {"model": "sd3", "prompt": "p", "stream": stream}
    answer = await gateway.ask("POST", PATHS[0], json=body, headers={"origin": APP})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, APP)


FAILED = {
    "no key": ("GET", "/v1/models", {"authorization": "Bearer sk-wrong"}, None, 401),
    "a path that is none": ("GET", "/v1/nothing", {}, None, 404),
    "a method that is none": ("PUT", "/v1/models", {}, None, 405),
    "another content": ("POST", "/v1/images/generations", {"content-type": "text/plain"}, b"x", 415),
    "another host": ("GET", "/v1/models", {"host": "evil.example"}, None, 421),
    "bad JSON": ("POST", "/v1/images/generations", {"content-type": "application/json"}, b"{", 400),
    "a wrong field": ("POST", "/v1/images/generations", {"content-type": "application/json"}, b'{"model":"sd3"}', 400),
}


@pytest.mark.parametrize("name", FAILED)
async def test_a_page_can_show_what_went_wrong(gateway: Running, name: str) -> None:
    method, path, headers, body, status = FAILED[name]
    answer = await gateway.ask(method, path, headers={**headers, "origin": APP}, data=body)
    assert answer.status == status
    assert answer.error["message"]
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["vary"] == "Origin"


async def test_another_origin_gets_no_such_header(gateway: Running) -> None:
    for headers in ({"origin": EVIL}, {}):
        answer = await gateway.ask("GET", "/v1/models", headers=headers)
        assert answer.status == 200
        assert not of_cors(answer.headers)
        assert answer.headers["vary"] == "Origin"  # a cache must not give a page what another one was given


async def test_without_the_setting_no_page_is_answered(standing: Running) -> None:
    headers = {"origin": APP, "access-control-request-method": "POST"}
    answer = await standing.ask("OPTIONS", PATHS[0], headers=headers)
    assert (answer.status, of_cors(answer.headers)) == (405, [])


async def test_without_keys_a_strange_page_gets_nothing_made(start: Start, impasto_emulator: Emulator) -> None:
    """A page may send a form to any address without asking; only its answer is kept from it."""
    text = config(impasto_emulator.url, general=f"  cors_origins: [{APP}]\n").replace("  master_key: sk-1234\n", "")
    gateway = await start(text, no_auth=True)
    del gateway.session.headers["authorization"]

    async def edit(origin: str) -> int:
        form = aiohttp.FormData({"model": "erase"}, default_to_multipart=True)
        form.add_field("image", png(96, 96), filename="a.png")
        return (await gateway.ask("POST", "/v1/images/edits", data=form, headers={"origin": origin})).status

    assert [await edit(origin) for origin in (EVIL, "null")] == [403, 403]
    assert not impasto_emulator.requests
    assert [await edit(origin) for origin in (APP, gateway.url)] == [200, 200]
