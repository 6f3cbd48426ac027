"""The suite of transports: ours passes, and each of many defects is caught by the check for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
from blockbuster import BlockBuster
from yarl import URL

from impasto import ConfigError
from impasto.ext import Options
from impasto.testing import TransportSuite
from impasto.testing.recorder import Answer, always, recording
from tests.core.testing import transport_defects as defects


class TestHttps(TransportSuite):
    transport = "https"


class TestSound(TransportSuite):
    transport = "sound"
    factory = defects.Sound


SUITE = TransportSuite
DEFECTS: list[tuple[type[defects.Sound], Callable[[TransportSuite], None], str]] = [
    (defects.Resends, SUITE.test_a_request_without_an_answer_is_charge_unknown, "led to 2 requests"),
    (
        defects.ClaimsNotSent,
        SUITE.test_a_request_without_an_answer_is_charge_unknown,
        "a connection that closed ended in",
    ),
    (defects.ForgetsEvidence, SUITE.test_what_was_sent_is_reported, r"use wire\.call\.sending"),
    (defects.SwallowsNotSent, SUITE.test_no_connection_is_not_sent, "a closed port ended in .*not in NotSent"),
    (defects.LeavesSendingOpen, SUITE.test_what_was_sent_is_reported, "sending was entered and not left"),
    (defects.ReportsTheBodyTwice, SUITE.test_what_was_sent_is_reported, "was called 2 times, not once"),
    (defects.ReadsTheBodyTwice, SUITE.test_an_answer_comes_as_it_was_sent, "the good answer ended in UnusableResult"),
    (
        defects.TakesAHalfForAWhole,
        SUITE.test_a_request_without_an_answer_is_charge_unknown,
        "cut short ended in Result",
    ),
    (defects.KeepsTheCaseOfHeaders, SUITE.test_an_answer_comes_as_it_was_sent, "names in lower case|good answer"),
    (defects.FollowsRedirects, SUITE.test_a_redirect_is_not_followed, "the key went to another host"),
    (defects.LogsTheKey, SUITE.test_no_message_and_no_log_holds_the_key, "the key is in a log line"),
    (defects.IgnoresCancellation, SUITE.test_an_exchange_can_be_cancelled, "not in CancelledError"),
    (defects.LeavesATask, SUITE.test_an_exchange_can_be_cancelled, "left tasks"),
    (defects.Sleeps, SUITE.test_nothing_blocks_the_loop, "it sleeps on the loop's thread"),
    (defects.DropsHeaders, SUITE.test_a_request_arrives_whole, "a header of the request did not arrive"),
    (defects.HangsForEver, SUITE.test_a_request_arrives_whole, r"did not end within[^$]*in carry"),
    (defects.FailsAtTheSecondClose, SUITE.test_it_opens_and_closes, "closed already"),
    (defects.NeverConnects, SUITE.test_an_exchange_can_be_cancelled, "nothing was requested.*the tunnel is down"),
    (defects.DropsFiles, SUITE.test_every_kind_of_request_arrives, "a form: the body has not the fields and files"),
    (defects.TurnsFilesRound, SUITE.test_every_kind_of_request_arrives, "in their order"),
    (defects.DropsTheQuery, SUITE.test_every_kind_of_request_arrives, "nested JSON: the target is /v1/images, not"),
    (defects.StaysAtItsHost, SUITE.test_every_kind_of_request_arrives, "a GET did not arrive, but ended in"),
    (defects.AlwaysHasTheKey, SUITE.test_every_kind_of_request_arrives, "an anonymous GET has the key"),
    (defects.PostsAlways, SUITE.test_every_kind_of_request_arrives, "a GET did not arrive, but ended in"),
    (defects.DropsTheMediaType, SUITE.test_an_answer_comes_as_it_was_sent, "content-type is lost"),
    (defects.ResendsAfter429, SUITE.test_an_answer_comes_as_it_was_sent, "HTTP 429 (led to 2|arrived as)"),
    (defects.SendsOneAtATime, SUITE.test_exchanges_at_once_do_not_mix, r"only \d of ten exchanges ran at once"),
    (defects.ClosesNothing, SUITE.test_nothing_is_open_after_the_client, "a connection is still open after the client"),
    (defects.HoldsBodies, SUITE.test_an_answer_is_not_held, "of three requests and answers are held"),
    (defects.HoldsRequests, SUITE.test_an_answer_is_not_held, "of three requests and answers are held"),
    (defects.GivesWholeAnswers, SUITE.test_an_event_comes_before_the_answer_ends, "came no earlier than the last"),
    (defects.ReadsTheFirstBytes, SUITE.test_an_answer_comes_as_it_was_sent, "1,048,576 bytes of 3,278,400"),
    (defects.DropsRetryAfter, SUITE.test_an_answer_comes_as_it_was_sent, "the header retry-after is lost"),
    (defects.ResendsAfter502, SUITE.test_an_answer_comes_as_it_was_sent, "HTTP 502 (led to 2|arrived as)"),
    (defects.IgnoresMaxBytes, SUITE.test_a_request_that_is_too_large_is_not_sent, "more than max_bytes was sent"),
    (defects.PutsAsPosts, SUITE.test_every_kind_of_request_arrives, "a PUT (arrived as POST|did not arrive)"),
    (defects.FollowsRedirectsOfPolls, SUITE.test_a_redirect_is_not_followed, "a redirect of a GET was followed"),
    (defects.ReportsHeadersTooEarly, SUITE.test_no_connection_is_not_sent, "closed port"),
    (defects.ReportsHeadersTooLate, SUITE.test_an_exchange_can_be_cancelled, "the request has arrived, and evidence"),
    (
        defects.SharesConnections,
        SUITE.test_each_request_has_the_key_of_its_own_account,
        "after another client was closed",
    ),
    (defects.HasTheFirstKey, SUITE.test_each_request_has_the_key_of_its_own_account, "has the key of the first"),
    (
        defects.DropsTheKeysQuery,
        SUITE.test_each_request_has_the_key_of_its_own_account,
        "a key in the query is not there",
    ),
    (defects.KeepsTheLoopBusy, SUITE.test_nothing_blocks_the_loop, "each call blocks the loop for"),
    (defects.LogsTheKeyElsewhere, SUITE.test_no_message_and_no_log_holds_the_key, "the key is in a log line"),
    (defects.Shields, SUITE.test_an_exchange_can_be_cancelled, "still open|left tasks"),
    (defects.NeverSigns, SUITE.test_a_request_is_signed_as_it_is_sent, r"a POST \(encoding='json'\) is not signed"),
    (defects.SignsPaidRequestsAlone, SUITE.test_a_request_is_signed_as_it_is_sent, "a GET is not signed"),
    (defects.SignsBeforeTheBody, SUITE.test_a_request_is_signed_as_it_is_sent, "the very bytes of the body"),
    (defects.MixesAnswers, SUITE.test_exchanges_at_once_do_not_mix, "a call got the answer to another one"),
]


@pytest.fixture
def blocking_is_possible(nothing_blocks_the_loop: BlockBuster) -> Iterator[None]:
    """Other people's tests have no guard of ours."""
    nothing_blocks_the_loop.deactivate()
    yield
    nothing_blocks_the_loop.activate()


