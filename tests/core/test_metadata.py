"""Metadata folders: a damaged one, of whatever distribution, stops nothing and is named; a name proves no ownership."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import DistributionFinder
from pathlib import Path

import pytest

from impasto import DuplicateOperation, NotAllowed, Registry, UnknownOperation, loading
from impasto.ext import read_folders, scan_entry_points
from impasto.registry import COMMANDS, GROUPS, OPERATIONS
from impasto_plugins.cli.declarations import declared
from tests.damage import damage
from tests.distributions import ACME, install

OURS = {group: Registry(allow="none").names(group) for group in GROUPS}
"""The names of our own plugins, in the installation that runs the tests."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def folder(site: Path, name: str, metadata: str | None, points: str | None = None) -> Path:
    directory = site / name
    directory.mkdir()
    if metadata is not None:
        (directory / "METADATA").write_text(metadata)
    if points is not None:
        (directory / "entry_points.txt").write_text(points)
    return directory


def damaged(path: Path) -> str:
    """The reason why a folder is skipped."""
    (reason,) = [each.reason for each in scan_entry_points(complete=True).damaged if each.path == str(path)]
    return reason


def own_entry_points() -> str:
    (own,) = [owner for owner in Registry(allow="none").scan.owners if owner.is_own]
    return own.read_text("entry_points.txt") or ""


@pytest.mark.parametrize(
    ("name", "metadata", "points", "reason"),
    [
        ("impasto-0.0.9.dist-info", None, None, "it has no METADATA"),
        ("~mpasto-0.0.9.dist-info", "Name: impasto\nVersion: 0.0.9\n", "OWN", "pip left it behind"),
        ("impasto-0.0.9.dist-info", "Name: impasto\nVersion: 0.0.9\n", "OWN", "it is named impasto"),
        ("other-1.0.dist-info", "Name: other\n", "[x]\nno sign\n", "entry_points.txt is malformed"),
        ("other-1.0.dist-info", "Name: other\n", "[impasto.operations]\nno sign\n", "entry_points.txt is malformed"),
        ("other-1.0.dist-info", "Name: other\n", "[impasto.operations]\n = x:y\n", "entry_points.txt is malformed"),
        ("other-1.0.dist-info", "Version: 1.0\n", "[impasto.operations]\na/b = c:d\n", "no valid Name"),
        ("other-1.0.dist-info", "Version: 1.0\n", None, "no valid Name"),
        ("other-1.0.dist-info", None, "[impasto.operations]\na/b = c:d\n", "it has no METADATA"),
        ("other-1.0.dist-info", None, None, "it has no METADATA"),
    ],
)
def test_a_damaged_folder_is_skipped_and_named(
    site: Path, name: str, metadata: str | None, points: str | None, reason: str
) -> None:
    directory = folder(site, name, metadata, own_entry_points() if points == "OWN" else points)
    registry = Registry()
    assert registry.operation("stability/sd3").id == "stability/sd3"
    assert {group: registry.names(group) for group in GROUPS} == OURS
    assert reason in damaged(directory)


@pytest.mark.parametrize("file", ["METADATA", "entry_points.txt"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "bytes"])
def test_a_file_that_is_none_does_not_hold_anything_up(site: Path, file: str, kind: str) -> None:
    import os

    directory = folder(site, "other-1.0.dist-info", "Name: other\n", "[impasto.operations]\na/b = c:d\n")
    (path := directory / file).unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.write_bytes(b"Name: \xff\n[impasto.operations]\n\xff = x:y\n")
    assert Registry().names(OPERATIONS) == OURS[OPERATIONS]
    assert file in damaged(directory) or "can't be read" in damaged(directory)


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_no_damage_stops_anything(site: Path, first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        damage(site, seed)
    registry = Registry()
    for group in GROUPS:
        assert set(OURS[group]) <= set(registry.names(group))
        assert all("\x1b" not in name for name in registry.names(group))
    assert registry.operation("stability/sd3").id == "stability/sd3"
    assert Registry(allow="none").names(OPERATIONS) == OURS[OPERATIONS]
    assert len(scan_entry_points(complete=True).damaged) >= len(registry.scan.damaged) > 0


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, GeneratorExit])
def test_a_finder_that_raises_is_named(monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]) -> None:
    class Finder:
        def find_distributions(self, context: DistributionFinder.Context) -> list[object]:
            raise raised("boom")

        def find_spec(self, *_: object) -> None:
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert Registry().names(COMMANDS) == OURS[COMMANDS]
    assert next(each.path for each in scan_entry_points(complete=True).damaged).endswith("Finder")


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, GeneratorExit])
def test_an_invented_distribution_of_a_finder_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    class Distribution:
        def __getattr__(self, name: str) -> object:
            raise raised("boom")

    class Finder:
        def find_distributions(self, context: DistributionFinder.Context) -> Iterator[object]:
            yield from (None, 3, Distribution())
            raise raised("boom")

        def find_spec(self, *_: object) -> None:
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert Registry().names(COMMANDS) == OURS[COMMANDS]
    assert len(scan_entry_points(complete=True).damaged) == 4


IMPOSTOR = "[impasto.operations]\nevil/paint = evil:paint\n[impasto.commands]\nevil = evil:command\n"


