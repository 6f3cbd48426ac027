"""Checks of jobs: their ids, their polls and the hosts that get the key."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import attrs
import pytest

from impasto import Call, ImpastoError, Pending, RateLimited, Result, Retry
from impasto.testing.recorder import HOSTS, Answer, RecordedRequest, Recorder
from impasto.testing.subject import KEY, call_outcome
from impasto.testing.watch import SkippingLoop, check, hook_outcomes, run

from .exchange import ExchangeChecks
from .wire import describe_outcome, wrong_auth

PROXY = Answer(status=503, headers={"content-type": "text/html"}, body=b"<html>upstream connect error</html>")
"""The answer of a proxy between the provider and its callers."""

_TOLERANCE = 0.05
_POLLS = 3
_RETRY_AFTER = 47.0
_ADDRESS = re.compile(rf"\{{({'|'.join(HOSTS)})\}}(/.*)")


class JobChecks(ExchangeChecks):
    """Checks of jobs."""

    @check
    def test_the_id_of_a_job_is_the_providers(self) -> None:
        """Check that a job's id is in the answer that accepted it, and that no call makes up another."""
        self._skip_without_jobs(or_downloads=True)
        pendings = run(self._pendings(calls=2))
        for number, call in enumerate(pendings, 1):
            job = call[0].id
            body = self.stages()[0].with_words({"job": self.job_id(number)}).body.decode("utf-8", "replace")
            for part in job.split(" "):  # of several addresses
                is_there = part in body or any(text in part for text in _texts(body) if len(text) >= 8)
                assert is_there, f"the job's id {job!r} is not in the answer that accepted the job: {body[:200]}"
        first, again = pendings[0][0].id, run(self._pendings())[0][0].id
        assert again == first, f"an equal answer gave the job ids {first!r} and {again!r}"

    @check
    def test_a_job_is_resumed_at_its_address(self) -> None:
        """Check that ``client.resume`` asks for the job that was accepted."""
        self._skip_without_jobs(or_downloads=True)
        job = run(self._pendings())[0][0].id
        (call, resumed), requests = run(self._resumed(job))
        for request in requests:
            has_key = KEY in f"{request.target} {request.headers}"
            assert request.host != "signed_url" or not has_key, (
                f"client.resume gives the key to a signed address: {_line(request)}; anonymous=True"
            )
            wrong = wrong_auth(self.auth, request) if self.auth and request.host != "signed_url" else ""
            assert not wrong, f"the key of {_line(request)} of client.resume: {wrong}"
        assert resumed == call, f"client.resume requests {resumed} after another job, the call itself {call}"

    @check
    def test_a_proxys_answer_to_a_poll_ends_nothing(self) -> None:
        """Check that a page instead of an answer to a poll, or a 429, is polled again: the job runs on."""
        self._skip_without_jobs()
        first, *others = self.stages()
        stages = [first]
        limits = [each.answer for each in self.refusals if issubclass(each.error, RateLimited)]
        for answer in others:
            stages += [PROXY, Answer(status=502), *limits, answer]
        (came, posts), *_ = self.outcomes([stages])
        assert isinstance(came, Result), f"a proxy's answer to a poll ended the call in {describe_outcome(came)}"
        assert posts == 1, f"a proxy's answer to a poll led to {posts} paid requests"

    @check
    def test_the_key_goes_to_the_providers_hosts_only(self) -> None:
        """Check that polls have the key as documented, and that ``{signed_url}`` never gets it."""
        self._skip_without_jobs(or_downloads=True)
        for request in run(self._requests()):
            if request.host == "signed_url":
                head = f"{request.target} {request.headers}"
                assert KEY not in head, f"a signed address got the key: {_line(request)}"
            elif self.auth:
                wrong = wrong_auth(self.auth, request)
                assert not wrong, f"the key of {_line(request)}: {wrong}"

    @check
    def test_polls_are_gets_of_the_documented_address(self) -> None:
        """Check the method of all requests after the first, and ``poll_request``, the documented one."""
        self._skip_without_jobs()
        _, *polls = run(self._requests())
        assert polls, "the job was not polled"
        for request in polls:
            assert request.method == "GET", f"a poll must be a GET, which is free: {_line(request)}"
        job, answered = self.job_id(1), self._addresses(self.stages())
        documented = [each.replace("{job}", job) for each in (self.poll_request, self.result_request) if each]
        if not self._addresses(self.stages()[:1]) and not documented:
            pytest.skip("declare poll_request, as documented, unless the answers have its address")
        if self.poll_request is not None:
            assert _line(polls[0]) == documented[0], (
                f"the first poll is {_line(polls[0])}, documented is {documented[0]}"
            )
        if self.result_request is not None:
            assert documented[-1] in map(_line, polls), f"{documented[-1]}, the documented result, is not requested"
        answered |= {("url", each) for each in documented if each not in {line for _, line in answered}}
        for request in polls if self._addresses(self.stages()[:1]) else ():
            assert (request.host, _line(request)) in answered, (
                f"{_line(request)} is no address of the answers; declare poll_request or result_request if it is right"
            )

    @check
    def test_a_result_that_is_there_is_fetched_at_once(self) -> None:
        """Check that nothing waits between the answer with a result's address and the request for it."""
        self._skip_without_jobs()
        requests = run(self._timed_requests(()), loop_factory=SkippingLoop)
        result = (self.result_request or "").replace("{job}", self.job_id(1))
        for before, after in itertools.pairwise(requests):
            if (after.host == "signed_url" or _line(after) == result) and before.method == "GET":
                assert after.at - before.at < _TOLERANCE, (
                    f"the result is fetched {after.at - before.at:.3g} s after its address came: is_ready=True"
                )

    @check
    def test_polls_come_at_the_documented_interval(self) -> None:
        """Check the wait before the first poll and between polls, on a clock that skips."""
        self._skip_without_jobs()
        assert self.poll_interval is not None, "declare poll_interval, the documented seconds between two polls"
        gaps = self._gaps([PROXY] * _POLLS)
        first = self.poll_interval if self.first_poll is None else self.first_poll
        assert gaps, "the job was not polled"
        assert abs(gaps[0] - first) <= max(_TOLERANCE * first, _TOLERANCE), (
            f"the first poll comes after {gaps[0]:.3g} s; documented are {first:g} s (first_poll, poll_interval)"
        )
        polled = self._gaps([*self.polls[:1], *[PROXY] * _POLLS]) if len(self.polls) > 1 else []
        # an address of the answer may be fetched at once, see above
        for gap in (*gaps[1:_POLLS], *polled[2:_POLLS], *(each for each in polled[1:2] if each > _TOLERANCE)):
            assert abs(gap - self.poll_interval) <= max(_TOLERANCE * self.poll_interval, _TOLERANCE), (
                f"polls come every {gap:.3g} s; documented are {self.poll_interval:g} s"
            )

    @check
    def test_retry_after_of_a_poll_is_obeyed(self) -> None:
        """Check Retry-After of a proxy's answer to a poll: the next poll comes no earlier."""
        self._skip_without_jobs()
        gaps = self._gaps([PROXY.with_headers(retry_after=f"{_RETRY_AFTER:g}")])
        assert len(gaps) > 1, "a proxy's answer to a poll with Retry-After ended the polling"
        assert gaps[1] >= _RETRY_AFTER - _TOLERANCE, (
            f"an answer to a poll has Retry-After: {_RETRY_AFTER:g}; it was polled again {gaps[1]:.3g} s later"
        )

    @check
    def test_a_result_is_kept_for_the_documented_time(self) -> None:
        """Check the seconds for which the provider keeps a result."""
        self._skip_without_jobs(or_downloads=True)
        found = [pending.result_ttl for pending in run(self._pendings())[0]]
        if self.result_ttl is None:
            assert not any(found), f"declare result_ttl, the documented seconds: the plugin has {found}"
        else:
            assert {each for each in found if each is not None} == {self.result_ttl}, (
                f"the result is documented for {self.result_ttl:g} s, the plugin has {found}"
            )

    @check
    def test_a_job_that_is_given_up_is_cancelled(self) -> None:
        """Check the request that cancels a job, if the provider has one."""
        self._skip_without_jobs()
        found = run(self._requests_of_cancelled())
        if self.cancel is None:
            assert not found, f"{found[0]} was sent for a job that was given up: declare cancel, as documented"
        else:
            expected = self.cancel.replace("{job}", self.job_id(1))
            assert found == [expected], f"a job that was given up led to {found or 'no request'}, not to {expected!r}"

    def _addresses(self, answers: Sequence[Answer]) -> set[tuple[str, str]]:
        """Return the hosts and GETs of the addresses in answers, which begin with ``{url}`` and the like."""
        bodies = [answer.with_words({"job": self.job_id(1)}).body.decode("utf-8", "replace") for answer in answers]
        matches = [_ADDRESS.fullmatch(text) for body in bodies for text in _texts(body)]
        return {(match[1], f"GET {match[2]}") for match in matches if match is not None}

    def _skip_without_jobs(self, *, or_downloads: bool = False) -> None:
        if self.job_accepted is None and not (or_downloads and self.downloads):
            pytest.skip("no job_accepted: the model has no jobs")

    async def _pendings(self, calls: int = 1) -> list[list[Pending]]:
        """Return the jobs that the plugin found in the answers to each call. An address in an id is as declared."""
        pendings: list[list[Pending]] = []
        with hook_outcomes(type(self.operation())) as outcomes:
            async with self.recording() as recorder, self.client(recorder.url) as client:
                for _ in range(calls):
                    outcomes.clear()
                    await call_outcome(client, self.model, self.minimal)
                    found = [each for each in outcomes if isinstance(each, Pending)]
                    assert found, (
                        "normalize_response returned no Pending for job_accepted, or for success with addresses"
                    )
                    pendings.append([attrs.evolve(each, id=_with_names(each.id, recorder.urls)) for each in found])
        return pendings

    async def _requests(self) -> Sequence[RecordedRequest]:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await call_outcome(client, self.model, self.minimal)
            return recorder.requests

    async def _resumed(self, job: str) -> tuple[tuple[str, str], Sequence[RecordedRequest]]:
        """Return the address where a call asks for its job and that where ``client.resume`` does, and its requests."""
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await call_outcome(client, self.model, self.minimal)
            first = self._places_of(recorder)
            await call_outcome(client, self.model, self.minimal)  # the newest job is another one
            recorder.requests.clear()
            for name, url in recorder.urls.items():
                job = job.replace(f"{{{name}}}", url)
            with suppress(ImpastoError):
                await client.resume(self.model, job)
            return (first, self._places_of(recorder)), [*recorder.requests]

    def _places_of(self, recorder: Recorder) -> str:
        """Return the first poll, or all downloads of an answer without a job, which are fetched side by side."""
        gets = [_line(request) for request in recorder.requests if request.method == "GET"]
        return " and ".join(gets[:1] if self.job_accepted is not None else sorted(gets)) or "nothing"

    def _gaps(self, polls: Sequence[Answer]) -> list[float]:
        """Return the seconds before each poll of a job whose first polls are answered so, on a clock that skips."""
        first, *others = (request.at for request in run(self._timed_requests(polls), loop_factory=SkippingLoop))
        return [after - before for before, after in zip([first, *others], others, strict=False)]

    async def _timed_requests(self, polls: Sequence[Answer]) -> Sequence[RecordedRequest]:
        first, *others = self.stages()
        async with self.recording([first, *polls, *others]) as recorder, self.client(recorder.url) as client:
            retry = Retry(attempts=1, refused=0)
            client = client.with_options(poll_interval=None, timeout=1e6, retry=retry)
            await call_outcome(client, self.model, self.minimal)
            return recorder.requests

    async def _requests_of_cancelled(self) -> list[str]:
        """Return the requests of a call that is cancelled during its polls, without its own and without the polls."""
        async with self.recording([self.stages()[0], PROXY]) as recorder, self.client(recorder.url) as client:
            task = asyncio.ensure_future(client.invoke(self.model, self.minimal, call=Call))
            await _until_polled(recorder, task)
            own = {_line(request) for request in recorder.requests}
            task.cancel()
            with suppress(asyncio.CancelledError, ImpastoError):
                await task
            return [line for request in recorder.requests if (line := _line(request)) not in own]


async def _until_polled(recorder: Recorder, task: asyncio.Task[Result]) -> None:
    while len(recorder.requests) <= 1 and not task.done():  # noqa: ASYNC110 - a recorder has no event for it
        await asyncio.sleep(0.001)


def _line(request: RecordedRequest) -> str:
    path, _, query = request.target.partition("?")
    others = "&".join(each for each in query.split("&") if each and KEY not in each)
    return f"{request.method} {path}" + (f"?{others}" if others else "")


def _texts(body: str) -> Iterator[str]:
    """Yield the texts in a JSON answer."""
    with suppress(ValueError):
        values = [json.loads(body)]
        while values:
            match values.pop():
                case str() as text:
                    yield text
                case dict() as mapping:
                    values += mapping.values()
                case list() as several:
                    values += several


def _with_names(job: str, urls: Mapping[str, str]) -> str:
    """Return a job's id, in which addresses begin with ``{url}`` and the like: each recorder has its own hosts."""
    for name, url in urls.items():
        job = re.sub(rf"{re.escape(url)}(?![0-9])", f"{{{name}}}", job)
    return job
