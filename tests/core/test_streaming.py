"""Streams of a provider: partial images, one paid result, and the evidence whichever way they end."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import attrs
import pytest

from impasto import (
    Artifact,
    ChargeUnknown,
    Client,
    ContentFiltered,
    Cost,
    Handler,
    Partial,
    ProviderFault,
    RateLimited,
    Result,
    Retry,
    ServerEvent,
    UnusableResult,
    Usage,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.records import MAX_ARTIFACTS
from tests.images import png
from tests.reliability.servers import Answer, head, raw
from tests.streams import (
    END,
    FINAL,
    GALLERY,
    HEAD,
    PAINT,
    PREVIEWS,
    Dialect,
    chunk,
    collect,
    completed,
    failed,
    gallery,
    images,
    painting,
    preview,
    stream,
    whole,
)

DONE = b"data: [DONE]\n\n"
ALL = preview(0) + preview(1) + preview(2) + completed() + DONE
OTHER = png(65, 64)
COST = Cost(usd=0.04, as_of="2026-11-01")


class LastWord:
    """A middleware plugin with the hook: it reads what the model's own dialect does not."""

    @hookimpl
    def normalize_event(self, event: ServerEvent) -> Result | None:
        artifact = Artifact(data=event.data.encode(), media_type="text/plain")
        return Result(artifacts=(artifact,)) if event.event == "last" else None

    @hookimpl
    def middleware(self) -> None:
        return None


CUTS = {
    "events": [preview(0), preview(1), preview(2), completed(), DONE],
    "one piece": [ALL],
    "bytes": [ALL[i : i + 1] for i in range(len(ALL))],
    "odd pieces": [ALL[i : i + 7] for i in range(0, len(ALL), 7)],
    "CRLF": [ALL.replace(b"\n", b"\r\n")],
    "CR": [ALL.replace(b"\n", b"\r")],
    "BOM and comments": [b"\xef\xbb\xbf: hi\n\n", preview(0), b":\n\n", preview(1), b": x\n", preview(2), completed()],
}


@pytest.mark.parametrize("pieces", CUTS.values(), ids=CUTS.keys())
async def test_partial_images_come_before_the_paid_result(pieces: list[bytes]) -> None:
    async with painting(stream(*pieces)) as (client, server):
        *partial, result = await collect(client, partial_images=3)
    assert images([*partial, result]) == [*PREVIEWS, FINAL]
    assert all(isinstance(each, Partial) for each in partial)
    assert isinstance(result, Result)
    assert result.cost == COST
    [sent] = server.paid
    assert json.loads(sent.body) == {"prompt": "a kite", "partial_images": 3, "stream": True}


NAMED = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "x-request-id": "req_7"}


async def test_the_result_and_the_error_of_a_stream_have_the_providers_id_of_the_exchange() -> None:
    answers = [raw(head(200, NAMED), chunk(each), END) for each in (completed(), failed("server_error"))]
    async with painting(*answers) as (client, _):
        [result] = await collect(client)
        with pytest.raises(ProviderFault) as caught:
            await collect(client)
    assert isinstance(result, Result)
    assert (result.request_id, caught.value.request_id) == ("req_7", "req_7")


async def test_a_partial_image_is_there_before_the_rest_is_sent() -> None:
    may_end = asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD + chunk(preview(0)))
        await may_end.wait()
        await wire.send(chunk(completed()) + b"0\r\n\r\n")

    async with painting(answer) as (client, _), aclosing(client.stream("acme/paint", prompt="a kite")) as outcomes:
        assert isinstance(await anext(outcomes), Partial)
        may_end.set()
        assert isinstance(await anext(outcomes), Result)


async def test_a_provider_that_does_not_stream_yields_its_result() -> None:
    async with painting(whole()) as (client, server):
        [result] = await collect(client)
    assert isinstance(result, Result)
    assert (images([result]), result.cost, len(server.paid)) == ([FINAL], COST, 1)


async def test_a_model_that_does_not_stream_is_not_asked_for_one_by_a_dialect_that_it_shares() -> None:
    class Plain:
        transform_request = Dialect.transform_request
        classify_error = Dialect.classify_error
        normalize_response = Dialect.normalize_response

    async with painting(whole(), model=attrs.evolve(PAINT, dialect=Plain())) as (client, server):
        [result] = await collect(client)
    assert images([result]) == [FINAL]
    assert "stream" not in json.loads(server.paid[0].body)


@pytest.mark.parametrize(
    ("finals", "came"),
    [
        ([completed(), completed(OTHER)], [FINAL, OTHER]),
        ([completed(), preview(0), completed(OTHER), completed(FINAL)], [FINAL, OTHER]),
        ([completed(), completed()], [FINAL]),
    ],
    ids=["two", "one again", "the same"],
)
async def test_the_images_of_several_results_of_a_stream_are_all_kept_and_each_counts_once(
    finals: list[bytes], came: list[bytes]
) -> None:
    async with painting(stream(*finals, DONE)) as (client, _):
        *_, result = await collect(client)
    assert isinstance(result, Result)
    assert [each.data for each in result.artifacts] == came
    assert result.cost == COST.times(len(came))
    assert result.usage is not None
    assert result.usage.total_tokens == 12 * len(came)


