"""Polls of a job that was accepted: what ends them, and what they leave in the error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import impasto
from impasto import ChargeUnknown, ImpastoError, Pending, PollExpired, Result, WireResponse
from impasto.testing import Answer
from tests.core.test_jobs import IMAGE, acme, in_turn, says, sleeps as sleeps  # noqa: PLC0414 - a fixture
from tests.recorder import JOB, Recorder, in_json
from tests.reliability import servers
from tests.reliability.hostile import MODEL, Dialect, attacked, by_path, job, operation


async def test_a_job_that_times_out_between_polls_has_nothing_of_the_poll_before() -> None:
    """What a poll answered while the job ran is no part of a picture, and is not kept as one."""
    answers = in_turn(says(poll="/s", first=0.0), says(poll="/s", interval=3600.0))
    async with acme(answers) as (client, recorder):
        with pytest.raises(ChargeUnknown) as caught:
            await client.run("acme/x", prompt="a kite", timeout=1.0)
    assert len(recorder.requests) == 2
    assert (caught.value.raw, caught.value.status) == (b"", None)


async def test_polls_go_on_after_a_429_that_is_waited_for_no_longer_than_the_caller_allows(
    client: impasto.Client, recorder: Recorder
) -> None:
    refusals = [in_json({"id": "e", "name": "rate_limit_exceeded", "errors": ["slow down"]}, status=429)]
    recorder.answer = lambda _: refusals.pop() if refusals else None
    patient = client.with_options(api_key="sk-polls", retry=impasto.Retry(max_wait=0.01), timeout=30)
    assert len((await patient.resume("stability/upscale-creative", JOB)).artifacts) == 1


async def test_a_refusal_while_a_job_runs_does_not_say_that_the_job_is_free(
    client: impasto.Client, recorder: Recorder
) -> None:
    recorder.answer = lambda _: in_json({"id": "e", "name": "unauthorized", "errors": ["no"]}, status=401)
    with pytest.raises(impasto.Unauthorized) as caught:
        await client.resume("stability/upscale-creative", JOB)
    assert (caught.value.billed, caught.value.retryable, caught.value.id) == ("unknown", False, JOB)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_the_result_of_a_finished_job_is_asked_for_until_its_host_is_free(status: int) -> None:
    busy = Answer(status=status, body=b"<html>")
    answers = in_turn(says(poll="/s", is_ready=True), busy, busy, busy, busy, IMAGE)
    async with acme(answers, poll_interval=0.01) as (client, _):
        assert len((await client.run("acme/x", prompt="a kite")).artifacts) == 1


@pytest.mark.parametrize("status", [302, 400, 410])
async def test_the_result_of_a_finished_job_is_refused_three_times_at_most(status: int) -> None:
    answers = in_turn(says(poll="/s", is_ready=True), Answer(status=status, body=b"<html>"))
    async with acme(answers, poll_interval=0.01) as (client, recorder):
        with pytest.raises(ChargeUnknown, match=str(status)):
            await client.run("acme/x", prompt="a kite")
    assert len(recorder.requests) == 1 + 3


@pytest.mark.parametrize("status", [404, 500])
async def test_a_result_that_its_address_lacks_can_be_fetched_later(status: int) -> None:
    """The provider's own 404 or 500 for the result of a job that has ended: it is no answer about the job."""
    answers = [says(poll="/s", is_ready=True), *[says(status=status, own=True)] * 3, IMAGE]
    async with acme(in_turn(*answers), poll_interval=0.01) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="the result of job j1 could not be fetched: .*; it may have") as caught:
            await client.run("acme/x", prompt="a kite")
        assert (caught.value.id, caught.value.status, caught.value.billed) == ("j1", None, "unknown")
        assert len(recorder.requests) == 1 + 3
        assert (await client.resume("acme/x", "j1")).artifacts
    assert len(recorder.posts) == 1


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        ({"result_ttl": 0.0}, {}, PollExpired),
        ({}, {"result_ttl": 0.0}, PollExpired),
        ({"result_ttl": 3600.0}, {"result_ttl": 0.0}, PollExpired),
        ({"result_ttl": 0.0}, {"result_ttl": 3600.0}, ChargeUnknown),
    ],
)
async def test_a_job_keeps_its_result_for_as_long_as_its_last_word_says(
    first: dict[str, Any], then: dict[str, Any], kind: type[ImpastoError]
) -> None:
    answers = in_turn(says(poll="/s", **first), says(poll="/s", **then), says(status=404))
    async with acme(answers, poll_interval=0.01) as (client, _):
        with pytest.raises(kind) as caught:
            await client.run("acme/x", prompt="a kite")
    assert type(caught.value) is kind


