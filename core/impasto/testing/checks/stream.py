"""Checks of streams: partial images, the result after them, errors in between, and requests that ask for none."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest

from impasto import Client, ImpastoError, Partial, Result
from impasto.dialects import TokenPrice
from impasto.testing.golden import without_boundary
from impasto.testing.places import Content, matches, text_matches
from impasto.testing.recorder import Answer
from impasto.testing.subject import Stream
from impasto.testing.watch import check, run

from .scenario import repeats, wrong_reports
from .wire import WireChecks, describe_outcome, summarize

_EVENT = re.compile(rb".+?(?:\r?\n\r?\n|\Z)", re.DOTALL)


@attrs.frozen
class _Streamed:
    """Everything that a stream yielded, its error if it ended in one, and the requests."""

    partials: list[tuple[int, bytes]]
    outcome: object
    contents: list[Content]


class StreamChecks(WireChecks):
    """Checks of streams."""

    @check
    def test_a_stream_has_its_partial_images_and_its_result(self) -> None:
        """Check ``client.stream``: what the request asks for, each partial image with its index, and the result."""
        stream = self._declared()
        came, again = run(self._streams([[stream.answer]] * 2, {**self.minimal, **stream.params}))
        assert len(came.contents) == 1, f"a stream made {len(came.contents)} paid requests"
        for place, value in stream.sends.items():
            found = came.contents[0].at(place)
            is_there = (text_matches if ":" in place else matches)(found, value)
            assert is_there, f"a request for a stream has {summarize(found)} at {place}, not {value!r}"
        assert isinstance(came.outcome, Result), f"the stream ended in {describe_outcome(came.outcome)}"
        images = [artifact.data for artifact in came.outcome.artifacts]
        assert images == list(stream.images), "the result of the stream is not its last image"
        found, expected = [data for _, data in came.partials], [data for _, data in stream.partials]
        assert found == expected, f"{len(found)} partial images came, not the {len(expected)} of the stream"
        indices, documented = [index for index, _ in came.partials], [index for index, _ in stream.partials]
        assert indices == documented, f"the partial images have the indices {indices}, not {documented}"
        wrong = list(wrong_reports(came.outcome, {**self._reports_of(stream), **stream.reports}))
        assert not wrong, "the result of the stream: " + "\n".join(wrong)
        assert again.partials == came.partials, (
            "a second stream with equal events has other partial images: the plugin shares state"
        )

    def _reports_of(self, stream: Stream) -> Mapping[str, object]:
        """Return those of ``reports`` that the stream repeats in the words of ``success``."""
        reports = self.reports or {}
        events = [_data(event) for event in _EVENT.findall(stream.answer.body)]
        found = {name for name, value in reports.items() if repeats(self.success.body, events, value)}
        if "usage" in found and isinstance(self.operation().price, TokenPrice):
            found |= {"usd"} & set(reports)
        return {name: reports[name] for name in found}

    @check
    def test_a_stream_that_breaks_off_has_no_result(self) -> None:
        """Check streams that end before the event with the result: no partial image takes its place."""
        stream = self._declared()
        events = _EVENT.findall(stream.answer.body)
        final = base64.b64encode(stream.images[0])
        last = next((number for number, event in enumerate(events) if final in event), len(events) - 1)
        for number in range(last + 1):
            came = self._streamed([attrs.evolve(stream.answer, body=b"".join(events[:number]))])
            is_right = isinstance(came.outcome, ImpastoError) and came.outcome.billed != "no"
            assert is_right, f"a stream that ends after {number} events ended in {describe_outcome(came.outcome)}"

    @check
    def test_a_damaged_image_of_a_stream_is_no_result(self) -> None:
        """Check a whole stream in which the base64 of the last image is cut short."""
        stream = self._declared()
        image = stream.images[-1]
        whole, half = base64.b64encode(image), base64.b64encode(image[: len(image) // 2])
        if not self.requirements.detects_truncation or whole not in stream.answer.body:
            pytest.skip("detects_truncation=False, or the stream has no base64 of its image")
        came = self._streamed([attrs.evolve(stream.answer, body=stream.answer.body.replace(whole, half))])
        images = came.outcome.artifacts if isinstance(came.outcome, Result) else ()
        assert len(images) < len(stream.images), (
            f"a stream with half of its last image ended in {describe_outcome(came.outcome)}: "
            "images_from_base64 checks the images of an event too"
        )

    @check
    def test_an_error_in_a_stream_is_reported(self) -> None:
        """Check the declared failures of streams, and the refusals of a request for one."""
        stream = self._declared()
        assert stream.failures, "declare failures of the stream, each with its events and the error they must become"
        wrong: list[str] = []
        for refusal in (*stream.failures, *self.refusals):
            label = f"{refusal.answer.status} {refusal.answer.body[-80:]!r}"
            came = self._streamed([refusal.answer])
            if type(came.outcome) is not refusal.error:
                wrong.append(f"{label} ended in {describe_outcome(came.outcome)}, not {refusal.error.__name__}")
            elif came.outcome.billed != refusal.billed:
                wrong.append(f"{label}: billed is {came.outcome.billed!r}, not {refusal.billed!r}")
        assert not wrong, "\n".join(wrong)

    @check
    def test_a_model_without_partial_images_streams_its_result(self) -> None:
        """Check ``client.stream`` of a model without ``stream``: the ordinary request, and its result alone."""
        if self.stream is not None:
            pytest.skip("stream is declared")
        run(self._stream_result())

    async def _stream_result(self) -> None:
        params: Mapping[str, Any] = self.minimal
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.invoke(self.model, params)
            recorder.answer = self.answering()
            try:
                items: list[object] = [each async for each in client.stream(self.model, **params)]
            except ImpastoError as error:
                items = [error]
            ordinary, streamed = (without_boundary(request) for request in recorder.posts)
        assert (ordinary[0], ordinary[2]) == (streamed[0], streamed[2]), (
            "client.stream sends another request, although no stream is declared: a model that sends no partial images "
            "needs a dialect without normalize_event, and one that does a Stream in stream"
        )
        kinds = [type(item).__name__ for item in items]
        assert kinds == ["Result"], (
            f"client.stream gave {', '.join(kinds) or 'nothing'}, not one Result: {items!r:.300}"
        )

    def _declared(self) -> Stream:
        if self.stream is None:
            assert not self.operation().streams, (
                "declare stream: normalize_event reads one; a model that sends no partial images needs a dialect "
                "without normalize_event"
            )
            pytest.skip("no stream: the model sends no partial images")
        return self.stream

    def _streamed(self, stages: Sequence[Answer]) -> _Streamed:
        [came] = run(self._streams([stages], {**self.minimal, **self._declared().params}))
        return came

    async def _streams(self, calls: Sequence[Sequence[Answer]], params: Mapping[str, Any]) -> list[_Streamed]:
        """Return what calls of one client came to, one after the other."""
        found: list[_Streamed] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for stages in calls:
                recorder.requests.clear()
                recorder.answer = self.answering(stages)
                partials: list[tuple[int, bytes]] = []
                outcome: object = None
                try:
                    async for each in client.stream(self.model, **params):
                        if isinstance(each, Partial):
                            partials.append((each.index, each.artifact.data))
                        else:
                            outcome = each
                except ImpastoError as error:
                    outcome = error
                found.append(_Streamed(partials, outcome, [Content(post) for post in recorder.posts]))
        return found


async def read_stream(client: Client, model: str, params: Mapping[str, Any]) -> None:
    """Read a whole stream, whatever it ends in."""
    with suppress(ImpastoError):
        async for _ in client.stream(model, **params):
            pass


def _data(event: bytes) -> bytes:
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
