"""Checks of what becomes of an answer: a result, or exactly one error that says truly whether it was billed."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import attrs

from impasto import ChargeUnknown, ImpastoError, Result, UnusableResult, WireRequest, WireResponse, hookimpl

from .recorder import Answer, Answering, always, recording
from .requirements import KEY, Subject, outcome

_PAGE = b"<html><body><h1>Something is wrong</h1></body></html>"
_MOST_SHOWN = 12


class _Told:
    """A transport without a network. Every request is answered with ``answer``; with ``accepted``, every poll."""

    def __init__(self, accepted: Answer | None) -> None:
        self._accepted = accepted
        self.answer = Answer()
        self.posts = 0

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        answer = self.answer
        if wire.method == "POST":
            wire.call.attempt()
            wire.call.left()
            self.posts += 1
            answer = self._accepted or answer
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return WireResponse(status=answer.status, headers=headers, body=answer.body)


class Answers(Subject):
    """Checks of answers."""

    def test_a_good_answer_is_a_result(self) -> None:
        async def check() -> None:
            async with recording(self.usual) as recorder, self.client(recorder.url) as client:
                result = await outcome(client, self.model, self.least)
                assert isinstance(result, Result), f"the good answer came to {_shown(result)}"
                assert result.artifacts, "a result without an artifact is an UnusableResult"
                for artifact in result.artifacts:
                    assert artifact.data, "an artifact is empty"
                    assert "/" in artifact.media_type, f"{artifact.media_type!r} is no media type"
                assert len(recorder.posts) == 1, f"one call made {len(recorder.posts)} paid requests"

        asyncio.run(check())

    def test_the_providers_refusals_are_what_its_author_says(self) -> None:
        wrong: list[str] = []
        for refusal, (came, posts) in zip(self.refusals, self._answered(r.answer for r in self.refusals), strict=True):
            told = f"{refusal.answer.status} {refusal.answer.body[:80]!r}"
            if type(came) is not refusal.error:
                wrong.append(f"{told} came to {_shown(came)}, not {refusal.error.__name__}")
            elif came.billed != refusal.billed:
                wrong.append(f"{told}: billed is {came.billed!r}, not {refusal.billed!r}")
            if posts != 1:
                wrong.append(f"{told}: {posts} paid requests")
        assert self.refusals, "give the provider's own refusals, one of each kind"
        assert not wrong, "\n".join(wrong)

    def test_no_other_answer_proves_that_nothing_was_charged(self) -> None:
        wrong: list[str] = []
        answers = list(_strange())
        for answer, (came, posts) in zip(answers, self._answered(answers), strict=True):
            kind = answer.headers.get("content-type", "no media type")
            if not isinstance(came, ImpastoError) or came.billed != "unknown" or came.retryable:
                wrong.append(
                    f"HTTP {answer.status} ({kind}) came to {_shown(came)}, not ChargeUnknown: it is "
                    "not the provider's own form, so classify can't know whether it was billed"
                )
            elif posts != 1:
                wrong.append(f"HTTP {answer.status} ({kind}): {posts} paid requests")
        assert not wrong, "\n".join(wrong[:_MOST_SHOWN])

    def test_a_paid_answer_without_a_result_is_kept(self) -> None:
        wrong: list[str] = []
        spoilt = dict(self._spoilt())
        answers = [attrs.evolve(self.good, body=body) for body in spoilt.values()]
        for (what, body), (came, posts) in zip(spoilt.items(), self._answered(answers, self.accepted), strict=True):
            if not isinstance(came, UnusableResult | ChargeUnknown):
                wrong.append(f"{what} came to {_shown(came)}, not UnusableResult")
            elif came.raw != body:
                wrong.append(f"{what}: the {len(body)} bytes that were paid for are not in .raw")
            if posts != 1:
                wrong.append(f"{what}: {posts} paid requests")
        assert not wrong, "\n".join(wrong)

    def test_an_answer_that_breaks_off_is_charge_unknown(self) -> None:
        paid = self.good if self.accepted is None else self.accepted
        half = attrs.evolve(paid, cut=len(paid.body) // 2)
        huge = attrs.evolve(half, headers={**paid.headers, "content-length": str(2**40)})
        for what, answer in (("an answer cut short", half), ("an answer that says it has a TiB", huge)):
            came, posts = asyncio.run(self._met(always(answer)))
            assert isinstance(came, ChargeUnknown), f"{what} came to {_shown(came)}"
            assert came.raw == answer.body[: answer.cut], f"{what}: the bytes that came are not in .raw"
            assert posts == 1, f"{what}: {posts} paid requests"

    def test_a_redirect_is_not_followed(self) -> None:
        async def check() -> None:
            async with recording(self.usual) as other:
                away = Answer(status=307, headers={"location": f"{other.url}/elsewhere"})
                came, posts = await self._met(always(away))
                assert isinstance(came, ChargeUnknown), f"a redirect came to {_shown(came)}"
                assert (posts, other.seen) == (1, []), "a redirect was followed: the key went to another host"

        asyncio.run(check())

    def test_no_message_and_no_log_holds_the_key(self) -> None:
        told = Answer(status=401, headers={"content-type": "application/json"}, body=f'{{"key": "{KEY}"}}'.encode())
        answers = [*(refusal.answer for refusal in self.refusals), told, Answer(status=500, body=_PAGE), self.good]
        log = _Log()
        logging.getLogger().addHandler(log)
        level = logging.getLogger("impasto").level
        logging.getLogger("impasto").setLevel(logging.DEBUG)
        try:
            texts = [_everything(asyncio.run(self._met(always(answer)))[0]) for answer in answers]
        finally:
            logging.getLogger().removeHandler(log)
            logging.getLogger("impasto").setLevel(level)
        forms = (KEY, base64.b64encode(KEY.encode()).decode(), quote(KEY, safe=""), KEY[:16])
        for text in (*texts, "\n".join(log.lines)):
            assert not any(form in text for form in forms), f"the key stands in: {text.replace(KEY, 'KEY')[:400]}"

    def _answered(self, answers: Iterable[Answer], accepted: Answer | None = None) -> list[tuple[object, int]]:
        """What calls come to that are answered so, without a network, and how many paid requests each made.

        With ``accepted`` they are accepted as jobs, and it is their results that are answered so.
        """

        async def calls() -> list[tuple[object, int]]:
            transport = _Told(accepted)
            came: list[tuple[object, int]] = []
            async with self.client("http://127.0.0.1:9") as client:
                told = client.with_options(transport=transport)
                for transport.answer in answers:
                    transport.posts = 0
                    came.append((await outcome(told, self.model, self.least), transport.posts))
            return came

        return asyncio.run(calls())

    async def _met(self, answering: Answering) -> tuple[object, int]:
        """What a call comes to over a real socket, and how many paid requests it made."""
        async with recording(answering) as recorder, self.client(recorder.url) as client:
            return await outcome(client, self.model, self.least), len(recorder.posts)

    def _spoilt(self) -> Iterator[tuple[str, bytes]]:
        yield "an empty answer", b""
        yield "an answer of zeros", bytes(100)
        yield "a page", _PAGE
        yield "damaged JSON", b'{"data": [{"b64_json": "iVBORw0K'
        yield "JSON of nothing", b"{}"
        yield "JSON without end", b"[" * 100_000
        if self.requirements.tells_cut_ones:
            yield "half a good answer", self.good.body[: len(self.good.body) // 2]
            yield "a good answer less its last bytes", self.good.body[:-8]
            yield from self._cut_within()

    def _cut_within(self) -> Iterator[tuple[str, bytes]]:
        """Whole answers, in which what is made stands in base64 and is cut short."""
        [(came, _)] = self._answered([self.good], self.accepted)
        for artifact in came.artifacts if isinstance(came, Result) else ():
            whole, half = (base64.b64encode(data) for data in (artifact.data, artifact.data[: len(artifact.data) // 2]))
            if whole in self.good.body:
                yield f"a whole answer with half of its {artifact.media_type}", self.good.body.replace(whole, half)


def _strange() -> Iterator[Answer]:
    """Answers that are not the provider's own."""
    for status in (201, 204, 206, 300, 301, 302, 303, 304, 307, 308, *range(400, 600)):
        yield Answer(status=status, headers={"content-type": "text/html"}, body=_PAGE)
        yield Answer(status=status, headers={"content-type": "application/json"}, body=b"{}")
    for status in (400, 401, 429, 500, 503):
        yield Answer(status=status, headers={"content-type": "application/json"}, body=b"[1]")
        yield Answer(status=status)
    yield Answer(status=200, headers={"content-type": "text/html"}, body=_PAGE)


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def _everything(came: Any) -> str:
    """All that a program could print of an outcome."""
    if not isinstance(came, BaseException):
        return repr(came)
    texts = [repr(came), str(came), *map(repr, came.args), *getattr(came, "__notes__", ())]
    texts += traceback.format_exception(came)
    return "\n".join([*texts, *(repr(v) for k, v in vars(came).items() if k != "raw")])


def _shown(came: object) -> str:
    if isinstance(came, ImpastoError):
        return f"{type(came).__name__} (billed {came.billed!r}): {came}"
    return f"{type(came).__name__}: {came}" if isinstance(came, BaseException) else f"a {type(came).__name__}"
