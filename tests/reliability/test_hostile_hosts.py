"""A provider that sends its callers elsewhere: nothing is requested there, and the key goes to declared hosts only."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest

import impasto
from impasto import ChargeUnknown, ImpastoError, Registry, UnusableResult
from impasto.registry import OPERATIONS
from tests.reliability.hostile import IMAGE, KEY, MODEL, PICTURE, Internet, by_path, internet, job, operation
from tests.reliability.servers import Answer, ServedRequest, Server, http, in_json

pytestmark = pytest.mark.waits

EVIL = "https://evil.example/x"
LEADS: dict[str, str] = {
    "location": EVIL,
    "refresh": f"0; url={EVIL}",
    "content-location": EVIL,
    "link": f"<{EVIL}>; rel=preload",
    "alt-svc": 'h2="evil.example:443"; ma=3600',
    "set-cookie": "session=1; Domain=.example; Path=/",
    "www-authenticate": f'Basic realm="{EVIL}"',
}
FORMS = (KEY, b64encode(KEY.encode()).decode().rstrip("="), quote(KEY, safe=""))


def leading(status: int, body: bytes = b"") -> Answer:
    return http(status, body, **{name.replace("-", "_"): value for name, value in LEADS.items()})


@asynccontextmanager
async def villain(post: Answer, other: Answer, **settings: Any) -> AsyncIterator[tuple[impasto.Client, Internet]]:
    registry = Registry()
    registry.add(OPERATIONS, MODEL, operation())
    async with internet(Server(posts=[post], polls=[other])) as web:
        options = {"timeout": 1.0, "poll_interval": 0.01, "proxy": web.url, "ssl": web.trust, **settings}
        own = {"villain": {"api_key": KEY}}
        async with impasto.Client(registry=registry, providers=own, **options) as client:
            yield client, web
        hosts = {*web.hosts, *(request.header("host") for request in web.server.requests)}
        assert not {each for each in hosts if "evil" in str(each)}
        assert not [request for request in web.server.requests if request.header("cookie")], "nobody asked for a cookie"


def keys_sent(web: Internet) -> set[str | None]:
    """The hosts that got the key in any form."""
    return {request.header("host") for request in web.server.requests if has_key(request)}


def has_key(request: ServedRequest) -> bool:
    sent = request.head.decode("latin-1") + request.path + request.body.decode("latin-1")
    return any(form in sent for form in FORMS)


@pytest.mark.parametrize("status", [200, 201, 300, 301, 302, 303, 305, 307, 308, 401, 407])
async def test_headers_of_a_paid_answer_lead_nowhere(status: int) -> None:
    async with villain(leading(status), PICTURE) as (client, web):
        with pytest.raises(ImpastoError) as caught:
            await client.run(MODEL, prompt="a kite")
        assert [request.path for request in web.server.requests] == ["/submit"]
    assert caught.value.billed != "no"
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["status", "download", "signed", "cancel"])
async def test_headers_of_a_free_answer_lead_nowhere(status: int, place: str) -> None:
    url = f"https://cdn.villain.example/{place}"
    answers: dict[str, Answer] = dict.fromkeys(("status", "download", "signed", "cancel"), PICTURE)
    match place:
        case "download" | "signed":
            jobs = in_json({"url": url, "anonymous": place == "signed", "is_ready": True})
        case "status":
            jobs = job()
        case _:
            jobs, answers["status"] = job(cancel="/cancel"), job(cancel="/cancel")
    answers[place] = leading(status)
    async with villain(jobs, by_path(**answers)) as (client, web):
        with pytest.raises(ChargeUnknown) as caught:
            await client.run(MODEL, prompt="a kite")
        requests = [each.path for each in web.server.requests]
        assert requests.count("/submit") == 1
        assert {*requests} == {"/submit", f"/{place}", *(["/status"] if place == "cancel" else [])}
        assert requests.count("/cancel") == (place == "cancel")
        cdn = {"cdn.villain.example"} if place == "download" else set()
        assert keys_sent(web) == {"api.villain.example", *cdn}
    assert "evil" not in str(caught.value)


async def test_a_job_that_moves_from_host_to_host_takes_the_key_to_declared_ones_alone() -> None:
    steps = {
        "submit": in_json({"url": "https://eu.villain.cloud/one"}),
        "one": in_json({"url": "https://cdn.villain.example/two"}),
        "two": in_json({"url": "https://api.villain.example/three"}),
        "three": in_json({"url": "https://cdn.villain.example/image", "anonymous": True, "is_ready": True}),
        "image": PICTURE,
    }
    async with villain(by_path(**steps), by_path(**steps), timeout=5.0) as (client, web):
        result = await client.run(MODEL, prompt="a kite")
        assert result.artifacts[0].data == IMAGE
        *others, last = web.server.requests
        assert [has_key(each) for each in others] == [True] * 4
        assert not has_key(last)


async def test_a_job_that_moves_out_ends_there() -> None:
    out = in_json({"url": EVIL})
    async with villain(job(), out, timeout=5.0) as (client, web):
        with pytest.raises(UnusableResult, match=r"evil\.example is not a host of the provider") as caught:
            await client.run(MODEL, prompt="a kite")
        assert [request.path for request in web.server.requests] == ["/submit", "/status", "/status", "/status"]
    assert (caught.value.id, caught.value.billed) == ("j1", "yes")


async def test_a_resumed_job_takes_the_key_nowhere_else() -> None:
    async with villain(PICTURE, in_json({"url": EVIL}), timeout=5.0) as (client, web):
        with pytest.raises(UnusableResult, match=r"evil\.example is not a host of the provider"):
            await client.resume(MODEL, "j1")
        with pytest.raises(ImpastoError):
            await client.resume(MODEL, "../../../evil.example/\r\nhost: evil.example")
        assert keys_sent(web) == {"api.villain.example"}
        assert not [request for request in web.server.requests if b"evil" in request.head]
