"""Checks of answers: each becomes a result, or exactly one error that says truly if it was billed."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import attrs

from impasto import (
    BrokenPlugin,
    ChargeUnknown,
    ImpastoError,
    Result,
    Unauthorized,
    UnusableResult,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.call_errors import REMOVED
from impasto.testing.recorder import Answer, Answering, Conversation, Exchanges, RecordedRequest, always, recording
from impasto.testing.samples import images_in
from impasto.testing.subject import KEY, Subject, call_outcome
from impasto.testing.watch import check, hook_outcomes, logged_lines, run

_PAGE = b"<html><body><h1>Something is wrong</h1></body></html>"
_MAX_LISTED = 12
_MOST_POLLS = 10
_BASE = "http://127.0.0.1:9"
_NOWHERE = {"other_url": "http://127.0.0.1:8", "signed_url": "http://127.0.0.1:7"}


class StagedTransport(Exchanges):
    """A transport without a network: each request gets the next answer of ``conversation``."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.posts = 0

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Return the next answer."""
        if wire.method == "POST":
            with wire.call.sending(paid=True):
                pass
            self.posts += 1
        target = str(getattr(wire, "url", None) or wire.target)
        answer = self.conversation(RecordedRequest(method=wire.method, target=target, headers=(), body=b""))
        self.note_exchange(wire.method, target, answer)
        answer = answer.with_words({**_NOWHERE, "url": wire.call.account.base_url})
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return WireResponse(status=answer.status, headers=headers, body=answer.body)


class ResponseChecks(Subject):
    """Checks of a provider's answers."""

    @check
    def test_a_good_answer_is_a_result(self) -> None:
        """Check that a successful answer is a result with artifacts, after one paid request."""

        async def call() -> None:
            async with self.recording() as recorder, self.client(recorder.url) as client:
                client = client.with_options(timeout=self.seconds / 3)
                with hook_outcomes(type(self.operation())) as outcomes:
                    result = await call_outcome(client, self.model, self.minimal)
                errors = [each for each in outcomes if isinstance(each, BaseException)]
                polls = len(recorder.requests) - len(recorder.posts)
                assert not errors, (
                    f"an answer of job_accepted, polls, success or downloads is not understood: {_describe(errors[0])}"
                )
                assert polls <= len(self.stages()) + _MOST_POLLS, (
                    f"the job does not end: polled {polls} times, although answer {len(self.stages())} is the result"
                )
                polled = f", after {polls} requests for its job" if polls else ""
                assert isinstance(result, Result), f"the good answer ended in {_describe(result)}{polled}"
                assert result.artifacts, "a result without an artifact is an UnusableResult"
                for artifact in result.artifacts:
                    assert artifact.data, "an artifact is empty"
                    assert "/" in artifact.media_type, f"{artifact.media_type!r} is not a media type"
                    sent = images_in(self.success.body)
                    assert not sent or artifact.data in sent, (
                        "the artifact's bytes are not those of the answer: pass them on as they came"
                    )
                assert len(recorder.posts) == 1, f"one call made {len(recorder.posts)} paid requests"

        run(call())

    @check
    def test_the_providers_refusals_are_what_its_author_says(self) -> None:
        """Check the error and the billing of each declared refusal."""
        wrong: list[str] = []
        for refusal, (came, posts) in zip(
            self.refusals, self.outcomes((r.answer,) for r in self.refusals), strict=True
        ):
            label = f"{refusal.answer.status} {refusal.answer.body[:80]!r}"
            if type(came) is not refusal.error:
                wrong.append(f"{label} ended in {_describe(came)}, not {refusal.error.__name__}")
            elif came.billed != refusal.billed:
                wrong.append(f"{label}: billed is {came.billed!r}, not {refusal.billed!r}")
            elif refusal.retry_after not in (None, wait := getattr(came, "retry_after", None)):
                wrong.append(f"{label}: retry_after is {wait!r}, not the {refusal.retry_after:g} of its body")
            is_authorized_again = refusal.error is Unauthorized and hasattr(self.operation().provider, "authorize")
            if posts != (2 if is_authorized_again else 1):
                wrong.append(f"{label}: {posts} paid requests")
        assert self.refusals, "give the provider's own refusals, one of each kind"
        assert not wrong, "\n".join(wrong)

    @check
    def test_no_other_answer_proves_that_nothing_was_charged(self) -> None:
        """Check that answers in foreign forms are ChargeUnknown, or UnusableResult if the form is the provider's."""
        wrong: list[str] = []
        documented = [*self.stages(), *(answer for each in self.scenarios.values() for answer in each.answers)]
        own = {answer.status for answer in documented if answer.status < 300}  # such as 201 of job_accepted
        answers = list(_foreign_answers())
        for answer, (came, posts) in zip(answers, self.outcomes((answer,) for answer in answers), strict=True):
            kind = answer.headers.get("content-type", "without a media type")
            is_own = isinstance(came, UnusableResult) and answer.status in own and kind == "application/json"
            if not isinstance(came, ImpastoError) or (came.billed != "unknown" and not is_own) or came.retryable:
                wrong.append(
                    f"HTTP {answer.status} ({kind}) ended in {_describe(came)}, not ChargeUnknown: it is "
                    "not the provider's own form, so classify_error can't know if it was billed"
                )
            elif posts != 1:
                wrong.append(f"HTTP {answer.status} ({kind}): {posts} paid requests")
            elif isinstance(came.__cause__, BrokenPlugin):  # it returned what no answer can mean, such as NotSent
                wrong.append(f"HTTP {answer.status} ({kind}): {came.message}")
        assert not wrong, "\n".join(wrong[:_MAX_LISTED])

    @check
    def test_a_paid_answer_without_a_result_is_kept(self) -> None:
        """Check that the bytes of an unusable answer are in the error."""
        wrong: list[str] = []
        documented = [answer.body for scenario in self.scenarios.values() for answer in scenario.answers]
        spoilt = {what: body for what, body in self._unusable_bodies() if body not in documented}
        before = self.stages()[:-1]
        stages = [(*before, attrs.evolve(self.success, body=body)) for body in spoilt.values()]
        for (what, body), (came, posts) in zip(spoilt.items(), self.outcomes(stages), strict=True):
            if not isinstance(came, UnusableResult | ChargeUnknown):
                wrong.append(f"{what} ended in {_describe(came)}, not UnusableResult")
            elif came.billed == "no" or came.retryable:
                wrong.append(f"{what} ended in {_describe(came)}: a paid answer was billed, whatever it holds")
            elif body and came.raw != self._as_sent(body):
                wrong.append(f"{what}: the {len(body)} bytes that were paid for are not in .raw")
            if posts != 1:
                wrong.append(f"{what}: {posts} paid requests")
        wrong += self._wrong_downloads()
        assert not wrong, "\n".join(wrong)

    @check
    def test_an_answer_that_breaks_off_is_charge_unknown(self) -> None:
        """Check answers that are cut off."""
        paid = self.success if self.job_accepted is None else self.job_accepted
        half = attrs.evolve(paid, cut_after=len(paid.body) // 2)
        huge = attrs.evolve(half, headers={**paid.headers, "content-length": str(2**40)})
        run(self._cut_off({"an answer cut short": half, "an answer with a length of a TiB": huge}))

    @check
    def test_a_redirect_is_not_followed(self) -> None:
        """Check that no key goes to another host."""

        async def call() -> None:
            async with self.recording() as other:
                away = Answer(status=307, headers={"location": f"{other.url}/elsewhere"})
                came, posts = await self._outcome(always(away))
                assert isinstance(came, ChargeUnknown), f"a redirect ended in {_describe(came)}"
                assert (posts, other.requests) == (1, []), "a redirect was followed: the key went to another host"

        run(call())

    @check
    def test_no_message_and_no_log_holds_the_key(self) -> None:
        """Check errors, logs and representations for the key."""
        leaking = Answer(status=401, headers={"content-type": "application/json"}, body=f'{{"key": "{KEY}"}}'.encode())
        answers = [
            *(refusal.answer for refusal in self.refusals),
            leaking,
            Answer(status=500, body=_PAGE),
            self.success,
        ]
        with logged_lines() as lines:
            texts = [_printable_text(run(self._outcome(always(answer)))[0]) for answer in answers]
        forms = (KEY, base64.b64encode(KEY.encode()).decode(), quote(KEY, safe=""), KEY[:16])
        removed = [line for line in lines if REMOVED in line]
        assert not removed, f"the key is in an error behind another (the core has removed it): {removed[0]}"
        for text in (*texts, "\n".join(lines)):
            assert not any(form in text for form in forms), f"the key is in: {text.replace(KEY, 'KEY')[:400]}"

    def outcomes(
        self, calls: Iterable[Sequence[Answer] | Conversation], params: Mapping[str, object] | None = None
    ) -> list[tuple[object, int]]:
        """Return the outcome of a call for each conversation, without a network, and the number of paid requests."""

        async def results() -> list[tuple[object, int]]:
            transport = StagedTransport(self.answering())
            outcomes: list[tuple[object, int]] = []
            async with self.client(_BASE) as client:
                redirected = client.with_options(transport=transport)
                for answers in calls:
                    own = answers if isinstance(answers, Conversation) else self.answering(answers)
                    transport.conversation, transport.posts = own, 0
                    came = await call_outcome(redirected, self.model, self.minimal if params is None else params)
                    outcomes.append((came, transport.posts))
            return outcomes

        return run(results())

    async def _cut_off(self, answers: Mapping[str, Answer]) -> None:
        for what, answer in answers.items():
            async with self.recording([answer]) as recorder, self.client(recorder.url) as client:
                came = await call_outcome(client, self.model, self.minimal)
                sent = answer.with_words({**recorder.urls, "job": self.job_id(1)}).body[: answer.cut_after]
                assert isinstance(came, ChargeUnknown), f"{what} ended in {_describe(came)}"
                assert came.raw == sent, f"{what}: the bytes that came are not in .raw"
                assert len(recorder.posts) == 1, f"{what}: {len(recorder.posts)} paid requests"

    async def _outcome(self, answering: Answering) -> tuple[object, int]:
        """Return the outcome of a call over a real socket, and the number of its paid requests."""
        async with recording(answering) as recorder, self.client(recorder.url) as client:
            return await call_outcome(client, self.model, self.minimal), len(recorder.posts)

    def _as_sent(self, body: bytes) -> bytes:
        """Return a body as ``StagedTransport`` sends it in the first call."""
        return Answer(body=body).with_words({**_NOWHERE, "job": self.job_id(1), "url": _BASE}).body

    def _wrong_downloads(self) -> Iterator[str]:
        """Yield the answers at an image's address that are no image, and became one."""
        for place, answer in [*self.downloads.items()][:1]:
            half = answer.body[: len(answer.body) // 2]
            spoilt = {"an empty answer": b"", "a page": _PAGE}
            spoilt |= {"half an image": half} if self.requirements.detects_truncation else {}
            calls = [self.answering(None, {place: attrs.evolve(answer, body=body)}) for body in spoilt.values()]
            for what, (came, posts) in zip(spoilt, self.outcomes(calls), strict=True):
                if not isinstance(came, UnusableResult | ChargeUnknown) or posts != 1:
                    yield f"{what} at {place} ended in {_describe(came)} after {posts} paid requests"

    def _unusable_bodies(self) -> Iterator[tuple[str, bytes]]:
        yield "an empty answer", b""
        yield "an answer of zeros", bytes(100)
        yield "a page", _PAGE
        yield "damaged JSON", b'{"data": [{"b64_json": "iVBORw0K'
        yield "JSON of nothing", b"{}"
        yield "JSON without end", b"[" * 100_000
        if self.requirements.detects_truncation:
            yield "half a good answer", self.success.body[: len(self.success.body) // 2]
            yield "a good answer less its last bytes", self.success.body[:-8]
            yield from self._truncated_within_json()

    def _truncated_within_json(self) -> Iterator[tuple[str, bytes]]:
        """Yield whole JSON answers in which the base64 of the artifact is cut short."""
        [(came, _)] = self.outcomes([self.stages()])
        for artifact in came.artifacts if isinstance(came, Result) else ():
            whole, half = (base64.b64encode(data) for data in (artifact.data, artifact.data[: len(artifact.data) // 2]))
            if whole in self.success.body:
                yield f"a whole answer with half of its {artifact.media_type}", self.success.body.replace(whole, half)


def _foreign_answers() -> Iterator[Answer]:
    """Yield answers that are not the provider's own."""
    for status in (201, 204, 206, 300, 301, 302, 303, 304, 307, 308, *range(400, 600)):
        yield Answer(status=status, headers={"content-type": "text/html"}, body=_PAGE)
        yield Answer(status=status, headers={"content-type": "application/json"}, body=b"{}")
    for status in (400, 401, 429, 500, 503):
        yield Answer(status=status, headers={"content-type": "application/json"}, body=b"[1]")
        yield Answer(status=status)
    yield Answer(status=200, headers={"content-type": "text/html"}, body=_PAGE)


def _printable_text(result: Any) -> str:
    """Return all text of an outcome that a program could print."""
    if not isinstance(result, BaseException):
        return repr(result)
    texts = [repr(result), str(result), *map(repr, result.args), *getattr(result, "__notes__", ())]
    texts += traceback.format_exception(result)
    return "\n".join([*texts, *(repr(v) for k, v in vars(result).items() if k != "raw")])


def _describe(result: object) -> str:
    if isinstance(result, ImpastoError):
        return f"{type(result).__name__} (billed {result.billed!r}): {result}"
    return f"{type(result).__name__}: {result}" if isinstance(result, BaseException) else f"a {type(result).__name__}"
