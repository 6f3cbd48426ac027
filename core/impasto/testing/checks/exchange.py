"""Checks of what an answer carries beside its image: media type, request id, Retry-After; and of two calls at once."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from time import time
from typing import Any

import attrs
import pytest

from impasto import Artifact, ChargeUnknown, ImpastoError, RateLimited, Result, UnusableResult
from impasto.testing.golden import without_boundary
from impasto.testing.recorder import HOSTS, Answer, Conversation, RecordedRequest, Recorder, recording
from impasto.testing.samples import with_image
from impasto.testing.subject import KEY, call_outcome
from impasto.testing.watch import check, run

from .response import ResponseChecks
from .wire import describe_outcome

_WAIT = 7.0
_LONGER = 1800
_OTHER_KEY = "sk-other-8c03b7d2e9f1a645"


class ExchangeChecks(ResponseChecks):
    """Checks of an answer's details."""

    @check
    def test_the_media_type_is_that_of_the_image(self) -> None:
        """Check answers with a PNG, a JPEG and a WebP image."""
        image = self.artifact()
        if self.operation().output != "image":
            pytest.skip("no image")
        wrong: list[str] = []
        for media_type in self.media_types:
            answering = self._answering_with(image.data, media_type)
            if answering is None:
                pytest.skip("the image stands in success and downloads neither as bytes nor in base64")
            for params in (self.minimal, *self._with_formats()):
                [(came, _)] = self.outcomes([answering.copy()], params)
                found = came.artifacts[0].media_type if isinstance(came, Result) else describe_outcome(came)
                if found != media_type:
                    wrong.append(f"the media type of {media_type} is {found}")
        wrong += self._wrong_types_of_several()
        assert not wrong, "\n".join(wrong)

    @check
    def test_base64_is_decoded_strictly(self) -> None:
        """Check base64 with what is none, such as a ``data:`` prefix: no image, or the same image, never another."""
        image = self.artifact().data
        encoded = base64.b64encode(image)
        if encoded not in self.success.body:
            pytest.skip("success has no base64 of its artifact")
        middle = len(encoded) // 2
        for what, text in (
            ("a data: prefix", b"data:image/png;base64," + encoded),
            ("a data: prefix", b"data:image/jpeg;base64," + encoded),  # 20 characters: no padding is wrong
            ("an exclamation mark", encoded[:middle] + b"!" + encoded[middle:]),
        ):
            answer = attrs.evolve(self.success, body=self.success.body.replace(encoded, text))
            [(came, _)] = self.outcomes([(*self.stages()[:-1], answer)])
            is_same = isinstance(came, Result) and came.artifacts[0].data == image
            assert is_same or isinstance(came, UnusableResult | ChargeUnknown), (
                f"base64 with {what} ended in {describe_outcome(came)}: b64decode(..., validate=True)"
            )

    @check
    def test_the_request_id_is_reported(self) -> None:
        """Check the provider's id of the exchange, in results and errors."""
        if self.request_id is None:
            pytest.skip("request_id = None: the provider sends none")
        calls = {"success": self.answering()}
        calls |= {f"the refusal HTTP {each.answer.status}": self.answering([each.answer]) for each in self.refusals}
        calls |= {
            f"the scenario {name!r}": self.answering(each.answers, each.downloads)
            for name, each in self.scenarios.items()
            if each.error is not None and not each.params
        }
        answering = [call.with_headers(**{self.request_id: "req-5d1c"}) for call in calls.values()]
        wrong = [
            f"{name}: the answer has {self.request_id}, but request_id of the {type(came).__name__} is "
            f"{came.request_id!r}"
            for name, (came, _) in zip(calls, self.outcomes(answering), strict=True)
            if isinstance(came, Result | ImpastoError) and came.request_id != "req-5d1c"
        ]
        assert not wrong, "\n".join(wrong)

    @check
    def test_retry_after_is_read(self) -> None:
        """Check Retry-After in the refusals of too many requests: seconds, a date, and nonsense."""
        refusals = [refusal.answer for refusal in self.refusals if issubclass(refusal.error, RateLimited)]
        assert refusals, "declare the refusal of too many requests in refusals, with error=RateLimited"
        date = formatdate(time() + _LONGER, usegmt=True)
        wrong: list[str] = []
        for value, low, high in ((f"{_WAIT:g}", _WAIT, _WAIT), (date, _LONGER - 60, _LONGER + 1), ("soon", 0, 3600)):
            for came, _ in self.outcomes((answer.with_headers(retry_after=value),) for answer in refusals):
                wait = came.retry_after if isinstance(came, RateLimited) else describe_outcome(came)
                if value == "soon":
                    is_right = isinstance(came, RateLimited)
                else:
                    is_right = isinstance(wait, float) and low <= wait <= high
                if not is_right:
                    wrong.append(f"Retry-After: {value} became retry_after={wait!r}")
        assert not wrong, "\n".join(wrong)

    @check
    def test_an_answer_means_the_same_in_every_form(self) -> None:
        """Check JSON with its keys in another order, with spaces, and with a key that is new."""
        try:
            body = json.loads(self.success.body)
        except ValueError:
            pytest.skip("success is not JSON")
        if not isinstance(body, dict):
            pytest.skip("success is not a JSON object")
        forms = {
            "with its keys in another order": json.dumps(_reversed(body)),
            "with spaces and line breaks": json.dumps(body, indent=2),
            "with a key that is new": json.dumps({"a_new_key": {"x": [1]}, **body}),
        }
        before = self.stages()[:-1]
        calls = [self.stages(), *((*before, attrs.evolve(self.success, body=text.encode())) for text in forms.values())]
        (expected, _), *others = self.outcomes(calls)
        wrong = [
            f"JSON {form} ended in {describe_outcome(came)}, or in another result"
            for form, (came, _) in zip(forms, others, strict=True)
            if _parts(came) != _parts(expected)
        ]
        assert not wrong, "\n".join(wrong)

    @check
    def test_two_calls_at_once_do_not_mix(self) -> None:
        """Check two calls of one client whose requests and answers differ, each half a step ahead of the other."""
        run(self._two_calls())

    def artifact(self) -> Artifact:
        """Return the first artifact of a successful call."""
        [(came, _)] = self.outcomes([self.stages()])
        assert isinstance(came, Result), f"the good answer ended in {describe_outcome(came)}"
        return came.artifacts[0]

    async def _two_calls(self) -> None:
        image = await self._artifact_in_loop()
        other = self._answering_with(image.data, "image/png") if self.operation().output == "image" else None
        header = self.request_id or "x-request-id"
        sides = [
            each.with_headers(**{header: f"req-{side}"})
            for side, each in (("one", self.answering()), ("two", other or self.answering()))
        ]
        name, value = next(iter(self.others.items()), ("", None))
        params = [self.minimal, self._with_another_prompt(self.params_with(name, value) if name else self.minimal)]
        for order in ((0, 1), (1, 0)):
            gate = _Gate(order)
            async with (
                recording(gate.side(0, sides[0].copy()), HOSTS) as one,
                recording(gate.side(1, sides[1].copy()), HOSTS) as two,
                self.client(one.url) as client,
            ):
                clients = [client, client.with_options(**_with_key(self.settings(two.url), _OTHER_KEY))]
                calls = [call_outcome(c, self.model, p) for c, p in zip(clients, params, strict=True)]
                gate.is_open = True
                alone = [await call for call in calls]
                requests = [_signature(one), _signature(two)]
                assert not any(KEY in f"{each.target} {each.headers}" for each in two.requests), (
                    "a call of another account has the first one's key: the plugin shares state"
                )
                assert other is None or _parts(alone[0]) != _parts(alone[1]), (
                    "a second call with another answer has the first one's result: the plugin shares state"
                )
                again = await call_outcome(clients[1], self.model, params[0])
                assert other is None or _parts(again) != _parts(alone[0]), (
                    "an equal call to another account has the first one's result: the plugin stores answers"
                )
                gate.is_open = False
                at_once = await asyncio.gather(
                    *(call_outcome(c, self.model, p) for c, p in zip(clients, params, strict=True))
                )
            for which, before, after in zip(("first", "second"), alone, at_once, strict=True):
                assert isinstance(after, Result), f"of two calls at once the {which} ended in {describe_outcome(after)}"
                assert _parts(after) == _parts(before), (
                    f"of two calls at once the {which} has another result than alone: the plugin shares state"
                )
            assert [_signature(one), _signature(two)] == requests, (
                "two calls at once sent other requests than alone: the plugin shares state"
            )

    def _answering_with(self, image: bytes, media_type: str) -> Conversation | None:
        """Return answers with a sample in place of an image, or None if the image is in none."""
        success = with_image(self.success, image, media_type)
        samples = {place: with_image(answer, image, media_type) for place, answer in self.downloads.items()}
        downloads = {place: sample for place, sample in samples.items() if sample is not None}
        if success is None and not downloads:
            return None
        return self.answering((*self.stages()[:-1], success or self.success), downloads)

    def _with_formats(self) -> Iterator[Mapping[str, object]]:
        """Yield calls that ask for a file format, in which an answer may come or not."""
        for name, value in self.values():
            if str(value).removeprefix("image/") in ("png", "jpeg", "jpg", "webp"):
                yield self.params_with(name, value)

    def _with_another_prompt(self, params: Mapping[str, object]) -> Mapping[str, object]:
        fields = self.operation().fields
        prompts = {
            name: f"{value}, again"
            for name, value in params.items()
            if isinstance(value, str)
            and fields[name].kind == "text"
            and name not in {*self.requirements.formatted_fields, *self.translated}
        }
        return {**params, **prompts}

    def _wrong_types_of_several(self) -> Iterator[str]:
        """Yield the scenarios with several images whose media types are wrong if each is of another kind."""
        for name, scenario in self.scenarios.items():
            if len(set(scenario.images)) < 2 or scenario.params:
                continue
            answer: Answer | None = scenario.answers[-1]
            downloads = {**self.downloads, **scenario.downloads}
            types = [self.media_types[n % len(self.media_types)] for n in range(len(scenario.images))]
            for image, media_type in zip(scenario.images, types, strict=True):
                samples = {place: with_image(each, image, media_type) for place, each in downloads.items()}
                if any(samples.values()):
                    downloads |= {place: sample for place, sample in samples.items() if sample is not None}
                else:
                    answer = answer and with_image(answer, image, media_type)
            if answer is not None:
                [(came, _)] = self.outcomes([self.answering((*scenario.answers[:-1], answer), downloads)])
                found = [each.media_type for each in came.artifacts] if isinstance(came, Result) else []
                if found != types:
                    yield f"{name}: images of {', '.join(types)} have {', '.join(found) or describe_outcome(came)}"

    async def _artifact_in_loop(self) -> Artifact:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            came = await call_outcome(client, self.model, self.minimal)
            assert isinstance(came, Result), f"the good answer ended in {describe_outcome(came)}"
            return came.artifacts[0]


