"""Streams that count their tokens as they go, or after the image: the bill is that of the whole answer, once."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode

import attrs

from impasto import (
    Artifact,
    Cost,
    EventOutcome,
    Handler,
    Operation,
    Partial,
    Request,
    Result,
    ServerEvent,
    Usage,
    WireRequest,
    WireResponse,
)
from impasto.dialects import TokenPrice
from tests.images import png
from tests.streams import FINAL, PAINT, PREVIEWS, Dialect, collect, event, images, painting, stream

OTHER = png(65, 64)


class Counting(Dialect):
    """Each event of this provider may have a partial image, an image, and the tokens of all so far."""

    def normalize_event(
        self, operation: Operation, request: Request, event: ServerEvent
    ) -> EventOutcome | tuple[EventOutcome, ...]:
        body = json.loads(event.data)
        usage = Usage(input_tokens=5, output_tokens=body["tokens"], output_image_tokens=body["images"])
        if body["image"] is None:
            return usage
        result = Result(artifacts=(Artifact(data=b64decode(body["image"]), media_type="image/png"),))
        if body["partial"] is None:
            return result, usage
        return Partial(Artifact(data=b64decode(body["partial"]), media_type="image/png")), result, usage


def counted(
    tokens: int, image: bytes | None = None, *, partial: bytes | None = None, images: int | None = None
) -> bytes:
    texts = [None if each is None else b64encode(each).decode() for each in (image, partial)]
    return event("count", tokens=tokens, image=texts[0], partial=texts[1], images=images)


def tokens_cost(tokens_in: int, tokens_out: int) -> Cost:
    return Cost(usd=round((tokens_in * 5 + tokens_out * 30) / 1e6, 10), as_of="2026-11-01")


COUNTING = attrs.evolve(
    PAINT,
    dialect=Counting(),
    price=TokenPrice(text_input=5, image_input=5, output=30, as_of="2026-11-01", estimate=lambda _: 0.04),
)
COST = Cost(usd=0.04, as_of="2026-11-01")


async def test_tokens_that_are_counted_for_all_so_far_count_once() -> None:
    two = stream(
        counted(3), counted(1293, FINAL), counted(1300), counted(2590, OTHER), counted(2600), b"data: [DONE]\n\n"
    )
    async with painting(two, stream(counted(3), counted(3, FINAL), counted(1293)), model=COUNTING) as (client, _):
        *_, both = await collect(client)
        *_, late = await collect(client)
    assert isinstance(both, Result)
    assert isinstance(late, Result)
    assert [each.data for each in both.artifacts] == [FINAL, OTHER]
    assert (both.usage, both.cost) == (Usage(input_tokens=5, output_tokens=2600), tokens_cost(5, 2600))
    assert (late.usage, late.cost) == (Usage(input_tokens=5, output_tokens=1293), tokens_cost(5, 1293))


async def test_a_count_from_before_the_image_is_no_price() -> None:
    early = counted(3, images=0) + counted(3, FINAL, images=0)
    async with painting(stream(early, last=b"", end="reset"), stream(early), model=COUNTING) as (client, _):
        for _ in range(2):
            *_, result = await collect(client)
            assert isinstance(result, Result)
            assert result.cost == Cost(usd=0.04, as_of="2026-11-01")  # the estimate


async def test_an_event_may_have_a_partial_image_and_the_result() -> None:
    async with painting(stream(counted(9, FINAL, partial=PREVIEWS[0])), model=COUNTING) as (client, _):
        assert images(await collect(client)) == [PREVIEWS[0], FINAL]


async def test_a_cached_stream_has_its_last_count() -> None:
    answers: list[WireResponse] = []

    async def cache(wire: WireRequest, next: Handler) -> WireResponse:
        if answers:
            return WireResponse(status=200, headers=answers[0].headers, body=answers[0].body)
        answers.append(await next(wire))
        return answers[0]

    late = stream(counted(3, FINAL), counted(1293), counted(1294))
    async with painting(late, middleware=(cache,), model=COUNTING) as (client, _):
        results = [await client.run("acme/paint", prompt="a kite") for _ in range(2)]
    assert [each.usage for each in results] == [Usage(input_tokens=5, output_tokens=1294)] * 2
