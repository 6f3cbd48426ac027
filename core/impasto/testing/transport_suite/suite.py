"""The suite that every transport must pass: subclass it in a test module, and name the transport."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import attrs
import pytest

from impasto import (
    ChargeUnknown,
    ImpastoError,
    NotSent,
    Partial,
    Result,
)
from impasto.client_state import Transport
from impasto.options import Options
from impasto.registry import TRANSPORTS
from impasto.server_events import EVENT_STREAM
from impasto.testing.probe import (
    BODY,
    DONE,
    GOOD,
    MODEL,
    PARTIAL,
    JobDialect,
    ProbeDialect,
    StreamDialect,
    WatchedCall,
)
from impasto.testing.recorder import Answer, RecordedRequest, always, recording
from impasto.testing.subject import KEY
from impasto.testing.watch import (
    MOST_HELD,
    LoopWatch,
    blocking_calls,
    check,
    check_short_blocks,
    held_bytes,
    logged_lines,
    run,
)

from .requests import FILE, PROMPT, SOON, OpenProvider
from .signatures import SignatureChecks


class TransportSuite(SignatureChecks):
    """Checks one transport through a real client, over real sockets.

    class TestTunnel(TransportSuite):
        transport = "tunnel"
    """

    @check
    def test_it_opens_and_closes(self) -> None:
        """Check ``open`` and ``aclose``: unopened, opened, and twice."""

        async def cycle() -> None:
            create = cast("type[Transport]", self.plugins[TRANSPORTS, self.transport])
            for opens in (False, True):
                transport = create(Options(providers=self.provider_settings))
                if opens:
                    await transport.open()
                await transport.aclose()
                await transport.aclose()

        run(cycle())

    @check
    def test_an_answer_comes_as_it_was_sent(self) -> None:
        """Check the status, the headers, whose names become lower case, and every byte of a small and a large body."""
        large = attrs.evolve(GOOD, body=BODY * 200)
        for answer in (GOOD, large.with_headers(retry_after="7", x_acme="a, b")):
            dialect = ProbeDialect()
            came, _, _ = run(self.call(always(answer), dialect))
            assert isinstance(came, Result), f"the good answer ended in {came!r}"
            body, size = came.artifacts[0].data, len(answer.body)
            assert body == answer.body, f"the body is not the one that was sent: {len(body):,} bytes of {size:,}"
            headers = dialect.responses[-1].headers
            assert headers.get("x-request-id") == "req-1", f"headers must have names in lower case: {sorted(headers)}"
            missing = [name.lower() for name, value in answer.headers.items() if headers.get(name.lower()) != value]
            assert not missing, f"the header {missing[0]} is lost: {sorted(headers)}"
        for status in (201, 418, 429, 500, 502, 503):
            dialect = ProbeDialect()
            _, requests, _ = run(self.call(always(Answer(status=status, body=b"x")), dialect))
            found = [response.status for response in dialect.responses]
            assert found == [status], f"HTTP {status} arrived as {found}"
            assert len(requests) == 1, f"HTTP {status} led to {len(requests)} requests: a transport never retries"

    @check
    def test_what_was_sent_is_reported(self) -> None:
        """Check that headers and body are reported, and that ``sending`` is closed."""
        run(self.call(always(GOOD)))
        call = WatchedCall.newest
        assert call.attempts_started == 1, "use wire.call.sending(paid=wire.method == 'POST') around the exchange"
        assert call.bodies_sent == 1, f"evidence.body_sent() was called {call.bodies_sent} times, not once"
        assert call.is_body_late, "evidence.body_sent() was called before evidence.headers_sent()"
        assert WatchedCall.open_count == 0, "sending was entered and not left: use it in a with block"

    @check
    def test_a_request_without_an_answer_is_charge_unknown(self) -> None:
        """Check connections that close after the request, and answers that are cut short: never NotSent."""
        half = Answer(headers={"content-type": "image/png"}, body=BODY, cut_after=1_000)
        for what, answer in (("a connection that closed", None), ("an answer that was cut short", half)):
            came, requests, _ = run(self.call(always(answer) if answer is not None else _leave))
            assert isinstance(came, ChargeUnknown), f"{what} ended in {came!r}, not in ChargeUnknown"
            assert len(requests) == 1, f"{what} led to {len(requests)} requests: a transport never retries"
            assert WatchedCall.newest.sent, f"{what}: evidence.headers_sent() was not called before it"
            if answer is not None:
                assert came.raw == BODY[:1_000], "the bytes of an answer that was cut short are not in .raw"

    @check
    def test_no_connection_is_not_sent(self) -> None:
        """Check a closed port: NotSent, which may be sent again."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        came = run(self.call_at(url))
        assert isinstance(came, NotSent), f"a closed port ended in {came!r}, not in NotSent"
        assert came.billed == "no", f"a closed port: billed is {came.billed!r}"
        assert came.retryable, "a closed port: the error is not retryable"
        assert not WatchedCall.newest.sent, (
            "a closed port: evidence.headers_sent() was called, although nothing can leave before there is a connection"
        )

    @check
    def test_a_redirect_is_not_followed(self) -> None:
        """Check that a redirect is an answer, and that nothing goes to where it points."""

        async def call() -> None:
            async with recording(always(GOOD)) as other:
                away = Answer(status=307, headers={"location": f"{other.url}/elsewhere"})
                came, requests, _ = await self.call(always(away))
                assert not other.requests, "a redirect was followed: the key went to another host"
                assert len(requests) == 1, f"a redirect led to {len(requests)} requests"
                assert isinstance(came, ChargeUnknown), f"a redirect ended in {came!r}"
                async with recording(always(away)) as recorder, self.client(recorder.url, JobDialect()) as client:
                    with suppress(ImpastoError):
                        await client.with_options(poll_interval=0.01, timeout=SOON).resume(MODEL, "7")
                assert not other.requests, "a redirect of a GET was followed: the key went to another host"

        run(call())

    @check
    def test_an_exchange_can_be_cancelled(self) -> None:
        """Check that a cancelled exchange ends at once, closes its connection and leaves no task."""
        run(self._cancel())

    @check
    def test_an_answer_is_not_held(self) -> None:
        """Check that the memory of requests and answers is free after their calls."""

        async def growth() -> int:
            dialect = ProbeDialect(is_recording=False)
            async with recording(always(GOOD)) as recorder, self.client(recorder.url, dialect) as client:
                client = client.with_options(timeout=self.seconds / 2)

                async def call(size: int) -> None:
                    recorder.answer = always(attrs.evolve(GOOD, body=BODY[:8] + bytes(size)))
                    await client.invoke(MODEL, {"prompt": PROMPT, "image": bytes(size)})
                    recorder.answer = always(GOOD)
                    recorder.requests.clear()

                return await held_bytes(call)

        more = run(growth())
        assert more < MOST_HELD, (
            f"{more:,} bytes of three requests and answers are held after their calls: memory grows with each call"
        )

    @check
    def test_an_event_comes_before_the_answer_ends(self) -> None:
        """Check that the first event of a stream arrives while the provider still works on the next."""
        if not self.streams:
            pytest.skip("streams = False: the transport gives whole answers")
        came = run(self._first_of_two_events())
        assert came, (
            "the first event of a stream came no earlier than the last: return WireResponse(stream=Body(chunks)), "
            "which yields what arrives, or declare streams = False"
        )

    @check
    def test_exchanges_at_once_do_not_mix(self) -> None:
        """Check ten calls at once, whose answers differ and come when all requests are there."""

        async def calls() -> None:
            count, all_came = 0, asyncio.Event()

            async def answer(request: RecordedRequest) -> Answer:
                nonlocal count
                count += 1
                if count == 10:
                    all_came.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(all_came.wait(), self.seconds / 8)
                if not all_came.is_set():
                    raise ConnectionResetError
                return Answer(headers={"content-type": "image/png"}, body=request.body)

            async with recording(answer) as recorder, self.client(recorder.url) as client:
                prompts = [f"prompt number {number}" for number in range(10)]
                started = (client.invoke(MODEL, {"prompt": each}) for each in prompts)
                results = await asyncio.gather(*started, return_exceptions=True)
            assert all_came.is_set(), f"only {count} of ten exchanges ran at once"
            for prompt, result in zip(prompts, results, strict=True):
                assert isinstance(result, Result), f"one of ten exchanges at once ended in {result!r}"
                assert prompt.encode() in result.artifacts[0].data, "a call got the answer to another one"

        run(calls())

    @check
    def test_nothing_blocks_the_loop(self) -> None:
        """Check that no file is read, no host looked up and no socket connected on the loop's thread."""

        async def call(path: Path) -> None:
            async with recording(always(GOOD)) as recorder, self.client(recorder.url) as client:
                await client.warm(MODEL)
                await client.account(MODEL)
                with blocking_calls() as found:
                    await client.invoke(MODEL, {"prompt": PROMPT, "image": path})
                assert not found, found[0]

        async def watched_calls(watches: Sequence[LoopWatch]) -> None:
            async with recording(always(GOOD)) as recorder, self.client(recorder.url) as client:
                await client.warm(MODEL)
                for watch in watches:
                    with watch.over_this_loop():
                        await client.invoke(MODEL, {"prompt": PROMPT})

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.bin"
            path.write_bytes(FILE)
            run(call(path))
        check_short_blocks(watched_calls)

    @check
    def test_no_message_and_no_log_holds_the_key(self) -> None:
        """Check errors and logs for the key."""
        with logged_lines() as lines:
            outcomes = [repr(run(self.call(answering))[0]) for answering in (always(GOOD), _leave)]
        assert not any(KEY in line for line in (*lines, *outcomes)), "the key is in a log line or an error"

    async def _cancel(self) -> None:
        tasks, provider = asyncio.all_tasks(), OpenProvider(b"")
        async with provider.serving() as url, self.client(url) as client:
            task = asyncio.ensure_future(client.invoke(MODEL, {"prompt": PROMPT}, call=WatchedCall))
            arrival = asyncio.ensure_future(provider.came.wait())
            await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
            arrival.cancel()
            assert not task.done(), f"nothing was requested: the call ended in {task.exception() or task.result()!r}"
            assert WatchedCall.newest.sent, (
                "the request has arrived, and evidence.headers_sent() was not called: call it before a byte leaves"
            )
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=self.seconds / 4)
            assert done, "a cancelled exchange goes on"
            assert task.cancelled(), "a cancelled exchange ended in an error or a result, not in CancelledError"
            assert await provider.closes(), (
                "the connection of a cancelled exchange is still open: its answer could be read as another call's"
            )
        left = asyncio.all_tasks() - tasks
        assert not left, f"a cancelled exchange left tasks: {left}"

    async def _first_of_two_events(self) -> bool:
        """Return True if the first event of an answer arrives before the second is sent."""
        head = Answer(headers={"content-type": EVENT_STREAM, "content-length": str(len(PARTIAL + DONE))}).to_bytes()
        provider, came = OpenProvider(head + PARTIAL), asyncio.Event()
        async with provider.serving() as url, self.client(url, StreamDialect()) as client:

            async def read() -> None:
                async for each in client.stream(MODEL, prompt=PROMPT):
                    if isinstance(each, Partial):
                        came.set()

            reading = asyncio.ensure_future(read())
            arrival = asyncio.ensure_future(came.wait())
            await asyncio.wait({reading, arrival}, timeout=4 * SOON, return_when=asyncio.FIRST_COMPLETED)
            arrival.cancel()
            is_first = came.is_set()
            provider.send(DONE)
            with suppress(ImpastoError):
                await reading
        return is_first


async def _leave(request: RecordedRequest) -> Answer:
    """Close the connection without an answer."""
    raise ConnectionResetError
