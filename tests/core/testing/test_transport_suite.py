"""The suite of transports: ours passes, and each of many defects is caught by the check for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import ClassVar

import attrs
import pytest
from blockbuster import BlockBuster

from impasto import Body, ChargeUnknown, ConfigError, NotSent, WireRequest, WireResponse, hookimpl
from impasto.ext import Options
from impasto.testing import TransportSuite
from impasto_plugins.transports.https import HttpsTransport


class TestHttps(TransportSuite):
    transport = "https"


class Sound(HttpsTransport):
    """Ours under another name; the defects override ``carry``."""

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        return await self.carry(wire)

    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().send(wire)


class TestSound(TransportSuite):
    transport = "sound"
    factory = Sound


class Resends(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except ChargeUnknown:
            wire.call._may_post = True
            return await super().carry(wire)


class ForgetsEvidence(Sound):
    """Makes the exchange without the call's evidence."""

    async def carry(self, wire: WireRequest) -> WireResponse:
        sending = wire.call.sending
        vars(wire.call)["sending"] = lambda *, paid: sending(paid=False)
        return await super().carry(wire)


class ClaimsNotSent(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except ChargeUnknown:
            raise NotSent("no answer") from None


class SwallowsNotSent(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except NotSent:
            return WireResponse(status=503, headers={})


class LeavesSendingOpen(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        wire.call.sending(paid=False).__enter__()
        return await super().carry(wire)


class ReportsTheBodyTwice(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        with wire.call.sending(paid=False) as evidence:
            evidence.body_sent()
        return response


class ReadsTheBodyTwice(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        await response.stream.collect()
        return attrs.evolve(response, stream=Body(empty()))


async def empty() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


class TakesAHalfForAWhole(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        try:
            body = await response.stream.collect()
        except ChargeUnknown:
            body = response.stream.received
        return attrs.evolve(response, body=body or b"", stream=None)


class KeepsTheCaseOfHeaders(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        return attrs.evolve(response, headers={name.title(): value for name, value in response.headers.items()})


class FollowsRedirects(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 307:
            url = response.headers["location"]
            await (await self._session.get(url, headers=dict(wire.call.account.headers))).read()  # type: ignore[union-attr]  # it is open
        return response


class LogsTheKey(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        logging.getLogger("impasto.acme").debug("headers: %s", dict(wire.call.account.headers))
        return await super().carry(wire)


class IgnoresCancellation(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except asyncio.CancelledError:
            raise ChargeUnknown("cancelled") from None


class LeavesATask(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        vars(asyncio.get_running_loop())["task"] = asyncio.ensure_future(asyncio.sleep(60))
        return await super().carry(wire)


class Sleeps(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        time.sleep(0.001)
        return await super().carry(wire)


class DropsHeaders(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, headers={}))


class HangsForEver(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        await asyncio.Event().wait()
        return await super().carry(wire)


class FailsAtTheSecondClose(Sound):
    is_closed: ClassVar[bool] = False

    async def aclose(self) -> None:
        if self._session is None:
            raise RuntimeError("closed already")
        await super().aclose()


class MixesAnswers(Sound):
    last: ClassVar[list[WireResponse]] = []

    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        body = b"" if response.stream is None else await response.stream.collect() or b""
        self.last.append(attrs.evolve(response, body=body, stream=None))
        await asyncio.sleep(0.02)
        return self.last[-1]


class NeverConnects(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        raise NotSent("the tunnel is down")


class DropsFiles(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, files=tuple(wire.files)[:1]))


class TurnsFilesRound(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, files=tuple(wire.files)[::-1]))


class DropsTheQuery(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, target=wire.target.partition("?")[0]))


class StaysAtItsHost(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, url=None))


class AlwaysHasTheKey(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, anonymous=False))


class PostsAlways(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, method="POST"))


class DropsTheMediaType(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        headers = {name: value for name, value in response.headers.items() if name != "content-type"}
        return attrs.evolve(response, headers=headers)


class ResendsAfter429(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 429:
            wire.call._may_post = True
            response = await super().carry(wire)
        return response


class SendsOneAtATime(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        lock = vars(self).setdefault("lock", asyncio.Lock())
        async with lock:
            return await super().carry(wire)


class ClosesNothing(Sound):
    sessions: ClassVar[list[object]] = []

    async def aclose(self) -> None:
        self.sessions.append(self._session)


SUITE = TransportSuite
DEFECTS: list[tuple[type[Sound], Callable[[TransportSuite], None], str]] = [
    (Resends, SUITE.test_a_request_without_an_answer_is_charge_unknown, "led to 2 requests"),
    (
        ClaimsNotSent,
        SUITE.test_a_request_without_an_answer_is_charge_unknown,
        "a connection that closed ended in",
    ),
    (ForgetsEvidence, SUITE.test_what_was_sent_is_reported, r"use wire\.call\.sending"),
    (SwallowsNotSent, SUITE.test_no_connection_is_not_sent, "a closed port ended in .*not in NotSent"),
    (LeavesSendingOpen, SUITE.test_what_was_sent_is_reported, "sending was entered and not left"),
    (ReportsTheBodyTwice, SUITE.test_what_was_sent_is_reported, "was called 2 times, not once"),
    (ReadsTheBodyTwice, SUITE.test_an_answer_comes_as_it_was_sent, "the good answer ended in UnusableResult"),
    (
        TakesAHalfForAWhole,
        SUITE.test_a_request_without_an_answer_is_charge_unknown,
        "cut short ended in Result",
    ),
    (KeepsTheCaseOfHeaders, SUITE.test_an_answer_comes_as_it_was_sent, "names in lower case|good answer"),
    (FollowsRedirects, SUITE.test_a_redirect_is_not_followed, "the key went to another host"),
    (LogsTheKey, SUITE.test_no_message_and_no_log_holds_the_key, "the key is in a log line"),
    (IgnoresCancellation, SUITE.test_an_exchange_can_be_cancelled, "not in CancelledError"),
    (LeavesATask, SUITE.test_an_exchange_can_be_cancelled, "left tasks"),
    (Sleeps, SUITE.test_nothing_blocks_the_loop, "it sleeps on the loop's thread"),
    (DropsHeaders, SUITE.test_a_request_arrives_whole, "a header of the request did not arrive"),
    (HangsForEver, SUITE.test_a_request_arrives_whole, r"did not end within[^$]*in carry"),
    (FailsAtTheSecondClose, SUITE.test_it_opens_and_closes, "closed already"),
    (NeverConnects, SUITE.test_an_exchange_can_be_cancelled, "nothing was requested.*the tunnel is down"),
    (DropsFiles, SUITE.test_every_kind_of_request_arrives, "a form: the body has not the fields and files"),
    (TurnsFilesRound, SUITE.test_every_kind_of_request_arrives, "in their order"),
    (DropsTheQuery, SUITE.test_every_kind_of_request_arrives, "nested JSON: the target is /v1/images, not"),
    (StaysAtItsHost, SUITE.test_every_kind_of_request_arrives, "a GET did not arrive, but ended in"),
    (AlwaysHasTheKey, SUITE.test_every_kind_of_request_arrives, "an anonymous GET has the key"),
    (PostsAlways, SUITE.test_every_kind_of_request_arrives, "a GET did not arrive, but ended in"),
    (DropsTheMediaType, SUITE.test_an_answer_comes_as_it_was_sent, "content-type is lost"),
    (ResendsAfter429, SUITE.test_an_answer_comes_as_it_was_sent, "HTTP 429 (led to 2|arrived as)"),
    (SendsOneAtATime, SUITE.test_exchanges_at_once_do_not_mix, "only 1 of ten exchanges ran at once"),
    (ClosesNothing, SUITE.test_nothing_is_open_after_the_client, "a connection is still open after the client"),
    (MixesAnswers, SUITE.test_exchanges_at_once_do_not_mix, "a call got the answer to another one"),
]


@pytest.fixture
def blocking_is_possible(nothing_blocks_the_loop: BlockBuster) -> Iterator[None]:
    """Other people's tests have no guard of ours."""
    nothing_blocks_the_loop.deactivate()
    yield
    nothing_blocks_the_loop.activate()


@pytest.mark.usefixtures("blocking_is_possible")
@pytest.mark.parametrize(("kind", "check", "says"), DEFECTS, ids=[kind.__name__ for kind, _, _ in DEFECTS])
def test_a_defect_is_caught(kind: type[Sound], check: Callable[[TransportSuite], None], says: str) -> None:
    class Suite(TransportSuite):
        __test__ = False
        transport = "acme"
        factory = kind
        seconds = 1.0 if kind is HangsForEver else 60.0

    with pytest.raises((AssertionError, RuntimeError), match=says):
        check(Suite())


class NeedsSettings(Sound):
    def __init__(self, options: Options) -> None:
        raise ConfigError('needs providers={"acme": {"secret": ...}}')


CHECKS = [value for name, value in vars(SUITE).items() if name.startswith("test_")]


@pytest.mark.parametrize("check", CHECKS, ids=[each.__name__ for each in CHECKS])
def test_each_check_reports_why_a_transport_is_not_opened(check: Callable[[TransportSuite], None]) -> None:
    class Suite(TransportSuite):
        __test__ = False
        transport = "acme"
        factory = NeedsSettings

    with pytest.raises(AssertionError, match=r"can't be opened: ConfigError: needs providers=[^$]*provider_settings"):
        check(Suite())
