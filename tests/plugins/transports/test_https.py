"""The proof that nothing left. What follows from it: tests/reliability/test_connection_faults.py."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from asyncio import selector_events, sslproto
from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trustme
from aiohttp.connector import Connection

import impasto
from impasto.ext import Options
from impasto_plugins.stability.provider import stability
from impasto_plugins.transports.connections import Connector
from impasto_plugins.transports.https import MAX_PER_TURN, HttpsTransport, Turns
from tests.reliability.conftest import CORE, FAST, KEY
from tests.reliability.servers import Server, Wire, picture, raw, refused, serving
from tests.reliability.test_proxies import proxying

Events = list[str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What happened, in order: ``left`` is the call's evidence, ``headers sent`` the first bytes of a POST."""
    records: Events = []

    def note_posts(transport: type[asyncio.Transport]) -> None:
        write = transport.write

        def noted(self: asyncio.Transport, data: bytes) -> None:
            if bytes(data[:5]) == b"POST ":
                records.append("headers sent")
            write(self, data)

        monkeypatch.setattr(transport, "write", noted)

    left = impasto.Call.mark_headers_sent

    def noted(call: impasto.Call) -> None:
        records.append("left")
        left(call)

    note_posts(vars(selector_events)["_SelectorSocketTransport"])
    note_posts(vars(sslproto)["_SSLProtocolTransport"])
    monkeypatch.setattr(impasto.Call, "mark_headers_sent", noted)
    return records


async def outcome(base: str, **settings: Any) -> impasto.ImpastoError | impasto.Result:
    async with impasto.Client(api_key=KEY, api_base=base, retry=FAST, timeout=5, **settings) as client:
        try:
            return await client.run(CORE, prompt="p")
        except impasto.ImpastoError as error:
            return error


def on_first_connection(monkeypatch: pytest.MonkeyPatch, act: Callable[[Connection], Awaitable[None]]) -> None:
    """Act on the first connection when it has been made, before a request is sent on it."""
    connect, numbers = Connector.connect, itertools.count()

    async def connect_and_act(self: Connector, *arguments: Any) -> Connection:
        connection = await connect(self, *arguments)
        if next(numbers) == 0:
            await act(connection)
        return connection

    monkeypatch.setattr(Connector, "connect", connect_and_act)


@pytest.mark.parametrize(
    ("answers", "attempts"),
    [([picture()], 1), ([refused(500), picture()], 2), ([raw(end="reset")], 1), ([refused(402)], 1)],
)
async def test_headers_are_reported_before_they_are_sent(events: Events, answers: list[Any], attempts: int) -> None:
    async with serving(Server(posts=answers)) as server:
        await outcome(server.url)
    assert events == ["left", "headers sent"] * attempts