async def test_results_that_repeat_the_images_before_are_counted_once() -> None:
    answer = stream(gallery(FINAL, tokens=7), gallery(FINAL, OTHER, tokens=14))
    async with painting(answer, model=GALLERY) as (client, _):
        result = await client.run("acme/paint", prompt="a kite", n=2)
    assert [each.data for each in result.artifacts] == [FINAL, OTHER]
    assert (result.usage, result.cost) == (Usage(input_tokens=0, output_tokens=14), COST.times(2))


async def test_a_stream_of_results_without_end_gives_as_many_images_as_any_answer() -> None:
    answer = stream(*(gallery(png(8, width)) for width in range(1, MAX_ARTIFACTS + 6)))
    async with painting(answer, model=GALLERY) as (client, _):
        result = await client.run("acme/paint", prompt="a kite")
    assert len(result.artifacts) == MAX_ARTIFACTS


async def test_a_second_result_may_come_late() -> None:
    may_end = asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD + chunk(completed()) + chunk(preview(0)))
        await may_end.wait()
        await wire.send(chunk(completed(OTHER)) + END)

    async with painting(answer) as (client, _), aclosing(client.stream("acme/paint", prompt="a kite")) as outcomes:
        assert isinstance(await anext(outcomes), Partial)
        may_end.set()
        result = await anext(outcomes)
    assert isinstance(result, Result)
    assert [each.data for each in result.artifacts] == [FINAL, OTHER]


async def test_a_run_without_partial_images_asks_for_no_stream_and_reads_one_all_the_same() -> None:
    async with painting(stream(ALL)) as (client, server):
        result = await client.run("acme/paint", prompt="a kite")
    assert (result.artifacts[0].data, "stream" in json.loads(server.paid[0].body)) == (FINAL, False)


ENDS = {
    "at an event": (stream(preview(0), preview(1)), "ended without a result"),
    "in an event": (stream(preview(0), preview(1), completed()[:100]), "ended without a result"),
    "without its last empty line": (stream(preview(0), preview(1), completed()[:-1]), "ended without a result"),
    "by a reset": (stream(preview(0), preview(1), 0.05, completed()[:100], 0.05, last=b"", end="reset"), "broke off"),
    "by a close": (stream(preview(0), preview(1), completed()[:100], last=b"", end="close"), "broke off"),
}


@pytest.mark.parametrize(("answer", "message"), ENDS.values(), ids=ENDS.keys())
async def test_a_stream_without_a_result_may_have_been_charged(answer: Answer, message: str) -> None:
    async with painting(answer) as (client, server):
        with pytest.raises(ChargeUnknown, match=message) as caught:
            await collect(client)
    error = caught.value
    assert [each.data for each in error.artifacts] == [PREVIEWS[1]]
    assert error.raw.startswith(preview(1))
    assert (error.billed, error.retryable, len(server.paid)) == ("unknown", False, 1)


async def test_a_result_counts_although_the_stream_breaks_off_after_it() -> None:
    broken = stream(preview(0), completed(), b"data: ", last=b"", end="reset")
    async with painting(broken) as (client, server):
        assert images(await collect(client)) == [PREVIEWS[0], FINAL]
    assert len(server.paid) == 1


async def test_a_result_counts_although_the_stream_never_ends() -> None:
    async with painting(stream(completed(), 30.0), timeout=1) as (client, _):
        assert images(await asyncio.wait_for(collect(client), 5)) == [FINAL]


async def test_an_image_and_a_refusal_are_all_of_a_request_for_two() -> None:
    async with painting(stream(gallery(FINAL, refused=1), 30.0), model=GALLERY, timeout=1) as (client, _):
        result = await asyncio.wait_for(client.run("acme/paint", prompt="a kite", n=2), 5)
    assert [each.data for each in result.artifacts] == [FINAL]
    assert [type(each.error) for each in result.errors] == [ContentFiltered]


async def test_an_error_counts_although_the_stream_never_ends() -> None:
    async with painting(stream(failed("moderation_blocked"), 30.0), timeout=1) as (client, _):
        with pytest.raises(ContentFiltered):
            await asyncio.wait_for(collect(client), 5)


async def test_partial_images_without_end_are_ended_by_the_deadline() -> None:
    async def endless(request: Any, wire: Any) -> None:
        await wire.send(HEAD)
        while True:
            await wire.send(chunk(preview(0)))
            await asyncio.sleep(0.001)

    async with painting(endless, timeout=0.3) as (client, server):
        with pytest.raises(ChargeUnknown, match="no result within 0.3 s") as caught:
            await collect(client)
    assert [each.data for each in caught.value.artifacts] == [PREVIEWS[0]]
    assert len(server.paid) == 1