REFUSALS: list[type[impasto.ResponseError]] = [
    impasto.NotFound, impasto.Unauthorized, impasto.PermissionDenied, impasto.PaymentRequired, impasto.RateLimited,
]  # fmt: skip


class Refusing(Dialect):
    """A dialect of a provider that refuses polls with a 200."""

    def _outcome(self, body: Mapping[str, Any], response: WireResponse) -> Result | Pending:
        if "refused" in body:
            raise REFUSALS[body["refused"]]("no")
        return super()._outcome(body, response)


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_poll_that_is_refused_with_a_200_does_not_prove_that_the_job_was_free(
    kind: type[impasto.ResponseError],
) -> None:
    status = by_path(status=servers.in_json({"refused": REFUSALS.index(kind)}))
    async with attacked(job(), status, model=operation(Refusing()), timeout=0.5, poll_interval=0.2) as (client, _):
        with pytest.raises(impasto.ImpastoError) as run:
            await client.run(MODEL, prompt="a kite")
        with pytest.raises(impasto.ImpastoError) as resumed:
            await client.resume(MODEL, "j1")
    assert (run.value.billed, resumed.value.billed) == ("unknown", "unknown")


class Expiring(Dialect):
    """A dialect of a provider that reports with a 200 that it has removed a result."""

    def _outcome(self, body: Mapping[str, Any], response: WireResponse) -> Result | Pending:
        if "removed" in body:
            raise PollExpired("the output was removed")
        return super()._outcome(body, response)


async def test_a_result_that_the_provider_reports_as_removed_is_asked_for_once() -> None:
    status = by_path(status=servers.in_json({"removed": True}))
    async with attacked(job(), status, model=operation(Expiring()), poll_interval=0.01) as (client, server):
        with pytest.raises(PollExpired, match="the output was removed") as caught:
            await client.run(MODEL, prompt="a kite")
    assert (caught.value.billed, caught.value.id, len(server.polled)) == ("unknown", "j1", 1)


async def test_a_job_that_is_not_there_yet_is_asked_for_again() -> None:
    answers = in_turn(says(poll="/s"), says(status=404), says(status=404), IMAGE)
    async with acme(answers, poll_interval=0.01) as (client, recorder):
        assert len((await client.run("acme/x", prompt="a kite")).artifacts) == 1
    assert len(recorder.posts) == 1


async def test_a_job_that_nobody_knows_is_asked_for_three_times_and_a_resumed_one_once() -> None:
    async with acme(in_turn(says(poll="/s"), says(status=404)), poll_interval=0.01) as (client, recorder):
        with pytest.raises(ChargeUnknown, match="no longer knows job"):
            await client.run("acme/x", prompt="a kite")
        assert len(recorder.requests) == 1 + 3
        with pytest.raises(impasto.NotFound):
            await client.resume("acme/x", "j1")
    assert len(recorder.requests) == 1 + 3 + 1


@pytest.mark.parametrize("missing", [says(status=404), Answer(status=403, body=b"<Error>AccessDenied</Error>")])
async def test_a_job_or_an_image_that_is_not_there_yet_is_asked_for_at_longer_intervals(
    sleeps: list[float], missing: Answer
) -> None:
    """The host of a paid image may know it some seconds after the answer that names it."""
    answers = in_turn(says(poll="/s", is_ready=True), missing, missing, IMAGE)
    async with acme(answers, poll_seconds=2.0) as (client, _):
        assert len((await client.run("acme/x", prompt="a kite")).artifacts) == 1
    assert [each for each in sleeps if each] == [2.0, 8.0]


async def test_a_job_that_is_there_again_is_polled_at_its_own_interval(sleeps: list[float]) -> None:
    answers = in_turn(says(poll="/s"), says(status=404), says(poll="/s"), says(poll="/s"), IMAGE)
    async with acme(answers, poll_seconds=2.0) as (client, _):
        await client.run("acme/x", prompt="a kite")
    assert [each for each in sleeps if each] == [2.0] * 4
