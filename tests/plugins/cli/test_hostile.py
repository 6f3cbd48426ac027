"""Hostile words, streams, folders and variables: a command ends with a message and an exit code. See the campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.commands import Case, broken, cases

SEEN = (
    (("--help",), (("IMPASTO_PLUGINS", b"a b"),), "own", ""),
    (("models",), (("IMPASTO_PLUGINS", b"\xff"),), "deleted", "<&- >&- 2>&-"),
    (("doctor",), (("IMPASTO_POLL_INTERVAL", b"soon"), ("STABILITY_API_KEY", b"\xff")), "deleted", ""),
    (("generate", "stability/stable-image-core", "\udcff", "--emulator", "-o", "\udcff.png"), (), "own", ""),
    (("new-plugin", "acme"), (), "deleted", ""),
    (("describe", "\udced\udca0\udc80"), (("PYTHONIOENCODING", b"ascii"),), "own", ""),
    (("describe", "stability/sd3"), (("COLUMNS", b"1"), ("LC_ALL", b"xx_YY.nothing")), "own", "2>/dev/full"),
    (("serve", "--config", "fifo", "--check"), (("HOME", None),), "own", "<&-"),
    (("edit", "stability/inpaint", "/dev/zero", "--prompt", "x", "--emulator"), (), "own", ">/dev/full"),
    (("batch", "run", "fifo", "--out", "out", "--emulator"), (), "own", ""),
    (("batch", "status", "loop"), (), "own", "2>&-"),
)


@pytest.mark.parametrize(("words", "variables", "place", "streams"), SEEN)
def test_the_tried_cases(
    tmp_path: Path, words: tuple[str, ...], variables: tuple[tuple[str, bytes | None], ...], *, place: str, streams: str
) -> None:
    encoded = tuple(word.encode("utf-8", "surrogateescape") for word in words)
    case = Case(words=encoded, variables=variables, place=place, streams=streams)
    assert broken(case, tmp_path / "case") is None


@pytest.mark.parametrize("number", range(12))
def test_the_cases_of_a_seed(tmp_path: Path, number: int) -> None:
    case = [each for each in cases(12, 40) if each.words[:1] not in ((b"emulator",), (b"doctor",), (b"try",))][number]
    assert broken(case, tmp_path / "case") is None, case