@pytest.mark.parametrize("name", ["impasto-9.9.dist-info", "evil-1.0.dist-info", "Impasto-0.1.0.dist-info"])
@pytest.mark.parametrize("record", [None, "evil.py,,\n", "impasto/metadata.py,sha256=x,1\n", "evil.pth,,\n"])
@pytest.mark.parametrize("allow", [None, "none", "impasto", "evil"])
def test_a_distribution_that_calls_itself_impasto_is_not_ours(
    site: Path, name: str, record: str | None, allow: str | None
) -> None:
    directory = folder(site, name, "Name: Impasto\nVersion: 0.1.0\n", IMPOSTOR)
    (site / "evil.py").write_text("raise AssertionError('imported')")
    (site / "evil.pth").write_text("/nowhere\n")
    if record is not None:
        (directory / "RECORD").write_text(record)
    registry = Registry(allow=allow)
    assert {group: registry.names(group) for group in GROUPS} == OURS
    with pytest.raises(UnknownOperation, match="see `impasto doctor`"):
        registry.operation("evil/paint")
    assert "is named impasto" in damaged(directory)


def test_two_folders_of_one_distribution_that_declare_the_same_are_one(site: Path) -> None:
    install(site, "acme", {OPERATIONS: {"acme/paint": "acme_twice:paint"}}, {"acme_twice": ACME})
    shutil.copytree(site / "acme-1.0.dist-info", site / "acme-0.9.dist-info")
    assert Registry().operation("acme/paint").id == "acme/paint"
    (site / "acme-0.9.dist-info/entry_points.txt").write_text(f"[{OPERATIONS}]\nacme/paint = acme_old:paint\n")
    with pytest.raises(DuplicateOperation, match=r"in acme-0.9.dist-info and acme-1.0.dist-info; delete the folder"):
        Registry().operation("acme/paint")


def test_the_first_of_a_name_on_the_path_hides_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("old", "new"):
        install(tmp_path / number, "acme", {OPERATIONS: {"acme/paint": f"acme_{number}:paint"}}, {})
        monkeypatch.syspath_prepend(tmp_path / number)
    (found,) = [each for each in declared(Registry(), OPERATIONS) if each.name == "acme/paint"]
    assert found.value == "acme_new:paint"


def test_a_distribution_in_a_zip_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "acme", "acme", {OPERATIONS: {"acme/paint": "acme_zipped:paint"}}, {"acme_zipped": ACME})
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        for path in (tmp_path / "acme").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "acme"))
    monkeypatch.syspath_prepend(tmp_path / "site.zip")
    assert Registry().operation("acme/paint").id == "acme/paint"
    with pytest.raises(NotAllowed):
        Registry(allow="none").operation("acme/paint")


Proof = Callable[[Path], None]


@pytest.mark.parametrize("record", ["impasto/metadata.py,sha256=x,1\n", None])
def test_a_copy_that_runs_knows_its_own_metadata(tmp_path: Path, record: str | None) -> None:
    """``pip install --target``, and a system's packages, which come without a RECORD."""
    import subprocess

    import impasto

    source = Path(impasto.__file__).parent
    shutil.copytree(source, tmp_path / "impasto", ignore=shutil.ignore_patterns("__pycache__"))
    directory = folder(tmp_path, "impasto-0.1.0.dist-info", "Name: impasto\nVersion: 0.1.0\n", own_entry_points())
    if record is not None:
        (directory / "RECORD").write_text(record)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import impasto\n"
        "print([owner.path for owner in impasto.Registry().scan.owners if owner.is_own])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == f"[{str(directory)!r}]\n"


def test_the_first_use_of_somebody_elses_plugin_is_logged_once(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(site, "acme-colours", {OPERATIONS: {"acme/paint": "acme_logged:paint"}}, {"acme_logged": ACME})
    with caplog.at_level(logging.INFO, logger="impasto"):
        Registry().operation("stability/sd3")
        assert caplog.messages == []
        for _ in range(2):
            Registry().operation("acme/paint")
    assert caplog.messages == ["first use of operation 'acme/paint', of the distribution acme-colours 1.0"]


@pytest.mark.parametrize("loops", ["while not go.exists(): pass", "while not go.exists(): time.sleep(0.01)"])
def test_a_plugin_whose_import_does_not_end_is_named(
    site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, loops: str
) -> None:
    """``impasto describe`` waits for it, and so does whoever calls its model: they can see what to leave out."""
    monkeypatch.setattr(loading, "SLOW_IMPORT_SECONDS", 0.01)
    go, name = tmp_path / "go", f"acme_slow_{len(loops)}"
    source = f"import pathlib, time\ngo = pathlib.Path({str(go)!r})\n{loops}\n{ACME}"
    install(site, "acme-colours", {OPERATIONS: {"acme/paint": f"{name}:paint"}}, {name: source})

    class Release(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            go.touch()

    logger, handler = logging.getLogger("impasto"), Release(logging.WARNING)
    logger.addHandler(handler)
    try:
        assert Registry().operation("acme/paint").title
    finally:
        logger.removeHandler(handler)
    while not caplog.messages:  # the import may end between the two handlers of the warning
        time.sleep(0.01)
    (message,) = caplog.messages
    assert message == (
        f"'acme/paint' of acme-colours 1.0 is still being imported after 0.01 s ({name}:paint);"
        " to exclude it, set IMPASTO_PLUGINS to names without it, or to none"
    )


def test_a_plugin_that_is_imported_at_once_is_not_named(
    site: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "acme-colours", {OPERATIONS: {"acme/paint": "acme_quick:paint"}}, {"acme_quick": ACME})
    Registry().operation("acme/paint")
    assert not [
        each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]
    assert caplog.messages == []


def test_every_folder_is_read_only_if_asked_for(site: Path) -> None:
    folder(site, "plain-1.0.dist-info", "Name: plain\nVersion: 1.0\n")
    assert "plain" not in {each.name for each in read_folders()[0]}
    assert "plain" in {each.name for each in read_folders(complete=True)[0]}
