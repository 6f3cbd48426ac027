"""A record of a call, kept as it goes: what it is told, and when."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import pytest

import impasto
from impasto import Call, ConfigError, ImpastoError, NotSent, Pending, WireRequest
from tests.conftest import KEY
from tests.images import png
from tests.recorder import JOB, Answer, Recorder, in_json

CORE = "stability/stable-image-core"
CREATIVE = "stability/upscale-creative"


class RecordingCall(Call):
    """Writes down what it is told, with how many requests had arrived by then."""

    is_recorded: ClassVar[bool] = True
    recorder: ClassVar[Recorder]
    notes: ClassVar[list[tuple[str, int]]]

    def _note(self, what: str) -> None:
        self.notes.append((what, len(self.recorder.requests)))

    async def before_send(self, wire: WireRequest) -> None:
        self._note(f"sending {wire.method}")

    def mark_headers_sent(self) -> None:
        super().mark_headers_sent()
        self._note("left")

    def mark_not_sent(self, error: NotSent) -> None:
        super().mark_not_sent(error)
        self._note(f"not sent: {error.message}")

    def mark_not_charged(self, error: ImpastoError) -> None:
        super().mark_not_charged(error)
        self._note(f"refused {type(error).__name__}")

    def mark_job_accepted(self, pending: Pending) -> None:
        super().mark_job_accepted(pending)
        self._note(f"accepted {pending.id[:2]} for {pending.result_ttl:g} s")

    async def record_job(self, pending: Pending) -> None:
        await asyncio.sleep(0)
        self._note(f"recorded {pending.id[:2]}")


@pytest.fixture
def recording_call(recorder: Recorder) -> type[RecordingCall]:
    RecordingCall.recorder, RecordingCall.notes = recorder, []
    return RecordingCall


async def test_a_record_is_written_before_each_exchange(
    client: impasto.Client, recorder: Recorder, recording_call: type[RecordingCall]
) -> None:
    recorder.jobs, recorder.pending = {"/v2beta/stable-image/upscale/creative"}, 1
    await client.invoke(CREATIVE, {"image": png(64, 64), "prompt": "p"}, call=recording_call)
    assert recording_call.notes == [
        ("sending POST", 0),
        ("left", 0),
        (f"accepted {JOB[:2]} for 86400 s", 1),
        (f"recorded {JOB[:2]}", 1),
        ("sending GET", 1),
        ("sending GET", 2),
    ]


async def test_each_attempt_that_never_left_is_reported(
    client: impasto.Client, recording_call: type[RecordingCall]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        away = client.with_options(api_base=f"http://{address}", retry=impasto.Retry(attempts=2, base=0))
        with pytest.raises(NotSent):
            await away.invoke(CORE, {"prompt": "p"}, call=recording_call)
    not_sent = (f"not sent: no connection ({address}: Connection refused); nothing was sent", 0)
    assert recording_call.notes == [("sending POST", 0), not_sent] * 2


async def test_a_refusal_is_told_before_the_next_attempt(
    client: impasto.Client, recorder: Recorder, recording_call: type[RecordingCall]
) -> None:
    answers = [in_json({"id": "e", "name": "internal_error", "errors": ["busy"]}, status=500)]
    recorder.answer = lambda _: answers.pop() if answers else None
    again = client.with_options(retry=impasto.Retry(base=0))
    await again.invoke(CORE, {"prompt": "p"}, call=recording_call)
    once = [("sending POST", 0), ("left", 0), ("refused ProviderFault", 1)]
    assert recording_call.notes == [*once, ("sending POST", 1), ("left", 1)]


async def test_a_possible_charge_is_not_reported_as_refused(
    client: impasto.Client, recorder: Recorder, recording_call: type[RecordingCall]
) -> None:
    recorder.answer = lambda _: Answer(status=502, headers={"content-type": "text/html"})
    with pytest.raises(impasto.ChargeUnknown):
        await client.invoke(CORE, {"prompt": "p"}, call=recording_call)
    assert recording_call.notes == [("sending POST", 0), ("left", 0)]


async def test_nothing_is_sent_if_nothing_can_be_written(client: impasto.Client, recorder: Recorder) -> None:
    class Full(Call):
        is_recorded = True

        async def before_send(self, wire: WireRequest) -> None:
            raise ConfigError("the disk is full")

    with pytest.raises(ConfigError, match="the disk is full") as caught:
        await client.invoke(CORE, {"prompt": "p"}, call=Full)
    assert (caught.value.billed, recorder.requests) == ("no", [])


async def test_each_of_n_has_a_record(client: impasto.Client, recording_call: type[RecordingCall]) -> None:
    calls: list[Call] = []

    def make(*args: Any, **settings: Any) -> Call:
        calls.append(recording_call(*args, **settings))
        return calls[-1]

    await client.invoke(CORE, {"prompt": "p", "seed": 5}, n=3, call=make)
    assert sorted(call.request.params.seed for call in calls) == [5, 6, 7]  # type: ignore[attr-defined]  # the model's


async def test_the_account_of_a_model(client: impasto.Client, recorder: Recorder) -> None:
    account = await client.account(CORE)
    assert (account.base_url, account.secrets) == (recorder.url, (KEY,))
    other = client.with_options(api_key="sk-other")
    assert (await other.account(CORE)).fingerprint != account.fingerprint
    async with impasto.Client() as bare:
        with pytest.raises(ConfigError, match="set STABILITY_API_KEY"):
            await bare.account(CORE)


@pytest.mark.parametrize("reports", [True, False])
async def test_a_transport_that_forgets_to_report_is_taken_to_have_sent_its_request(reports: bool) -> None:
    class Forgetful:
        @impasto.hookimpl
        async def send(self, wire: WireRequest) -> impasto.WireResponse:
            with wire.call.sending(paid=True) as evidence:
                if reports:
                    evidence.headers_sent()
            raise OSError("the answer broke off")

    async with impasto.Client(api_key=KEY, transport=Forgetful()) as client:
        with pytest.raises(impasto.ChargeUnknown, match="the request was sent; it may have been charged"):
            await client.run(CORE, prompt="p")


async def test_a_transport_that_fails_before_the_headers_leave_has_sent_nothing() -> None:
    class Early:
        @impasto.hookimpl
        async def send(self, wire: WireRequest) -> impasto.WireResponse:
            with wire.call.sending(paid=True):
                raise OSError("no route")

    async with impasto.Client(api_key=KEY, transport=Early()) as client:
        with pytest.raises(impasto.BrokenPlugin) as caught:
            await client.run(CORE, prompt="p")
    assert caught.value.billed == "no"
