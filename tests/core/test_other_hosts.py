"""Requests to the provider's other hosts: the key goes to declared ones only, and signed addresses get none."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import attrs
import pytest
import trustme

import impasto
from impasto import (
    Account,
    Artifact,
    BrokenPlugin,
    ChargeUnknown,
    Operation,
    Pending,
    Provider,
    Registry,
    Request,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.fields import text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, Recorder, recording
from tests.images import png

KEY = "sk-canary-other-hosts-1f9a"
IMAGE = png(64, 64)
JSON = {"content-type": "application/json"}
PICTURE = Answer(headers={"content-type": "image/png"}, body=IMAGE)


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)


@attrs.frozen
class Dialect:
    """Submit, follow the address of the answer until it is an image. ``wire`` changes the first request."""

    wire: Mapping[str, Any] = {}

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        return WireRequest(**{"target": request.target, "fields": {"prompt": "a kite"}, **self.wire})

    def classify_error(self, operation: Operation, response: WireResponse) -> ChargeUnknown | None:
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))
        body = json.loads(response.body)
        poll = WireRequest(url=body["url"], anonymous=body.get("signed", False), method=body.get("method", "GET"))
        return Pending(id="job-1", poll=poll, is_ready=True)


def operation(dialect: Dialect = Dialect(), **settings: Any) -> Operation:
    provider = Provider(
        name="acme", base_url="https://api.acme.example", **{"key_header": "x-key", "key_prefix": "", **settings}
    )
    return Operation(id="acme/x", title="X", params=Params, target="/submit", provider=provider, dialect=dialect)


@asynccontextmanager
async def client_of(model: Operation, base: str | None = None, **settings: Any) -> AsyncIterator[impasto.Client]:
    registry = Registry()
    registry.add(OPERATIONS, "acme/x", model)
    own = {"api_base": base, "api_key": KEY, **settings.pop("own", {})}
    async with impasto.Client(registry=registry, providers={"acme": own}, timeout=20, **settings) as client:
        yield client


def leads_to(url: str, **more: object) -> Answer:
    return Answer(headers=JSON, body=json.dumps({"url": url, **more}).encode())


@attrs.define
class Internet:
    """A proxy that leads every name to one server with a certificate for ``*.example``, and records the tunnels."""

    recorder: Recorder
    context: ssl.SSLContext
    url: str = ""
    tunnels: list[str] = attrs.field(factory=list[str])

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.tunnels.append(head.split(b" ")[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(self.context)
            await self.recorder.serve("url", reader, writer)
        writer.close()

    @property
    def visits(self) -> list[tuple[str, str]]:
        """The host and the target of every request."""
        return [(each.header("host"), each.target) for each in self.recorder.requests]


@asynccontextmanager
async def internet(*answers: Answer) -> AsyncIterator[tuple[Internet, ssl.SSLContext]]:
    authority, left = trustme.CA(), [*answers]
    server, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("api.acme.example", "cdn.example", "eu.acme.cloud", "evil.example").configure_cert(server)
    authority.configure_trust(trust)
    proxy = Internet(Recorder(lambda _: left.pop(0)), server)
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy, trust
    finally:
        listener.close()


async def test_the_key_goes_to_declared_hosts_and_a_signed_address_gets_none() -> None:
    poll, fetch = leads_to("https://eu.acme.cloud/poll?id=1"), leads_to("https://cdn.example/a?sig=b", signed=True)
    model = operation(hosts=("*.acme.cloud", "cdn.example"))
    async with (
        internet(poll, fetch, PICTURE) as (web, trust),
        client_of(model, proxy=web.url, ssl=trust) as client,
    ):
        result = await client.run("acme/x", prompt="a kite")
    assert result.artifacts[0].data == IMAGE
    assert web.visits == [
        ("api.acme.example", "/submit"), ("eu.acme.cloud", "/poll?id=1"), ("cdn.example", "/a?sig=b")
    ]  # fmt: skip
    *others, last = web.recorder.requests
    assert [each.header("x-key") for each in others] == [KEY, KEY]
    assert KEY not in f"{last.headers}{last.target}{last.body!r}"


async def test_a_poll_that_leads_out_ends_with_one_clear_error() -> None:
    poll, out = leads_to("https://eu.acme.cloud/poll?id=1"), leads_to("https://evil.example/a?sig=secret")
    model = operation(hosts=("*.acme.cloud",))
    async with (
        internet(poll, out, out, out) as (web, trust),
        client_of(model, proxy=web.url, ssl=trust, poll_interval=0.01) as client,
    ):
        with pytest.raises(UnusableResult, match=r"evil\.example is not a host of the provider") as caught:
            await client.run("acme/x", prompt="a kite")
    assert {each for each, _ in web.visits} == {"api.acme.example", "eu.acme.cloud"}
    assert (caught.value.id, caught.value.billed, "secret" in str(caught.value)) == ("job-1", "yes", False)


NOT_DECLARED: tuple[Any, ...] = (
    "https://evil.example/x",
    "https://eu.acme.cloud.evil.example/x",
    "https://eu.acme.cloud@evil.example/x",
    "https://api.acme.example\\@evil.example/",
    "https://acme.cloud/x",
    "https://evilacme.cloud/x",
    "https://.acme.cloud/x",
    "https://sub.cdn.example/x",
    "http://eu.acme.cloud/x",
    "https://eu.acme.cloud:8443/x",
    "https://api.acme.example:443/x",
    "https://u:p@eu.acme.cloud/x",
    "https://eu.acme.cloud./x",
    "https://eu.acme.cloud/x#y",
    "https://eu.acme.cloud/x y",
    "https://eu.acme.cloud/\r\nx: y",
    "https://eu.acme.cloud%2eevil.example/",
    "https://93.184.216.34/x",
    "https://2130706433/x",
    "https://[::1]/x",
    "https://127.0.0.1/x",
    "http://localhost/x",
    "https:/eu.acme.cloud/",
    "//eu.acme.cloud/",
    "/x",
    "",
    "file:///etc/passwd",
    "wss://eu.acme.cloud/x",
    "https://eu.acme.cloud/" + "x" * 10_000,
    "https://\u0435u.acme.cloud/",  # a Cyrillic e
    7,
)


async def test_an_address_that_is_not_declared_is_never_requested() -> None:
    answers = [leads_to(url, signed=signed) for url in NOT_DECLARED for signed in (False, True)]
    model = operation(hosts=("*.acme.cloud", "cdn.example"))
    async with internet(*answers) as (web, trust), client_of(model, proxy=web.url, ssl=trust) as client:
        for answer in answers:
            with pytest.raises(UnusableResult, match="the answer leads to an address that is not followed") as caught:
                await client.run("acme/x", prompt="a kite")
            assert (caught.value.raw, caught.value.billed) == (answer.body, "yes")
            assert caught.value.id == "job-1", "the job was accepted, and can be resumed at the plugin's own address"
    assert {*web.tunnels} == {"api.acme.example:443"}
    assert len(web.visits) == len(answers)


async def test_the_error_names_the_host_and_no_signature() -> None:
    answer = leads_to("https://evil.example/a.png?sig=secret")
    async with internet(answer) as (web, trust), client_of(operation(), proxy=web.url, ssl=trust) as client:
        with pytest.raises(UnusableResult, match=r"evil\.example is not a host of the provider") as caught:
            await client.run("acme/x", prompt="a kite")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 303, 307])
async def test_a_redirect_is_not_followed(status: int) -> None:
    redirect = Answer(status=status, headers={"location": "https://evil.example/"})
    model = operation(hosts=("cdn.example", "evil.example"))
    async with (
        internet(leads_to("https://cdn.example/x"), redirect, PICTURE) as (web, trust),
        client_of(model, proxy=web.url, ssl=trust) as client,
    ):
        await client.with_options(poll_interval=0.01).run("acme/x", prompt="a kite")
    assert web.visits == [("api.acme.example", "/submit"), ("cdn.example", "/x"), ("cdn.example", "/x")]


@pytest.mark.parametrize(
    ("url", "requested"),
    [
        ("https://API.acme.example/x?y=1", "https://api.acme.example/x?y=1"),
        ("https://a.b.acme.cloud/x/../y;z=1@2", "https://a.b.acme.cloud/x/../y;z=1@2"),
        ("https://cdn.example", "https://cdn.example/"),
        ("HTTPS://cdn.example?x", "https://cdn.example/?x"),
    ],
)
def test_declared_hosts(url: str, requested: str) -> None:
    account = operation(hosts=("*.acme.cloud", "cdn.example")).provider.account({"api_key": KEY})
    assert account.check_url(url) == requested


@pytest.mark.parametrize(
    "url", ["https://cdn.example/x", "http://10.0.0.1/x", "http://localhost.evil.example/", "http://0.0.0.0/x"]
)
async def test_a_stand_in_on_this_machine_leads_nowhere_else(url: str) -> None:
    async with (
        recording(lambda _: leads_to(url)) as api,
        client_of(operation(hosts=("cdn.example",)), api.url) as client,
    ):
        with pytest.raises(UnusableResult, match="is not this machine"):
            await client.run("acme/x", prompt="a kite")
    assert len(api.requests) == 1


async def test_a_stand_in_may_have_several_ports() -> None:
    async with (
        recording(lambda _: PICTURE) as files,
        recording(lambda _: leads_to(f"{files.url.replace('127.0.0.1', 'localhost')}/a?sig=b", signed=True)) as api,
        client_of(operation(), api.url) as client,
    ):
        result = await client.run("acme/x", prompt="a kite")
    assert result.artifacts[0].data == IMAGE
    assert [each.target for each in (*api.requests, *files.requests)] == ["/submit", "/a?sig=b"]
    assert KEY not in str(files.requests[0].headers)


async def test_a_paid_request_to_another_address_is_never_sent() -> None:
    async with (
        recording(lambda _: PICTURE) as other,
        recording(lambda _: PICTURE) as api,
        client_of(operation(Dialect({"url": f"{other.url}/x"})), api.url) as client,
    ):
        with pytest.raises(BrokenPlugin, match="a request with a url must be a GET") as caught:
            await client.run("acme/x", prompt="a kite")
    assert (other.requests, api.requests, caught.value.billed) == ([], [], "no")


@pytest.mark.parametrize(
    "host", ["*", "*.com", "acme", "https://acme.ai", "a.*.ai", "*acme.ai", "10.0.0.1", "acme.ai:80", "acme.ai/x", ""]
)
def test_a_declared_host_that_would_match_too_much_is_refused(host: str) -> None:
    with pytest.raises(BrokenPlugin, match="provider acme: invalid host .*; give names such as"):
        operation(hosts=(host,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-note", "a\r\nx-evil: 1"),
        ("x-note", "a\n"),
        ("x-note", "\0"),
        ("x-note", "€"),
        ("x-note", 7),
        ("x note", "a"),
        ("x-note\r\nx-evil", "a"),
        ("", "a"),
    ],
)
async def test_a_header_with_a_line_break_sends_nothing_and_costs_nothing(name: str, value: Any) -> None:
    async with (
        recording(lambda _: PICTURE) as api,
        client_of(operation(Dialect({"headers": {name: value}})), api.url) as client,
    ):
        with pytest.raises(BrokenPlugin, match="a plugin's header '.*' can't be sent; give a name of") as caught:
            await client.run("acme/x", prompt="a kite")
    assert (api.requests, caught.value.billed) == ([], "no")


async def test_a_key_in_the_query_reaches_declared_hosts_and_no_log_or_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(request: RecordedRequest) -> Answer:
        if request.method == "POST":
            return leads_to(f"{api.url}/poll?id=1")
        return Answer(status=500, headers=JSON, body=json.dumps({"echo": request.target}).encode())

    async with recording(answer) as api, client_of(operation(key_query="key"), api.url) as client:
        with pytest.raises(ChargeUnknown) as caught:
            await client.with_options(timeout=0.2).run("acme/x", prompt="a kite")
        account = await client.account("acme/x")
    assert [each.target for each in api.requests[:2]] == [f"/submit?key={KEY}", f"/poll?id=1&key={KEY}"]
    assert not any(each.header("authorization") or each.header("x-key") for each in api.requests)
    texts = [str(caught.value), repr(caught.value), repr(client), repr(account), caplog.text]
    assert not any(KEY in each for each in texts)


async def test_settings_of_a_provider_reach_its_plugin_and_others_are_refused() -> None:
    got: list[Mapping[str, str]] = []

    class Noting(Dialect):
        def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
            got.append(account.settings)
            return super().transform_request(operation, request, account)

    model = attrs.evolve(operation(settings=("project", "location")), dialect=Noting())
    async with recording(lambda _: PICTURE) as api, client_of(model, api.url, own={"project": "kites"}) as client:
        await client.run("acme/x", prompt="a kite")
        for own, problem in {
            ("projct", "kites"): "unknown setting 'projct' of acme; allowed: api_key, api_base, project, location",
            ("project", 7): "project of acme must be text, not a whole number",
            ("project", ""): "project of acme must be text, not empty",
        }.items():
            async with client_of(model, api.url, own=dict([own])) as client:
                with pytest.raises(impasto.ConfigError, match=problem):
                    await client.run("acme/x", prompt="a kite")
    assert got == [{"project": "kites"}]
    assert len(api.requests) == 1


def test_two_projects_are_two_accounts() -> None:
    provider = operation(settings=("project",)).provider
    first, second = (provider.account({"api_key": KEY, "project": each}) for each in ("a", "b"))
    assert first.fingerprint != second.fingerprint
    assert cast("object", first) != second
