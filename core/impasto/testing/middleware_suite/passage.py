"""Checks of what passes a middleware, with its declarations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from impasto import BrokenPlugin, Call, ChargeUnknown, Client, ImpastoError, NotSent, Result
from impasto.server_events import EVENT_STREAM
from impasto.testing.probe import (
    BODY,
    DONE,
    GOOD,
    LIMITED,
    MODEL,
    PARTIAL,
    REFUSED,
    Answering,
    JobDialect,
    PolledAnswers,
    ProbeDialect,
    StreamDialect,
    check_opens,
    find_plugins,
    probe_client,
)
from impasto.testing.recorder import Answer
from impasto.testing.subject import KEY
from impasto.testing.watch import (
    Limited,
    check,
    run,
)

PROMPT = {"prompt": "a lighthouse"}
NOWHERE = "http://127.0.0.1:9"
_MAX_BYTES = 1 << 20


class PassageChecks(Limited):
    """Checks of what passes a middleware: requests, answers, errors, polls and streams."""

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
        run(check_opens("the middleware", self.client(Answering(GOOD))))

    def layer(self) -> object:
        """Return the middleware for one client. Override it to construct one."""
        return self.middleware

    @check
    def test_its_position_is_one_of_the_four(self) -> None:
        """Check the hook, and the attribute ``position`` of what it returns."""
        came = run(self.call(Answering(GOOD)))
        assert not isinstance(came, BrokenPlugin), f"{came}"

    @check
    def test_a_result_passes_unchanged(self) -> None:
        """Check the artifacts and the request id of a result."""
        came = run(self.call(Answering(GOOD)))
        assert isinstance(came, Result), f"the good answer ended in {came!r}"
        assert came.artifacts[0].data == BODY, "the body changed on its way through the middleware"
        assert came.artifacts[0].media_type == "image/png", "the media type changed on its way through the middleware"
        assert came.request_id == "req-1", "a header of the answer was lost in the middleware"

    @check
    def test_the_request_keeps_its_key_and_its_call(self) -> None:
        """Check what arrives at the transport: the caller's own call, key, address and fields."""
        transport = Answering(GOOD)
        calls, results = list[Call](), list[Result | None]()

        class Noted(Call):
            """A call that is compared with the one that arrives."""

            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(*args, **options)  # type: ignore[arg-type]  # passed on as they are
                self.on_end = (results.append,)
                calls.append(self)

        dialect = ProbeDialect(is_recording=False, max_bytes=_MAX_BYTES)
        came = run(self.call(transport, call=Noted, dialect=dialect))
        assert transport.requests, f"nothing was requested: the call ended in {came!r}"
        wire = transport.requests[0]
        assert wire.call is calls[0], "the request arrives without its call: pass it on, or use attrs.evolve"
        assert dict(wire.call.account.headers) == {"x-key": KEY}, "the key changed on its way"
        assert (wire.method, wire.target) == ("POST", "/v1/images"), "the method or the address changed on its way"
        assert dict(wire.fields) == PROMPT, f"the fields changed on their way: {sorted(wire.fields)}"
        parts = (wire.encoding, wire.anonymous, wire.url, wire.max_bytes)
        assert parts == ("json", False, None, _MAX_BYTES), "the request changed on its way"
        assert [name for name, _ in wire.files] == [], "files were added"
        assert not wire.headers, f"headers were added: {sorted(wire.headers)}"
        assert results == [came], "the call's on_end was replaced: add to it, wire.call.on_end += (function,)"

    @check
    def test_a_form_with_a_file_passes_unchanged(self) -> None:
        """Check the encoding and the files of a form."""
        transport = Answering(GOOD)

        async def call() -> None:
            async with self.client(transport, dialect=ProbeDialect(encoding="form", is_recording=False)) as client:
                await client.invoke(MODEL, {**PROMPT, "image": BODY})

        run(call())
        [wire] = transport.requests
        assert wire.encoding == "form", f"the encoding became {wire.encoding} on its way"
        assert [name for name, _ in wire.files] == ["image"], "the files changed on their way"

    @check
    def test_polls_pass(self) -> None:
        """Check the polls of a job: each is sent and its own answer comes back."""
        transport = PolledAnswers()

        async def resume() -> object:
            async with self.client(transport, dialect=JobDialect(is_recording=False)) as client:
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
            expected = run(self.call(Answering(answer), without=True))
            came = run(self.call(Answering(answer)))
            assert type(came) is type(expected), f"{what} ended in {came!r}, not in {expected!r}"
            for name in ("billed", "retryable", "message", "status", "retry_after", "raw"):
                found, before = getattr(came, name, None), getattr(expected, name, None)
                assert found == before, f"{what}: {name} is {found!r}, not {before!r}"

    @check
    def test_a_stream_passes(self) -> None:
        """Check an answer of events: its partial images, and the result that ``WireResponse.result`` has."""

        async def items() -> list[object]:
            answer = Answer(headers={"content-type": EVENT_STREAM}, body=PARTIAL + DONE)
            async with self.client(Answering(answer), dialect=StreamDialect(is_recording=False)) as client:
                return [each async for each in client.stream(MODEL, prompt="a stream")]

        found = run(items())
        kinds = [type(each).__name__ for each in found]
        images = [each.artifacts[0].data for each in found if isinstance(each, Result)]
        assert (kinds, images) == (["Partial", "Result"], [BODY]), (
            f"a stream with a partial image and a result gave {', '.join(kinds)}, or another result: change an answer "
            "with attrs.evolve, which keeps its result and its file"
        )

    def client(self, transport: Answering, *, without: bool = False, dialect: ProbeDialect | None = None) -> Client:
        """Return a client of the probe with the middleware, on a transport."""
        layers: Sequence[object] = () if without else (self.layer(),)
        dialect, settings = dialect or ProbeDialect(is_recording=False), self.provider_settings
        client = probe_client(NOWHERE, KEY, self._plugins, dialect, middleware=layers, settings=settings)
        return client.with_options(transport=transport)

    async def call(
        self,
        transport: Answering,
        *,
        without: bool = False,
        call: Callable[..., Call] = Call,
        dialect: ProbeDialect | None = None,
    ) -> Result | ImpastoError:
        """Return the outcome of a call."""
        async with self.client(transport, without=without, dialect=dialect) as client:
            try:
                return await client.invoke(MODEL, PROMPT, call=call)
            except ImpastoError as error:
                return error

    async def calls(
        self, transport: Answering, calls: Sequence[Mapping[str, object]], *, at_once: bool = False
    ) -> list[object]:
        """Return the outcomes of calls of one client."""
        async with self.client(transport) as client:
            if at_once:
                started = (client.invoke(MODEL, params) for params in calls)
                return [*await asyncio.gather(*started, return_exceptions=True)]
            return [await client.invoke(MODEL, params) for params in calls]
