"""Several images under one idempotency key, some of which come late: they are fetched, and those that came are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest

from impasto import ChargeUnknown, Result
from tests.images import png
from tests.reliability.conftest import JOB_MODEL, MakeClient
from tests.reliability.servers import (
    PICTURE,
    PICTURE_HEADERS,
    Answer,
    ServedRequest,
    Server,
    Wire,
    http,
    in_json,
    picture,
    refused,
)


def job(number: int) -> str:
    return f"{number:064x}"


@attrs.define
class Studio:
    """Jobs 0, 1, ... whose images have the heights 8, 9, ...; those in ``late`` run, those in ``removed`` are gone."""

    late: set[int] = attrs.field(factory=set[int])
    removed: set[int] = attrs.field(factory=set[int])
    direct: int | None = None
    """The number of a request that is answered with its image."""

    async def poll(self, request: ServedRequest, wire: Wire) -> None:
        number = int(request.path.rpartition("/")[2], 16)
        answer = http(200, png(8, 8 + number), **PICTURE_HEADERS)
        if number in self.late:
            answer = in_json({"id": job(number), "status": "in-progress"}, 202)
        elif number in self.removed:
            answer = refused(404)
        await answer(request, wire)

    def posts(self, count: int) -> list[Answer]:
        return [picture() if number == self.direct else in_json({"id": job(number)}) for number in range(count)]


Ask = Callable[..., Awaitable[Result]]


@pytest.fixture
def studio(server: Server) -> Studio:
    studio = Studio()
    server.posts, server.polls = studio.posts(3), [studio.poll]
    return studio


@pytest.fixture
def ask(server: Server, make_client: MakeClient, tmp_path: Path) -> Ask:
    def call(**options: object) -> Awaitable[Result]:
        client = make_client(server.url, state=tmp_path / "state")
        settings = {"image": PICTURE, "prompt": "p", "n": 3, "idempotency_key": "k", **options}
        return client.run(JOB_MODEL, **settings)  # type: ignore[arg-type]  # the settings of a test

    return call


def heights(result: Result) -> list[int]:
    return [int.from_bytes(each.data[20:24], "big") for each in result.artifacts]


async def test_a_repeated_call_fetches_the_jobs_that_were_late(server: Server, studio: Studio, ask: Ask) -> None:
    studio.late = {0, 1}
    first = await ask(timeout=0.5)
    assert (len(first.artifacts), [type(each.error) for each in first.errors]) == (1, [ChargeUnknown] * 2)
    studio.late, studio.removed = set(), {2}
    polls = len(server.polled)
    again = await ask()
    assert (len(again.artifacts), again.errors) == (3, ())
    assert again.cost == again.possible_cost == first.possible_cost
    assert len(server.polled) == polls + 2, "what had come is kept, also if the provider removes it"
    assert (await ask()) == again
    assert (len(server.polled), len(server.paid)) == (polls + 2, 3)


async def test_repeated_calls_bring_one_image_after_the_other(server: Server, studio: Studio, ask: Ask) -> None:
    studio.late = {0, 1, 2}
    with pytest.raises(ChargeUnknown):
        await ask(timeout=0.3)
    for number in range(3):
        studio.late.remove(number)
        result = await ask(timeout=0.5)
        assert sorted(heights(result)) == [8 + each for each in range(number + 1)]
        assert len(result.errors) == 2 - number
        studio.removed.add(number)
    assert len(server.paid) == 3


async def test_callers_at_the_same_time_fetch_a_late_job_once(server: Server, studio: Studio, ask: Ask) -> None:
    studio.late = {2}
    await ask(timeout=0.5)
    studio.late.clear()
    polls = len(server.polled)
    results = await asyncio.gather(*(ask() for _ in range(4)))
    assert all(each == results[0] for each in results)
    assert (len(results[0].artifacts), len(server.polled), len(server.paid)) == (3, polls + 1, 3)


async def test_an_image_that_came_without_a_job_is_kept(server: Server, studio: Studio, ask: Ask) -> None:
    studio.late, studio.direct = {0}, 1
    server.posts = studio.posts(3)
    first = await ask(timeout=0.5)
    assert len(first.artifacts) == 2
    studio.late.clear()
    again = await ask()
    assert (len(again.artifacts), again.errors) == (3, ())
    assert len(server.paid) == 3


async def test_a_job_that_fails_late_ends_there(server: Server, studio: Studio, ask: Ask) -> None:
    studio.late = {1}
    first = await ask(timeout=0.5)
    studio.late.clear()
    moderated = refused(403, "content_moderation")
    server.polls = [moderated]
    again = await ask()
    assert (heights(again), len(again.errors)) == (heights(first), 1)
    assert (again.cost, again.possible_cost) == (first.cost, first.possible_cost)
    polls = len(server.polled)
    assert [each.error.billed for each in (await ask()).errors] == [each.error.billed for each in again.errors]
    assert (len(server.polled), len(server.paid)) == (polls, 3)
