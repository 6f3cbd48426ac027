"""What the pages say is so: what they point at is there, and every name, hook, error, setting and option is told."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import PurePosixPath

import pytest
from docs.generate.errors import every as errors
from docs.generate.plugin_modules import MODULES, names_of

from tests.architecture.sources import ROOT
from tests.docs.pages import PAGES, WRITTEN


@pytest.mark.parametrize("page", WRITTEN)
def test_the_targets_of_links_exist(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", WRITTEN[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", prose):
        place = (ROOT / page).parent / target
        assert place.exists() or str(PurePosixPath(page).parent / target) in PAGES, target
    for path in re.findall(r"`((?:core|plugins|tests|benchmarks|docs|\.ci)/[\w./-]+)`", prose):
        assert (ROOT / path).exists(), path


def test_the_promise_says_what_to_do_with_each_error() -> None:
    table = PAGES["docs/promise.md"].partition("\n## Errors\n")[2].partition("\n## ")[0]
    names = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    bases = {base for kind in errors() for base in kind.__bases__}  # not __subclasses__: tests have some of their own
    raised = {kind.__name__ for kind in errors() if kind not in bases or kind.__name__ == "ConfigError"}
    assert names == raised


def test_the_picture_is_small() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", WRITTEN["README.md"])
    assert (ROOT / picture).stat().st_size < 400_000


def test_the_reference_has_the_meaning_of_every_setting() -> None:
    rows = [line.split(" | ") for line in PAGES["docs/reference/config.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [key for key, meaning, *_ in rows if not re.search(r"[a-z]{3}", meaning)] == []


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_has_every_name_of_the_modules_for_plugins(name: str) -> None:
    module, page = import_module(f"impasto.{name}"), PAGES["docs/reference/plugin-modules.md"]
    assert f"\n## impasto.{name}\n" in page
    for each in names_of(module):
        assert re.search(rf"^\.\. [\w:]+:: impasto\.{name}\.{each}$", page, re.MULTILINE), each
        assert each in dir(module), f"pydoc impasto.{name} does not show {each}"


def test_the_reference_has_every_check_of_the_suites() -> None:
    page = PAGES["docs/reference/plugin-modules.md"]
    for check in ("test_every_parameter_arrives", "test_what_was_sent_is_reported", "test_each_call_is_sent_once"):
        assert f"| `{check}` | Check " in page
