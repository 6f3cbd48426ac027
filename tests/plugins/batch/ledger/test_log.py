"""The ledger's file: what is whole is read, a torn end is cut, and any other damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from impasto import ConfigError
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.high_water import HighWater
from impasto_plugins.batch.ledger.log import Ledger, ReadPosition, rows
from tests.descriptors import open_descriptors

ROWS = [{"row": "intent", "id": f"id-{number}", "index": 0, "text": "é\u2028\n" * number} for number in range(4)]


def written(path: Path, *args: dict[str, object]) -> bytes:
    ledger = Ledger(path, Disk())
    read = ReadPosition()
    list(rows(path, read))
    ledger.open(read)
    for row in args:
        ledger.append(row)
    ledger.sync()
    ledger.close()
    return path.read_bytes()


def read_back(path: Path) -> tuple[list[object], ReadPosition]:
    read = ReadPosition()
    return [row for _, row in rows(path, read)], read


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert read_back(path) == ([], ReadPosition())
    whole = written(path, *ROWS)
    found, read = read_back(path)
    assert found == ROWS
    assert (read.end, read.torn) == (len(whole), 0)


@given(cut=st.integers(1, 10_000))
def test_an_end_that_is_torn_anywhere_is_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "ledger"
    whole = written(path, *ROWS)
    cut %= len(whole)
    path.write_bytes(whole[:cut])
    found, read = read_back(path)
    assert found == ROWS[: len(found)]
    assert read.end + read.torn == cut
    again = written(path, *ROWS[len(found) :])
    assert again == whole, "cut, and gone on with"


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_taken_for_a_row(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("flipped") / "ledger"
    whole = bytearray(written(path, *ROWS))
    at %= len(whole)
    whole[at] ^= 1 << bit
    path.write_bytes(whole)
    last = whole.rfind(b"\n", 0, -1)
    if at <= last or (at < len(whole) - 1 and whole[at] != ord("\n")):
        with pytest.raises(ConfigError, match="is damaged at byte"):
            read_back(path)
    else:  # the last row's own end: what is left looks as a write cut short does
        assert read_back(path)[0] == ROWS[: len(read_back(path)[0])]


@pytest.mark.parametrize("change", ["taken out", "put in", "moved"])
def test_whole_rows_can_not_be_changed_around(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger"
    first, second, third, *rest = written(path, *ROWS).splitlines(keepends=True)
    changed = {
        "taken out": [first, third, *rest],
        "put in": [first, second, second, third, *rest],
        "moved": [first, third, second, *rest],
    }[change]
    path.write_bytes(b"".join(changed))
    with pytest.raises(ConfigError, match="Put back an up-to-date copy of it"):
        read_back(path)


def test_pages_that_a_crash_of_the_machine_left_empty_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    whole = written(path, *ROWS)
    path.write_bytes(whole[:-40] + bytes(40))
    found, read = read_back(path)
    assert found == ROWS[:3]
    assert read.torn > 40


def test_a_program_with_many_batches_keeps_no_descriptor_of_those_that_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ledger = Ledger(tmp_path / "ledger", Disk(), HighWater(mark, Disk()))
    for _ in range(2):
        read = ReadPosition()
        list(rows(ledger.path, read))
        ledger.open(read)
        ledger.append(ROWS[0])
        ledger.sync()
        ledger.close()
        ledger.close()  # as if opening had failed half-way
        assert open_descriptors(ledger.path) == open_descriptors(mark) == 0


def test_a_ledger_that_is_not_a_plain_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name, reason in (("link", "it is a link"), ("folder", "it is not a file")):
        with pytest.raises(ConfigError, match=rf"can't be read \({reason}\)"):
            read_back(tmp_path / name)