async def test_an_error_event_is_what_the_plugin_makes_of_it() -> None:
    async with painting(stream(preview(0), failed("moderation_blocked"))) as (client, server):
        with pytest.raises(ContentFiltered, match="moderation_blocked") as caught:
            await collect(client)
    assert (caught.value.billed, len(server.paid)) == ("no", 1)


async def test_an_error_event_that_may_be_charged_is_not_retried() -> None:
    async with painting(stream(failed("server_error")), retry=Retry()) as (client, server):
        with pytest.raises(ProviderFault) as caught:
            await collect(client)
    assert (caught.value.billed, caught.value.retryable, len(server.paid)) == ("unknown", False, 1)


async def test_a_rate_that_is_refused_in_a_stream_may_be_charged_and_is_not_retried() -> None:
    async with painting(stream(failed("slow_down"), completed())) as (client, server):
        assert images(await collect(client)) == [FINAL]
    async with painting(stream(failed("slow_down")), stream(ALL)) as (client, server):
        with pytest.raises(RateLimited, match="it ended with slow_down") as caught:
            await collect(client)
    assert (caught.value.billed, caught.value.retryable, len(server.paid)) == ("unknown", False, 1)


async def test_a_broken_event_does_not_cost_the_paid_image_that_comes_after_it() -> None:
    async with painting(stream(b"data: {\n\n", completed()), stream(b"data: {\n\n")) as (client, _):
        assert images(await collect(client)) == [FINAL]
        with pytest.raises(UnusableResult, match=r"tests\.streams\.Dialect raised .*Expecting") as caught:
            await collect(client)
    assert caught.value.raw == b"data: {\n\n"


async def test_a_cached_answer_of_a_stream_is_its_result() -> None:
    answers: list[WireResponse] = []

    async def cache(wire: WireRequest, next: Handler) -> WireResponse:
        if answers:
            return WireResponse(status=200, headers=answers[0].headers, body=answers[0].body)
        answers.append(await next(wire))
        return answers[0]

    async with painting(stream(ALL), middleware=(cache,)) as (client, server):
        first, again = await collect(client), await collect(client)
    assert images(first) == [*PREVIEWS, FINAL]
    assert images(again) == [FINAL]
    assert len(server.paid) == 1


async def test_leaving_early_cancels_the_call_and_closes_its_connection() -> None:
    leave = asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD + chunk(preview(0)))
        await wire.reader.read()
        leave.set()

    async with painting(answer) as (client, server):
        async with aclosing(client.stream("acme/paint", prompt="a kite")) as outcomes:
            await anext(outcomes)
        await asyncio.wait_for(leave.wait(), 5)
        assert len(server.paid) == 1


async def test_a_cancelled_reader_learns_that_the_call_may_have_been_charged() -> None:
    has_one = asyncio.Event()

    async def read(client: Client) -> None:
        async for _ in client.stream("acme/paint", prompt="a kite"):
            has_one.set()

    async with painting(stream(preview(0), 30.0)) as (client, _):
        task = asyncio.create_task(read(client))
        await asyncio.wait_for(has_one.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert caught.value.__notes__ == ["acme/paint: the request was sent; it may have been charged"]


async def test_a_slow_reader_misses_older_partial_images_and_gets_the_result() -> None:
    answer = stream(*(preview(i) for i in range(50)), completed())
    async with painting(answer) as (client, _), aclosing(client.stream("acme/paint", prompt="a kite")) as outcomes:
        await anext(outcomes)
        await asyncio.sleep(0.2)
        *partial, result = [each async for each in outcomes]
    assert isinstance(result, Result)
    assert len(partial) <= 8


async def test_a_refusal_of_a_stream_is_an_ordinary_answer() -> None:
    async with painting(raw(HEAD.replace(b"200", b"500"), chunk(failed("x")), b"0\r\n\r\n")) as (client, _):
        with pytest.raises(ChargeUnknown, match="HTTP 500"):
            await collect(client)


async def test_closing_the_client_ends_its_streams() -> None:
    async with painting(stream(preview(0), 30.0)) as (client, _):
        outcomes = client.stream("acme/paint", prompt="a kite")
        await anext(outcomes)
        await client.aclose()
        with pytest.raises(ChargeUnknown, match="the client was closed"):
            await anext(outcomes)


async def test_another_plugins_hook_reads_events_that_the_dialect_does_not() -> None:
    async with painting(stream(b'event: last\ndata: "words"\n\n'), middleware=[LastWord()]) as (client, _):
        [result] = await collect(client)
    assert images([result]) == [b'"words"']
