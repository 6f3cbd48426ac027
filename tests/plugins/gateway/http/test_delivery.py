"""What decides if a response was read, by the evidence and the second. Over sockets: idempotency/test_deliveries.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from impasto_plugins.gateway.http import delivery as module
from impasto_plugins.gateway.http.delivery import Delivery


class Wire:
    """A connection with so many bytes that the caller's system has not acknowledged, at a time of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.now, self.pending = sock, 0.0, 0
        self.decisions: list[bool] = []

    def get_extra_info(self, _: str) -> socket.socket:
        return self.sock

    def get_write_buffer_size(self) -> int:
        return 0

    def deliver(self, *, gave_up: bool = False) -> Delivery:
        return Delivery(self, self.decisions.append, gave_up=gave_up)  # type: ignore[arg-type]  # as much as is used

    def at(self, seconds: float) -> float:
        self.now = seconds
        return seconds


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    one, other = socket.socketpair()
    with one, other:
        wire = Wire(one)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: wire.now))
        monkeypatch.setattr(module, "_send_queue_bytes", lambda _: wire.pending)
        yield wire


@pytest.mark.parametrize(
    ("caller", "pending", "seconds", "decision"),
    [
        ("stays", 0, 0.19, None),
        ("stays", 0, 0.2, True),
        ("gave up", 0, 0.2, True),  # the connection is still open: the caller took it after all
        ("stays", 1, 4.9, None),
        ("stays", 1, 5.0, False),
        ("closed", 0, 0.04, None),
        ("closed", 0, 0.05, True),
        ("closed", 0, 9.0, True),
        ("closed", 1, 0.05, None),
        ("closed", 1, 0.19, None),
        ("closed", 1, 0.2, False),
        ("gave up and closed", 0, 0.0, False),
    ],
)
def test_evidence_suffices_from_its_second_on(
    wire: Wire, caller: str, pending: int, seconds: float, decision: bool | None
) -> None:
    delivery = wire.deliver(gave_up="gave up" in caller)
    wire.pending = pending
    if "closed" in caller:
        delivery.on_eof()
    delivery.update(wire.at(seconds))
    assert wire.decisions == ([] if decision is None else [decision])


def test_a_caller_who_is_slow_has_time_as_long_as_bytes_are_acknowledged(wire: Wire) -> None:
    delivery = wire.deliver()
    for seconds, pending in ((1.0, 30), (5.9, 20), (10.8, 10), (15.7, 10)):
        wire.pending = pending
        delivery.update(wire.at(seconds))
    assert wire.decisions == []
    delivery.update(wire.at(15.8))
    assert wire.decisions == [False]


def test_the_time_after_a_fin_is_counted_from_the_fin(wire: Wire) -> None:
    delivery, wire.pending = wire.deliver(), 9
    delivery.update(wire.at(3.0))
    delivery.on_eof()
    for wire.pending, seconds in ((9, 3.1), (5, 3.19)):  # what is acknowledged now was sent before
        delivery.update(wire.at(seconds))
    assert wire.decisions == []
    delivery.update(wire.at(3.25))
    assert wire.decisions == [False]


def test_a_retry_waits_for_the_decision_if_its_caller_may_be_gone(wire: Wire) -> None:
    wire.at(100.0)
    delivery = wire.deliver()
    wire.at(101.0)
    assert not delivery.is_uncertain, "nothing is missing"
    wire.at(100.0)
    delivery, wire.pending = wire.deliver(), 1
    delivery.update(wire.at(100.1))
    assert not delivery.is_uncertain
    wire.at(100.25)
    assert delivery.is_uncertain
    other = wire.deliver()
    other.on_eof()
    assert other.is_uncertain


@pytest.mark.parametrize(("pending", "decisions"), [(0, [True]), (1, [])])
def test_a_caller_who_sends_more_has_read_what_was_acknowledged(
    wire: Wire, pending: int, decisions: list[bool]
) -> None:
    delivery = wire.deliver()
    wire.pending = pending
    delivery.on_data()
    delivery.on_data()
    assert wire.decisions == decisions


@pytest.mark.parametrize(
    ("error", "pending", "fin_sent", "decision"),
    [
        (None, 0, False, True),
        (None, 1, False, False),
        (None, 1, True, True),  # the byte is this side's own FIN
        (ConnectionResetError(), 0, False, False),
    ],
)
def test_a_connection_that_ends_decides(
    wire: Wire, error: Exception | None, pending: int, fin_sent: bool, decision: bool
) -> None:
    delivery = wire.deliver()
    wire.pending, delivery.fin_sent = pending, fin_sent
    delivery.on_connection_lost(error)
    delivery.give_up()
    assert wire.decisions == [decision]


def test_without_proof_a_response_counts_as_not_read(wire: Wire) -> None:
    wire.deliver().give_up()
    assert wire.decisions == [False]
