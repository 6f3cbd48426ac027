"""What docs/emulator.md says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

from impasto_plugins.emulator.faults.kinds import KINDS
from impasto_plugins.emulator.faults.rules import Fault
from impasto_plugins.emulator.providers.backend import FILTER_WORD
from impasto_plugins.emulator.providers.stability import REFUSED_WORDS

PAGE = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text()


def _rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_faults_of_the_documentation_are_accepted() -> None:
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        for arguments in json.loads(block):
            assert Fault.from_mapping(arguments).kind == arguments["kind"]


def test_every_kind_of_fault_is_listed_with_its_options_and_its_charge() -> None:
    rows = {row[0].strip("`"): row for row in _rows("Faults")}
    assert rows.keys() == KINDS.keys()
    for kind, (_, options, charged, _) in rows.items():
        assert (charged == "yes") is Fault.from_mapping({"kind": kind}).charged
        assert set(re.findall(r"`(\w+)`", options)) == set(KINDS[kind].__annotations__) - {"charged", "replaces"}


def test_every_word_is_listed_with_its_answer() -> None:
    rows = {row[0].strip("`"): row[1] for row in _rows("Refused content")}
    assert rows.keys() == {*REFUSED_WORDS, FILTER_WORD}
    for word, (status, name, _) in REFUSED_WORDS.items():
        assert rows[word].startswith(f"{status} `{name}`")