class _Gate:
    """Holds the answers to two calls until both requests came, then lets them go in an order."""

    def __init__(self, order: tuple[int, int]) -> None:
        self.is_open = True
        self._order = order
        self._came = [asyncio.Event(), asyncio.Event()]

    def side(self, number: int, answer: Callable[[RecordedRequest], Answer]) -> Callable[[RecordedRequest], Any]:
        """Return the answering of one of the two."""

        async def answer_later(request: RecordedRequest) -> Answer:
            if not self.is_open and request.method == "POST":
                self._came[number].set()
                await self._came[1 - number].wait()
                if self._order[0] != number:
                    await asyncio.sleep(0.01)
            return answer(request)

        return answer_later


def _with_key(settings: object, key: str) -> Any:
    """Return settings with another key."""
    if isinstance(settings, Mapping):
        return {name: _with_key(each, key) for name, each in settings.items()}
    return settings.replace(KEY, key) if isinstance(settings, str) else settings


def _signature(recorder: Recorder) -> object:
    """Return the last POST without what differs in equal requests."""
    target, headers, body = without_boundary(recorder.posts[-1])
    return target, [(name, value) for name, value in headers if name.lower() not in ("host", "authorization")], body


def _parts(came: object) -> object:
    """Return what a result consists of, to compare it with another."""
    if not isinstance(came, Result):
        return describe_outcome(came)
    artifacts = [(a.data, a.media_type, a.seed, a.finish_reason) for a in came.artifacts]
    return artifacts, came.request_id, came.cost, getattr(came, "usage", None), len(came.errors)


def _reversed(value: object) -> object:
    if isinstance(value, dict):
        return {name: _reversed(each) for name, each in reversed(value.items())}
    return [_reversed(each) for each in value] if isinstance(value, list) else value
