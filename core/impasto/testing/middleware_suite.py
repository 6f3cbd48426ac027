"""The suite that every middleware must pass: subclass it in a test module, and name the middleware."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from impasto import BrokenPlugin, Call, ChargeUnknown, Client, ImpastoError, NotSent, Result

from .probe import (
    BODY,
    GOOD,
    LIMITED,
    MODEL,
    REFUSED,
    Answering,
    JobDialect,
    PolledAnswers,
    ProbeDialect,
    check_opens,
    find_plugins,
    probe_client,
)
from .recorder import Answer
from .subject import KEY
from .watch import Limited, LoopWatch, blocking_calls, check, run

_PROMPT = {"prompt": "a lighthouse"}
_LONGEST_BLOCK = 0.03
_TRIES = 12
_NOWHERE = "http://127.0.0.1:9"


class MiddlewareSuite(Limited):
    """Checks one middleware around a model whose transport has no network.

    class TestPrinter(MiddlewareSuite):
        middleware = "printer"
    """

    middleware: ClassVar[object] = None
    """The installed name of the middleware, or the middleware itself."""
    provider_settings: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Settings of the middleware, as in ``Client(providers=...)``."""
    holds_answers: ClassVar[bool] = False
    """True for a middleware that stores answers, such as a cache, and may answer itself."""

    def prepare(self) -> None:
        """Find the plugins before a loop runs."""
        assert self.middleware is not None, "declare middleware, the installed name of the middleware"
        self._plugins = find_plugins("https", middleware=self.middleware)
        run(check_opens("the middleware", self._client(Answering(GOOD))))

    def layer(self) -> object:
        """Return the middleware for one client. Override it to construct one."""
        return self.middleware

    @check
    def test_its_position_is_one_of_the_four(self) -> None:
        """Check the hook, and the attribute ``position`` of what it returns."""
        came = run(self._call(Answering(GOOD)))
        assert not isinstance(came, BrokenPlugin), f"{came}"

    @check
    def test_a_result_passes_unchanged(self) -> None:
        """Check the artifacts and the request id of a result."""
        came = run(self._call(Answering(GOOD)))
        assert isinstance(came, Result), f"the good answer ended in {came!r}"
        assert came.artifacts[0].data == BODY, "the body changed on its way through the middleware"
        assert came.request_id == "req-1", "a header of the answer was lost in the middleware"

    @check
    def test_each_call_is_sent_once(self) -> None:
        """Check that one call is one request, and two equal calls are two unless answers are stored."""
        transport = Answering(GOOD)
        came = run(self._call(transport))
        count = len(transport.requests)
        assert count == 1, f"one call made {count} requests and ended in {came!r}"
        transport = Answering(GOOD)
        run(self._calls(transport, [{"prompt": "another"}, {"prompt": "another"}]))
        least = 1 if self.holds_answers else 2
        assert least <= len(transport.requests) <= 2, f"two calls made {len(transport.requests)} requests"

    @check
    def test_the_request_keeps_its_key_and_its_call(self) -> None:
        """Check what arrives at the transport: the caller's own call, key, address and fields."""
        transport = Answering(GOOD)
        calls: list[Call] = []

        class Noted(Call):
            """A call that is compared with the one that arrives."""

            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(*args, **options)  # type: ignore[arg-type]  # passed on as they are
                calls.append(self)

        came = run(self._call(transport, call=Noted))
        assert transport.requests, f"nothing was requested: the call ended in {came!r}"
        wire = transport.requests[0]
        assert wire.call is calls[0], "the request arrives without its call: pass it on, or use attrs.evolve"
        assert dict(wire.call.account.headers) == {"x-key": KEY}, "the key changed on its way"
        assert (wire.method, wire.target) == ("POST", "/v1/images"), "the method or the address changed on its way"
        assert dict(wire.fields) == _PROMPT, f"the fields changed on their way: {sorted(wire.fields)}"
        assert (wire.encoding, wire.anonymous, wire.url) == ("json", False, None), "the request changed on its way"
        assert [name for name, _ in wire.files] == [], "files were added"
        assert not wire.headers, f"headers were added: {sorted(wire.headers)}"

    @check
    def test_a_form_with_a_file_passes_unchanged(self) -> None:
        """Check the encoding and the files of a form."""
        transport = Answering(GOOD)

        async def call() -> None:
            async with self._client(transport, dialect=ProbeDialect(encoding="form", is_recording=False)) as client:
                await client.invoke(MODEL, {**_PROMPT, "image": BODY})

        run(call())
        [wire] = transport.requests
        assert wire.encoding == "form", f"the encoding became {wire.encoding} on its way"
        assert [name for name, _ in wire.files] == ["image"], "the files changed on their way"

    @check
    def test_polls_pass(self) -> None:
        """Check the polls of a job: each is sent and its own answer comes back."""
        transport = PolledAnswers()

        async def resume() -> object:
            async with self._client(transport, dialect=JobDialect(is_recording=False)) as client:
                client = client.with_options(poll_interval=0.01, timeout=self.seconds / 4)
                return await client.resume(MODEL, "7")

        try:
            came: object = run(resume())
        except ImpastoError as error:
            came = error
        assert isinstance(came, Result), (
            f"a job ended in {came!r} after {len(transport.requests)} polls, of which the third had the result: "
            "a middleware gets GETs too, each of which has its own answer"
        )

    @check
    def test_errors_pass_unchanged(self) -> None:
        """Check refusals, errors without an answer, and requests that were not sent: type, bill and words."""
        unsent, unknown = NotSent("nothing was sent"), ChargeUnknown("it broke off", raw=b"half")
        answers: dict[str, Answer | NotSent | ChargeUnknown] = {
            "a refusal": REFUSED,
            "too many requests": LIMITED,
            "an unknown answer": Answer(status=502, body=b"<html>"),
            "NotSent": unsent,
            "ChargeUnknown": unknown,
        }
        for what, answer in answers.items():
            expected = run(self._call(Answering(answer), without=True))
            came = run(self._call(Answering(answer)))
            assert type(came) is type(expected), f"{what} ended in {came!r}, not in {expected!r}"
            for name in ("billed", "retryable", "message", "retry_after", "raw"):
                found, before = getattr(came, name, None), getattr(expected, name, None)
                assert found == before, f"{what}: {name} is {found!r}, not {before!r}"

    @check
    def test_calls_at_once_do_not_mix(self) -> None:
        """Check ten calls at once, whose answers differ."""
        prompts = [f"prompt number {number}" for number in range(10)]
        results = run(self._calls(Answering(None), [{"prompt": prompt} for prompt in prompts], at_once=True))
        for prompt, result in zip(prompts, results, strict=True):
            assert isinstance(result, Result), f"one of ten calls at once ended in {result!r}"
            assert prompt.encode() in result.artifacts[0].data, "a call got the answer to another one"

    @check
    def test_a_call_can_be_cancelled(self) -> None:
        """Check that a cancelled call ends at once in CancelledError, and leaves no task."""

        async def cancel() -> None:
            tasks, transport = asyncio.all_tasks(), Answering(GOOD, is_silent=True)
            async with self._client(transport) as client:
                task = asyncio.ensure_future(client.invoke(MODEL, _PROMPT))
                arrival = asyncio.ensure_future(transport.came.wait())
                await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
                assert not task.done(), (
                    f"nothing was requested: the call ended in {task.exception() or task.result()!r}"
                )
                task.cancel()
                done, _ = await asyncio.wait({task}, timeout=self.seconds / 4)
                assert done, "a cancelled call goes on"
                assert task.cancelled(), "a cancelled call ended in an error or a result, not in CancelledError"
                transport.is_silent = False
                try:
                    await asyncio.wait_for(client.invoke(MODEL, {"prompt": "the next"}), self.seconds / 4)
                except TimeoutError:
                    raise AssertionError("after a cancelled call the next waits for ever: release in finally") from None
            left = asyncio.all_tasks() - tasks
            assert not left, f"a cancelled call left tasks: {left}"

        run(cancel())

    @check
    def test_an_answer_is_not_held(self) -> None:
        """Check that an answer is free after its call, and that no task is left."""

        async def call() -> None:
            tasks, transport = asyncio.all_tasks(), Answering(GOOD)
            async with self._client(transport) as client:
                await client.invoke(MODEL, _PROMPT)
                transport.requests.clear()
                gc.collect()
                alive = [reference for reference in transport.answers if reference() is not None]
                assert self.holds_answers or not alive, (
                    "the middleware holds an answer after its call: memory grows with each call; "
                    "declare holds_answers = True if it stores answers"
                )
            left = asyncio.all_tasks() - tasks
            assert not left, f"it left tasks: {left}"

        run(call())

    @check
    def test_the_loop_is_not_blocked(self) -> None:
        """Check that nothing on the loop's thread reads a file, sleeps or takes more than 30 ms."""
        watches: list[LoopWatch] = []

        async def calls(some: Sequence[LoopWatch]) -> None:
            async with self._client(Answering(GOOD)) as client:
                await client.warm(MODEL)
                await client.account(MODEL)
                with blocking_calls() as found:
                    await client.invoke(MODEL, _PROMPT)
                assert not found, found[0]
                for number, watch in enumerate(some):
                    with watch.over_this_loop():
                        await client.invoke(MODEL, {"prompt": f"a lighthouse {number}"})

        # A busy machine may delay a loop as long, but hardly in each of many calls.
        while len(watches) < _TRIES and not any(watch.longest_gap <= _LONGEST_BLOCK for watch in watches):
            some = [LoopWatch(_LONGEST_BLOCK, _LONGEST_BLOCK / 8) for _ in range(_TRIES // 3)]
            with ExitStack() as stack:
                for watch in some:
                    stack.enter_context(watch)
                run(calls(some))
            watches += some
        least = min(watch.longest_gap for watch in watches)
        places = next((watch.stood_at for watch in watches if watch.stood_at), "")
        assert least <= _LONGEST_BLOCK, f"each call blocks the loop for {least * 1000:.0f} ms, in:\n{places}"

    @check
    def test_no_log_holds_the_key(self) -> None:
        """Check log lines for the key."""
        handler = _Lines()
        root, own = logging.getLogger(), logging.getLogger("impasto")
        level = own.level
        root.addHandler(handler)
        own.setLevel(logging.DEBUG)
        try:
            for answer in (GOOD, REFUSED):
                came = run(self._call(Answering(answer)))
                handler.lines.append(repr(came))
        finally:
            root.removeHandler(handler)
            own.setLevel(level)
        assert not any(KEY in line for line in handler.lines), "the key is in a log line or an error"

    def _client(self, transport: Answering, *, without: bool = False, dialect: ProbeDialect | None = None) -> Client:
        layers: Sequence[object] = () if without else (self.layer(),)
        dialect, settings = dialect or ProbeDialect(is_recording=False), self.provider_settings
        client = probe_client(_NOWHERE, KEY, self._plugins, dialect, middleware=layers, settings=settings)
        return client.with_options(transport=transport)

    async def _call(
        self, transport: Answering, *, without: bool = False, call: Callable[..., Call] = Call
    ) -> Result | ImpastoError:
        async with self._client(transport, without=without) as client:
            try:
                return await client.invoke(MODEL, _PROMPT, call=call)
            except ImpastoError as error:
                return error

    async def _calls(
        self, transport: Answering, calls: Sequence[Mapping[str, object]], *, at_once: bool = False
    ) -> list[object]:
        async with self._client(transport) as client:
            if at_once:
                started = (client.invoke(MODEL, params) for params in calls)
                return [*await asyncio.gather(*started, return_exceptions=True)]
            return [await client.invoke(MODEL, params) for params in calls]


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))
