"""The distributions whose plugins may be used: every way to give them, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from impasto import ConfigError
from impasto.distributions import AllowList, normalized_name, scan_entry_points
from tests.distributions import install


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("all", None),
        (["all"], None),
        ("none", frozenset()),
        ("", frozenset()),
        ([], frozenset()),
        (["none"], frozenset()),
        ("acme", frozenset({"acme"})),
        (" Acme_Paint , other.one", frozenset({"acme-paint", "other-one"})),
        (("A-_.b", "a.B"), frozenset({"a-b"})),
    ],
)
def test_names_in_every_form(value: object, names: frozenset[str] | None) -> None:
    allowed = AllowList.parse(value)
    assert allowed.names == names
    assert allowed.source == "plugins"
    assert AllowList.parse(str(allowed)).names == names, "its text can be given again"


@pytest.mark.parametrize("value", ["acme,all", "none,acme", "a b", "-a", "a-", ["a", ""], ["a", None], [5], "a,,b"])
def test_an_invalid_distribution_name_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="plugins: invalid distribution name .*; give names, or none or all alone"):
        AllowList.parse(value)


def test_something_else_than_names() -> None:
    with pytest.raises(ConfigError, match="plugins must be a list of distributions' names"):
        AllowList.parse(5)


def test_the_environment_counts_if_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_PLUGINS", raising=False)
    assert AllowList.parse(None) == AllowList(None, "IMPASTO_PLUGINS")
    monkeypatch.setenv("IMPASTO_PLUGINS", "acme")
    assert AllowList.parse(None) == AllowList(frozenset({"acme"}), "IMPASTO_PLUGINS")
    assert AllowList.parse("none") == AllowList(frozenset(), "plugins")


def test_a_name_as_an_index_knows_it() -> None:
    assert normalized_name("Acme__Paint.-x") == "acme-paint-x"


@pytest.mark.parametrize("seconds_ago", [0, 3600])
def test_the_next_scan_sees_distributions_that_were_installed_or_removed(
    seconds_ago: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owners() -> set[str]:
        return {owner.name for owner in scan_entry_points().owners} & {"acme", "other"}

    def change(ago: int) -> None:
        changed = tmp_path.stat().st_mtime - ago
        os.utime(tmp_path, (changed, changed))

    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "acme", {"impasto.operations": {"acme/ink": "acme:ink"}}, {})
    change(2 * seconds_ago)
    assert owners() == owners() == {"acme"}
    install(tmp_path, "other", {"impasto.operations": {"other/ink": "other:ink"}}, {})
    change(seconds_ago)
    assert owners() == {"acme", "other"}
    shutil.rmtree(next(tmp_path.glob("acme*.dist-info")))
    assert owners() == {"other"}
    monkeypatch.undo()
    assert owners() == set()


def test_a_scan_serves_the_next_as_long_as_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(tmp_path, (0, 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(Path(os.__file__).parent / "site-packages"), str(tmp_path)])
    assert scan_entry_points() is scan_entry_points()
