"""`impasto state`: what is stored, what is wrong with it, and the next version of its schema."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from impasto_plugins.cli.main import main
from impasto_plugins.state.sqlite.connection import DATABASE_NAME
from tests.plugins.gateway.conftest import Start, config
from tests.plugins.gateway.idempotency.test_repeats import ask
from tests.plugins.state.test_sqlite_migrations import create_version_0


def state(*words: str) -> Result:
    return CliRunner().invoke(main, ["state", *words])


async def test_it_reports_the_records_of_a_gateway(start: Start) -> None:
    gateway = await start()
    await ask(gateway, key="k")
    await gateway.sdk.files.create(file=("rows.jsonl", b"{}\n"), purpose="batch")
    folder = str(gateway.gateway._app.batches.folder.parent)
    report = await asyncio.to_thread(state, "check", folder)
    assert report.exit_code == 0
    assert [line.split() for line in report.stdout.splitlines()[:4]] == [
        ["schema", "1"],
        ["1", "calls"],
        ["0", "amounts", "of", "budgets"],
        ["1", "files"],
    ]
    assert "the oldest record is of 2" in report.stdout


def test_a_database_of_the_version_before_is_migrated_once(tmp_path: Path) -> None:
    create_version_0(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(config("http://127.0.0.1:9", general=f"  data_dir: {tmp_path}\n"))
    before = state("check", "--config", str(path))
    assert before.exit_code == 1
    assert "wrong: the schema has version 0; `impasto state migrate` brings it to 1" in before.stderr
    first, second = state("migrate", "--config", str(path)), state("migrate", str(tmp_path))
    assert first.stdout == (
        "schema 1: moved the rows of the version before: 4 of used, 1 of outcomes, 2 of files, 1 of batches\n"
    )
    assert second.stdout == "the schema is up to date\n"
    assert state("check", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize("harm", ["missing", "damaged", "newer"])
def test_it_says_what_is_wrong(harm: str, tmp_path: Path) -> None:
    if harm == "damaged":
        (tmp_path / DATABASE_NAME).write_bytes(b"no database" * 1_000)
    if harm == "newer":
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
            db.execute("PRAGMA user_version = 9")
    report = state("check", str(tmp_path))
    assert report.exit_code == 1
    expected = {"missing": "does not exist", "damaged": "restore it", "newer": "use the newer program"}
    assert expected[harm] in report.stderr
    if harm != "missing":
        assert expected[harm] in state("migrate", str(tmp_path)).stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give either ADDRESS or --config FILE"),
        (["x", "--config", "y"], "give either ADDRESS or --config FILE"),
        (["nobody://me:p4ssw0rd@host/db"], "unknown state 'nobody'; installed: "),
    ],
)
def test_an_address_that_is_wrong_is_refused(words: list[str], says: str) -> None:
    for name in ("check", "migrate"):
        result = state(name, *words)
        assert result.exit_code != 0
        assert says in result.stderr
        assert "p4ssw0rd" not in result.output
