"""Checks of the requests that a transport sends, and of its connections; with its declarations."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, cast

import attrs

from impasto import (
    Account,
    Client,
    File,
    FileRef,
    ImpastoError,
    InvalidRequest,
    JSONValue,
    Operation,
    Request,
    Result,
    WireRequest,
)
from impasto.testing.places import MISSING, Content
from impasto.testing.probe import (
    GOOD,
    MODEL,
    PATH,
    Plugins,
    ProbeDialect,
    WatchedCall,
    check_opens,
    find_plugins,
    probe_client,
)
from impasto.testing.recorder import RecordedRequest, Recorder, always, recording
from impasto.testing.subject import KEY
from impasto.testing.watch import Limited, check, run

PROMPT = "a lighthouse \N{WATER WAVE}"
_NOWHERE = "http://127.0.0.1:9"
_OTHER_KEY = "sk-other-8c03b7d2e9f1a645"
SOON = 0.5
"""Seconds in which a closed client must have closed its connections."""
_PAUSE = 0.05
FILE = bytes(range(256)) * 8


class RequestChecks(Limited):
    """Checks of requests."""

    transport: ClassVar[str] = ""
    """The installed name of the transport."""
    factory: ClassVar[type | None] = None
    """The transport's class, if it is not installed."""
    provider_settings: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Settings of the transport, as in ``Client(providers=...)``."""
    streams: ClassVar[bool] = True
    """False for a transport that gives whole answers only, so that partial images come as late as the result."""

    def prepare(self) -> None:
        """Find the transport before a loop runs."""
        assert self.transport, "declare transport, the installed name of the transport"
        self.plugins = find_plugins(self.transport, self.factory)
        run(check_opens("the transport", self.client(_NOWHERE)))

    def client(self, url: str, dialect: ProbeDialect | None = None) -> Client:
        """Return a client of the probe that uses the transport."""
        return probe_client(url, KEY, self.plugins, dialect or ProbeDialect(), settings=self.provider_settings)

    @check
    def test_a_request_arrives_whole(self) -> None:
        """Check the method, path, key, headers, fields and files, as JSON and as a form; the answer comes whole."""
        for encoding in ("json", "form"):
            dialect = ProbeDialect(encoding=encoding, headers={"x-probe": "1"})
            came, requests, _ = run(self.call(always(GOOD), dialect))
            assert isinstance(came, Result), f"the good answer ended in {came!r}"
            assert [request.method for request in requests] == ["POST"], f"it sent {len(requests)} requests"
            assert requests[0].target == PATH, f"the path is {requests[0].target}"
            content = Content(requests[0])
            assert content.at("header:x-key") == KEY, "the key's header did not arrive"
            assert content.at("header:x-probe") == "1", "a header of the request did not arrive"
            assert content.is_form == (encoding == "form"), f"a request with encoding={encoding!r} has another form"
            whole = requests[0].body
            assert all(place in content.body for place in ("prompt", "image")), (
                f"the body lacks a field: {whole[:200]!r}"
            )

    @check
    def test_every_kind_of_request_arrives(self) -> None:
        """Check nested JSON, a form with several files of one name, a query, a GET of another host, and the key."""
        one, two, image = (File.of(FILE[:size]) for size in (100, 200, 300))
        nested: dict[str, JSONValue] = {"text": PROMPT, "n": 3, "half": 0.5, "on": True, "off": None}
        nested["list"] = [1, {"image": FileRef(image), "url": FileRef(image, data_url=True)}]
        wires = {
            "nested JSON": WireRequest(target=f"{PATH}?a=1&b=%C3%A9", fields=nested, encoding="json"),
            "a form": WireRequest(
                target=PATH,
                fields={"text": PROMPT, "n": 3, "on": True},
                files=[("image[]", one), ("image[]", two), ("mask", image)],
            ),
        }
        for what, wire in wires.items():
            expected, found = (self._sent(wire, plugins) for plugins in (_builtin(), self.plugins))
            assert found.target == expected.target, f"{what}: the target is {found.target}, not {expected.target}"
            assert Content(found).body == Content(expected).body, (
                f"{what}: the body has not the fields and files of the request, in their order: {found.body[:300]!r}"
            )
        for anonymous in (False, True):
            wire = WireRequest(url="{other_url}/v1/files/7.png?sig=1", method="GET", anonymous=anonymous)
            found, what = self._sent(wire, self.plugins), "an anonymous GET" if anonymous else "a GET"
            arrived = (found.method, found.host, found.target)
            assert arrived == ("GET", "other_url", "/v1/files/7.png?sig=1"), f"{what} of another host is {arrived}"
            key = found.header("x-key")
            assert key == ("" if anonymous else KEY), f"{what} has {'the' if key else 'no'} key"
        put = self._sent(WireRequest(target=f"{PATH}/7/cancel", method="PUT"), self.plugins)
        assert (put.method, put.target) == ("PUT", f"{PATH}/7/cancel"), f"a PUT arrived as {put.method} {put.target}"

    @check
    def test_each_request_has_the_key_of_its_own_account(self) -> None:
        """Check two accounts of one client, a key in the query, and a client that goes on after another is closed."""
        keys = run(self._keys_of_two_accounts())
        assert keys == [KEY, _OTHER_KEY], (
            "a request of a second account has the key of the first: the key is in wire.call.account.headers, of each "
            "request anew"
        )
        for anonymous in (False, True):
            wire = WireRequest(url="{other_url}/v1/files/7.png", method="GET", anonymous=anonymous)
            query = Content(self._sent(wire, self.plugins, key_query="key")).at("query:key")
            expected = MISSING if anonymous else KEY
            assert query == expected, (
                f"a key in the query is {'there' if anonymous else 'not there'}, and the request is "
                f"{'anonymous' if anonymous else 'not'}: add wire.call.account.query to the address"
            )

    @check
    def test_a_request_that_is_too_large_is_not_sent(self) -> None:
        """Check ``WireRequest.max_bytes``, the limit of the whole request: InvalidRequest, and nothing is sent."""
        for encoding in ("json", "form"):
            dialect = ProbeDialect(encoding=encoding, max_bytes=len(FILE))
            came, requests, _ = run(self.call(always(GOOD), dialect))
            assert not requests, (
                f"a request of more than max_bytes was sent (encoding={encoding!r}): compare its size before it is sent"
            )
            assert isinstance(came, InvalidRequest), f"a request of more than max_bytes ended in {came!r}"

    @check
    def test_nothing_is_open_after_the_client(self) -> None:
        """Check that connections are closed with the client, and that nothing else is left to the garbage collector."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            is_closed = run(self._keep_alive())
            gc.collect()
        assert is_closed, "a connection is still open after the client is closed: close it in aclose"
        left = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
        assert not left, f"it left open: {left[0]}"

    async def call(
        self, answering: object, dialect: ProbeDialect | None = None
    ) -> tuple[object, list[RecordedRequest], Recorder]:
        """Return the outcome of a call that is answered so, its requests and the recorder."""
        WatchedCall.open_count = 0
        async with recording(answering) as recorder:  # type: ignore[arg-type]  # an answering or _leave
            return await self.call_at(recorder.url, dialect), recorder.requests, recorder

    async def call_at(self, url: str, dialect: ProbeDialect | None = None) -> object:
        """Return the outcome of a call to an address."""
        async with self.client(url, dialect) as client:
            params = {"prompt": PROMPT, "image": FILE}
            try:
                return await client.invoke(MODEL, params, call=WatchedCall)
            except ImpastoError as error:
                return error

    async def _keys_of_two_accounts(self) -> list[str]:
        """Return the keys that arrive from two accounts of a client, after another client was closed."""
        async with recording(always(GOOD)) as recorder, self.client(recorder.url) as client:
            async with self.client(recorder.url) as another:
                for each in (client, another):
                    await each.invoke(MODEL, {"prompt": PROMPT})
            recorder.requests.clear()
            own = {"probe": {"api_base": recorder.url, "api_key": _OTHER_KEY}}
            for each in (client, client.with_options(providers={**self.provider_settings, **own})):
                try:
                    await each.invoke(MODEL, {"prompt": PROMPT})
                except ImpastoError as error:
                    raise AssertionError(f"after another client was closed a call ended in {error!r}") from error
            return [request.header("x-key") for request in recorder.requests]

    def _sent(self, wire: WireRequest, plugins: Plugins, key_query: str | None = None) -> RecordedRequest:
        """Return a request as a transport sent it."""

        async def send() -> RecordedRequest:
            async with recording(always(GOOD), ("url", "other_url")) as recorder:
                address = None if wire.url is None else wire.url.replace("{other_url}", recorder.urls["other_url"])
                dialect = _WireDialect(wire=attrs.evolve(wire, url=address), key_query=key_query)
                async with probe_client(recorder.url, KEY, plugins, dialect, settings=self.provider_settings) as client:
                    try:
                        if wire.method == "GET":
                            await client.resume(MODEL, "7")
                        else:
                            await client.invoke(MODEL, {"prompt": PROMPT})
                    except ImpastoError as error:
                        if not recorder.requests:
                            raise AssertionError(f"a {wire.method} did not arrive, but ended in {error!r}") from error
                return recorder.requests[0]

        return run(send())

    async def _keep_alive(self) -> bool:
        """Return True if a connection that the provider leaves open is closed when the client is."""
        provider = OpenProvider(GOOD.to_bytes().replace(b"connection: close", b"connection: keep-alive"))
        async with provider.serving() as url:
            async with self.client(url) as client:
                await client.invoke(MODEL, {"prompt": PROMPT})
            return await provider.closes()


class OpenProvider(asyncio.Protocol):
    """A provider that answers and leaves its connection open."""

    def __init__(self, answer: bytes) -> None:
        self.came, self.is_closed = asyncio.Event(), asyncio.Event()
        self._bytes = answer
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer when no more of the request comes."""
        self.came.set()
        if self._answer is not None:
            self._answer.cancel()
        self._answer = asyncio.get_running_loop().call_later(_PAUSE, self.send, self._bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the other side closed it."""
        self.is_closed.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve one connection for a block, and yield the address."""
        async with await asyncio.get_running_loop().create_server(lambda: self, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            yield f"http://{host}:{port}"
            if self._transport is not None:
                self._transport.abort()

    async def closes(self) -> bool:
        """Return True if the other side closes the connection soon."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_closed.wait(), SOON)
        return self.is_closed.is_set()

    def send(self, data: bytes) -> None:
        """Send bytes of an answer."""
        if self._transport is not None:
            self._transport.write(data)


@attrs.define
class _WireDialect(ProbeDialect):
    """Sends one request as it is."""

    wire: WireRequest = attrs.field(factory=WireRequest)

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the request."""
        return self.wire


@functools.cache
def _builtin() -> Plugins:
    return find_plugins("https")
