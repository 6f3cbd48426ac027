"""Records that are missing, damaged or older than the images beside them: nothing is paid twice without a word."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Running, Start
from tests.plugins.gateway.idempotency.test_repeats import ask
from tests.plugins.gateway.records import database

NAME = "gateway.sqlite3"


def remove(folder: Path) -> None:
    for path in folder.glob(f"{NAME}*"):
        path.unlink()


def empty(folder: Path) -> None:
    remove(folder)
    (folder / NAME).touch()


def overwrite_pages(folder: Path) -> None:
    with open(folder / NAME, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 3)
        file.write(b"\0" * (size // 2))


def overwrite_header(folder: Path) -> None:
    with open(folder / NAME, "r+b") as file:
        file.write(b"\0" * 100)


async def with_a_stored_call(start: Start, state: Path) -> Running:
    """Store a call and return a running gateway; its database is one file that can be changed."""
    gateway = await start()
    assert (await ask(gateway, key="k")).status == 200
    await gateway.idle()
    await gateway.gateway.__aexit__(None, None, None)
    db = sqlite3.connect(state / NAME)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return gateway


@pytest.mark.parametrize("harm", [remove, empty, overwrite_pages, overwrite_header])
async def test_without_its_records_a_key_is_not_charged_again(
    harm: Callable[[Path], None],
    start: Start,
    impasto_emulator: Emulator,
    state: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await with_a_stored_call(start, state)
    [image] = (state / "outcomes").iterdir()
    harm(state)
    gateway = await start()
    refusal = await ask(gateway, key="k")
    assert (refusal.status, refusal.error["code"]) == (503, "overloaded")
    assert len(impasto_emulator.charges) == 1
    assert (await gateway.generate()).status == 200  # a call that needs no record
    assert image.exists()
    assert f"{NAME} is " in caplog.text
    assert "that folder away" in caplog.text or "move the whole directory away" in caplog.text


async def test_if_the_images_are_moved_away_it_begins_again(
    start: Start, impasto_emulator: Emulator, state: Path
) -> None:
    await with_a_stored_call(start, state)
    remove(state)
    (state / "outcomes").rename(state / "before")
    gateway = await start()
    assert (await ask(gateway, key="k")).status == 200
    assert len(impasto_emulator.charges) == 2


async def test_an_older_copy_of_the_records_is_reported_and_paid_images_stay(
    start: Start, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start()
    await database(gateway).write(lambda db: db.execute("SELECT 1"))
    await gateway.gateway.__aexit__(None, None, None)
    shutil.copytree(state, tmp_path / "copy")
    await with_a_stored_call(start, state)
    remove(state)
    shutil.copytree(tmp_path / "copy", state, dirs_exist_ok=True)
    [image] = (state / "outcomes").iterdir()
    old = time.time() - 20 * 3600
    os.utime(image, (old, old))
    gateway = await start()
    store = gateway.gateway._idempotency.store
    for _ in range(2):
        await store.remove_expired()
    assert image.exists()
    assert caplog.text.count("1 stored images in") == 1


async def readiness(gateway: Running) -> tuple[int, str]:
    answer = await gateway.ask("GET", "/health/readiness")
    return answer.status, answer.json["status"]


async def test_a_gateway_without_its_data_directory_is_alive_but_not_ready(start: Start, state: Path) -> None:
    """An SDK's calls would all be refused: a balancer must send them elsewhere."""
    state.parent.mkdir(parents=True)
    state.write_text("not a folder")
    gateway = await start()
    assert await readiness(gateway) == (503, "no storage")
    assert (await gateway.ask("GET", "/health/liveliness")).status == 200
    state.unlink()
    assert await readiness(gateway) == (200, "ready"), "the next use opens it"


async def test_a_gateway_whose_records_were_removed_is_not_ready(start: Start, state: Path) -> None:
    gateway = await start()
    answers = await asyncio.gather(*(readiness(gateway) for _ in range(20)))
    assert set(answers) == {(200, "ready")}
    remove(state)
    assert await readiness(gateway) == (503, "no storage")


@pytest.mark.parametrize("replace", [False, True])
async def test_records_that_are_removed_while_it_runs_are_missed_at_once(
    start: Start, impasto_emulator: Emulator, state: Path, caplog: pytest.LogCaptureFixture, *, replace: bool
) -> None:
    """A removed file can still be written to: what was written would be gone at the next start."""
    gateway = await start()
    assert (await ask(gateway, key="k")).status == 200
    away = shutil.move(state / NAME, state / "away")
    if replace:
        (state / NAME).touch()
    for key in ("k", "other"):
        assert (await ask(gateway, key=key)).status == 503
    assert f"{NAME} was removed or replaced while it was in use; move it back" in caplog.text
    shutil.move(away, state / NAME)
    assert (await ask(gateway, key="k")).headers["idempotent-replayed"] == "true"
    assert len(impasto_emulator.charges) == 1
