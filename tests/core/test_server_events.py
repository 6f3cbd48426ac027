"""Server-sent events by the WHATWG's rules, whatever the borders of the pieces."""

from __future__ import annotations

import pytest

from impasto import ServerEvent
from impasto.server_events import MAX_EVENT_BYTES, EventParser, EventTooLarge

CASES = {
    "name and data": (b"event: a\ndata: 1\n\n", [("a", "1")]),
    "no name": (b"data: 1\n\n", [("message", "1")]),
    "CR": (b"event: a\rdata: 1\r\r", [("a", "1")]),
    "CRLF": (b"event: a\r\ndata: 1\r\n\r\n", [("a", "1")]),
    "mixed ends": (b"event: a\rdata: 1\r\n\ndata: 2\n\r\n", [("a", "1"), ("message", "2")]),
    "BOM": (b"\xef\xbb\xbfdata: 1\n\n", [("message", "1")]),
    "BOM later": (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [("message", "1")]),
    "several lines": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10")]),
    "comments": (b": hi\n\ndata: 1\n: in between\ndata: 2\n\n:\n\n", [("message", "1\n2")]),
    "no space, two spaces": (b"data:1\n\ndata:  2\n\n", [("message", "1"), ("message", " 2")]),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [("message", ""), ("message", "\n")]),
    "no data": (b"event: a\n\ndata: 1\n\n", [("message", "1")]),
    "unknown fields": (b"id: 1\nretry: 5\nevents: x\ndata: 1\n\n", [("message", "1")]),
    "unfinished": (b"data: 1\n\ndata: 2\n", [("message", "1")]),
    "other line separators": (b"data: a\xc2\x85b\x0bc\x0cd\xe2\x80\xa8e\n\n", [("message", "a\x85b\x0bc\x0cd\u2028e")]),
    "not UTF-8": (b"data: \xff\n\n", [("message", "\ufffd")]),
    "text": ("event: é\ndata: 日本\n\n".encode(), [("é", "日本")]),
}


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES.keys())
def test_an_event_is_the_same_however_its_bytes_are_cut(stream: bytes, expected: list[tuple[str, str]]) -> None:
    events = [ServerEvent(*each) for each in expected]
    for size in (1, 2, 3, 5, 7, len(stream)):
        parser = EventParser()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert [each for piece in pieces for each in parser.feed(piece)] == events
    for border in range(len(stream)):
        parser = EventParser()
        assert [*parser.feed(stream[:border]), *parser.feed(stream[border:])] == events


def test_the_bytes_of_the_last_event_and_of_those_after_it_are_held() -> None:
    parser = EventParser()
    assert [*parser.feed(b"data: 1\n\nevent: b\r\ndata: 2\r\n\r\nda")] == [("message", "1"), ("b", "2")]
    assert parser.received == b"event: b\r\ndata: 2\r\n\r\nda"


def test_an_event_without_end_is_refused_at_its_bound() -> None:
    parser, piece = EventParser(), b"data: " + b"x" * (1 << 20) + b"\n"
    with pytest.raises(EventTooLarge, match="67,108,864 bytes"):
        for _ in range(MAX_EVENT_BYTES // len(piece) + 2):
            assert not [*parser.feed(piece)]