async def test_a_connection_that_ended_as_it_was_made_is_not_a_sent_request(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio would drop what is written to it. Another is made: it is proved that nothing left."""

    async def close(connection: Connection) -> None:
        assert connection.transport is not None
        connection.transport.close()

    on_first_connection(monkeypatch, close)
    async with serving() as server:
        assert isinstance(await outcome(server.url), impasto.Result)
        assert (len(server.paid), server.connections) == (1, 2)
    assert events == ["left", "headers sent"]


@pytest.mark.parametrize("head", [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 503", b"busy\r\n"])
async def test_an_answer_before_any_request_is_no_answer_to_it(
    events: Events, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """A server that is full says so to a new connection. Nothing was sent on it, and nothing is."""

    async def speak_first(wire: Wire) -> None:
        if server.connections == 1:
            await wire.send(head)

    async def receive(connection: Connection) -> None:
        assert connection.protocol is not None
        while not connection.protocol.should_close:
            await asyncio.sleep(0)

    on_first_connection(monkeypatch, receive)
    async with serving(Server(on_connect=speak_first)) as server:
        assert isinstance(await outcome(server.url), impasto.Result)
        assert (len(server.paid), server.connections) == (1, 2)
    assert events == ["left", "headers sent"]


async def test_no_headers_are_reported_if_none_are_sent(events: Events) -> None:
    async def not_understood(wire: Wire) -> None:
        await wire.reader.read(4096)
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wire.close()

    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(stranger)
    async with serving(Server(on_connect=not_understood)) as plain, serving(tls=stranger) as untrusted:
        errors = [
            await outcome("https://nowhere.invalid"),
            await outcome("http://127.0.0.1:9"),
            await outcome(plain.url.replace("http:", "https:")),
            await outcome(untrusted.url),
        ]
    assert [type(error) for error in errors] == [impasto.NotSent] * 4
    assert events == []


async def test_a_connect_to_a_proxy_is_not_a_sent_request(events: Events) -> None:
    async with proxying(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n") as proxy:
        error = await outcome("https://api.example.com", proxy=proxy.url)
    assert isinstance(error, impasto.NotSent)
    assert proxy.tunnels == ["api.example.com:443"]
    assert events == []


async def test_a_request_has_only_the_documented_headers() -> None:
    async with serving() as server:
        assert isinstance(await outcome(server.url), impasto.Result)
        requested = server.paid[0]
    names = {line.partition(":")[0].lower() for line in requested.head.decode().split("\r\n")[1:] if line}
    assert names == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "authorization",
        "content-type",
        "content-length",
    }
    assert requested.header("accept-encoding") == "identity"
    assert requested.header("accept") == "image/*"


@pytest.mark.parametrize(
    "target",
    ["@127.0.0.1:9/", ".evil.example/", "v1", "", "/a b", "/a\r\nx: y", "/a\r\n\r\nGET / HTTP/1.1", "/\x00", "/é"],
)
async def test_a_plugins_target_can_not_change_the_host_or_add_headers(target: str) -> None:
    """What a third party's plugin makes of a job's id, say, is not the place where the key goes."""

    @impasto.hookimpl(wrapper=True)
    def transform_request(request: impasto.Request) -> Any:
        return attrs.evolve((yield), target=target)

    plugin = SimpleNamespace(transform_request=transform_request, middleware=None)
    async with serving() as server:
        error = await outcome(server.url, middleware=[plugin])
        assert isinstance(error, impasto.BrokenPlugin)
        assert error.billed == "no"
        assert server.connections == 0


async def test_a_limited_number_of_callers_continues_in_one_turn_of_the_loop() -> None:
    turns, went, turn = Turns(), list[int](), 0

    async def one() -> None:
        await turns()
        went.append(turn)

    calls = [asyncio.ensure_future(one()) for _ in range(10 * MAX_PER_TURN)]
    calls[MAX_PER_TURN + 1].cancel()  # one who waits; its place is another's
    while not all(call.done() for call in calls):
        await asyncio.sleep(0)
        turn += 1
    assert len(went) == len(calls) - 1
    assert max(Counter(went).values()) == MAX_PER_TURN


async def test_a_single_caller_does_not_wait() -> None:
    turns = Turns()
    with pytest.raises(StopIteration):
        turns().send(None)


async def test_a_poll_counts_as_written_before_its_answer_comes() -> None:
    """It has no body, and its rate window must not wait for the end of one."""
    silence = asyncio.Event()

    async def say_nothing(wire: Wire) -> None:
        await silence.wait()

    transport = HttpsTransport(Options())
    await transport.open()
    async with serving(Server(on_connect=say_nothing)) as server:
        account = stability.account({"api_key": KEY, "api_base": server.url})
        request = impasto.Request(operation="x/y", params=impasto.Retry(), target="/")
        call = impasto.Call(request, account, timeout=9, retry=impasto.Retry())
        written = asyncio.Event()
        call.on_written = written.set
        poll = asyncio.create_task(transport.exchange(call, "GET", f"{server.url}/x", {}))
        await asyncio.wait_for(written.wait(), 5)
        assert not poll.done()
        poll.cancel()
        silence.set()
    await transport.aclose()


async def test_a_closed_transport_sends_nothing_and_no_retry_would_help() -> None:
    transport = HttpsTransport(Options())
    await transport.open()
    await transport.aclose()
    for method in ("GET", "POST"):
        with pytest.raises(impasto.NotSent, match="the client is closed; nothing was sent") as caught:
            await transport.exchange(cast(Any, None), method, "https://127.0.0.1:9/", {})
        assert not caught.value.retryable


async def test_the_certificates_of_the_client_are_checked_unless_a_call_has_its_own() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with serving(tls=context) as server:
        assert isinstance(await outcome(server.url, ssl=trusted), impasto.Result)
        stranger = await outcome(server.url, ssl=ssl.create_default_context())
    assert isinstance(stranger, impasto.NotSent)
    assert "certificate of" in stranger.message


async def test_the_status_of_an_answer_is_known_though_its_body_is_damaged_in_the_same_packet() -> None:
    damaged = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n\r\n"
    async with serving(Server(posts=[raw(damaged)])) as server:
        error = await outcome(server.url)
    assert isinstance(error, impasto.ChargeUnknown)
    assert error.status == 200