@pytest.mark.usefixtures("blocking_is_possible")
@pytest.mark.parametrize(("kind", "check", "says"), DEFECTS, ids=[kind.__name__ for kind, _, _ in DEFECTS])
def test_a_defect_is_caught(kind: type[defects.Sound], check: Callable[[TransportSuite], None], says: str) -> None:
    class Suite(TransportSuite):
        __test__ = False
        transport = "acme"
        factory = kind
        seconds = 1.0 if kind is defects.HangsForEver else 60.0

    with pytest.raises((AssertionError, RuntimeError), match=says):
        check(Suite())


@pytest.mark.usefixtures("blocking_is_possible")
def test_a_transport_of_whole_answers_declares_it() -> None:
    class Suite(TransportSuite):
        __test__ = False
        transport = "acme"
        factory = defects.GivesWholeAnswers
        streams = False

    with pytest.raises(pytest.skip.Exception, match="streams = False"):
        Suite().test_an_event_comes_before_the_answer_ends()


class NeedsSettings(defects.Sound):
    def __init__(self, options: Options) -> None:
        raise ConfigError('needs providers={"acme": {"secret": ...}}')


CHECKS = [getattr(SUITE, name) for name in dir(SUITE) if name.startswith("test_")]


@pytest.mark.parametrize("check", CHECKS, ids=[each.__name__ for each in CHECKS])
def test_each_check_reports_why_a_transport_is_not_opened(check: Callable[[TransportSuite], None]) -> None:
    class Suite(TransportSuite):
        __test__ = False
        transport = "acme"
        factory = NeedsSettings

    with pytest.raises(AssertionError, match=r"can't be opened: ConfigError: needs providers=[^$]*provider_settings"):
        check(Suite())


async def test_a_connection_of_the_last_moment_is_closed() -> None:
    """A socket that is left open would be reported by the garbage collector, as an error of the next check."""
    async with recording(always(Answer())) as recorder:
        url = URL(recorder.url)
        with socket.create_connection((url.host, url.port)):
            pass
        for _ in range(2):  # the loop has accepted the connection, and makes its transport in the next turn
            await asyncio.sleep(0)
