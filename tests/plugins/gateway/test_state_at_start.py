"""The store of a gateway at its start: an address that is wrong ends it, a database that is away does not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config
from tests.plugins.state.postgres.test_failures import execute
from tests.postgres import PASSWORD, PostgresServer, own_server

PATH = "/v1/images/generations"


def with_state(state: str, base: str = "http://127.0.0.1:9") -> str:
    """A configuration whose line 10 has the state."""
    return config(base, models=["core"], general=f"  state: {state}\n")


async def generate(gateway: Running, key: str) -> Answer:
    """A call with an Idempotency-Key, which needs the store."""
    headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": key}
    return await gateway.ask("POST", PATH, json={"model": "sd3", "prompt": "p"}, headers=headers)


def start_of(path: Path, *words: str) -> tuple[int, str]:
    """The exit code and the last line of a start that fails, in a process of its own."""
    command = [sys.executable, "-m", "impasto_plugins.cli", "serve", "--config", str(path), "--port", "0", *words]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "RUNNING" not in process.stdout
    assert PASSWORD not in process.stderr
    return process.returncode, process.stderr.strip().splitlines()[-1]


def check_of(path: Path) -> tuple[int, str]:
    """The exit code and the last line of a check."""
    result = CliRunner().invoke(main, ["serve", "--config", str(path), "--check"])
    assert PASSWORD not in result.output
    return result.exit_code, result.output.strip().splitlines()[-1]


def test_a_wrong_address_ends_the_start_as_the_check_says(postgres_server: PostgresServer, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    wrong = {
        postgres_server.dsn(password="other"): "refused the user or the password",
        postgres_server.dsn(database="nowhere"): "no database of this name",
        f"postgresql://u:{PASSWORD}@host.invalid/x": "there is no host of this name",
        f"postgresql://u:{PASSWORD}@127.0.0.1:99999/x": "invalid host or port",
    }
    for workers, (address, cause) in enumerate(wrong.items(), 1):
        path.write_text(with_state(address))
        code, error = start_of(path, "--workers", str(workers))
        assert (code, error) == check_of(path)
        assert code == 2
        assert error.startswith("Error: config.yaml: line 10: general_settings.state: ")
        assert cause in error


def test_an_older_schema_names_the_command_that_migrates_it(
    postgres_server: PostgresServer, postgres: str, tmp_path: Path
) -> None:
    path, schema = tmp_path / "config.yaml", urlsplit(postgres).query.partition("=")[2]
    create = (f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.version AS SELECT 0 AS number")
    asyncio.run(execute(postgres_server, *create))
    path.write_text(with_state(postgres))
    code, error = start_of(path)
    assert (code, error) == check_of(path)
    assert code == 2
    assert f"run `impasto state migrate '{postgres.replace(PASSWORD, '***')}'`" in error
    migrated = CliRunner().invoke(main, ["state", "migrate", postgres])
    assert migrated.stdout.startswith("applied 001_records.sql")
    assert check_of(path)[0] == 0


def test_a_check_creates_nothing_and_warns_of_a_database_that_is_away(postgres: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(with_state(postgres))
    assert check_of(path)[0] == 0
    assert "version 0" in CliRunner().invoke(main, ["state", "check", postgres]).output
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # nobody listens
        path.write_text(with_state(f"postgresql://u:{PASSWORD}@127.0.0.1:{sock.getsockname()[1]}/x"))
        code, warning = check_of(path)
    assert code == 0
    assert warning.startswith("Warning: general_settings.state: can't reach PostgreSQL at 127.0.0.1:")
    assert "the gateway starts all the same" in warning


@pytest.mark.waits
async def test_it_starts_without_its_database_and_is_ready_once_it_is_there(
    start: Start, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    with own_server() as server:
        await asyncio.to_thread(server.stop)
        gateway = await start(
            config(impasto_emulator.url, general=f"  state: {server.dsn()}\n  data_dir: {tmp_path / 'data'}\n")
        )
        assert (await gateway.ask("GET", "/health/readiness")).status == 503
        assert (await generate(gateway, "k")).status == 503
        assert not impasto_emulator.charges
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(60):
            while (await gateway.ask("GET", "/health/readiness")).status != 200:
                await asyncio.sleep(0.05)
        assert (await generate(gateway, "k")).status == 200
    assert len(impasto_emulator.charges) == 1


@pytest.mark.usefixtures("short_window")
async def test_a_password_that_changes_in_use_refuses_calls_and_ends_nothing(
    start: Start, impasto_emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with own_server() as server:
        await execute(server, f"CREATE USER app SUPERUSER PASSWORD '{PASSWORD}'")
        state = server.dsn().replace("postgres:", "app:", 1)
        gateway = await start(
            config(impasto_emulator.url, general=f"  state: {state}\n  data_dir: {tmp_path / 'data'}\n")
        )
        assert (await generate(gateway, "a")).status == 200
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        await execute(server, "ALTER USER app PASSWORD 'new'", cut)
        answers = [await generate(gateway, "b"), await generate(gateway, "c"), await gateway.generate()]
        assert [each.status for each in answers] == [503] * 3
        assert (await gateway.ask("GET", "/health/readiness")).status == 503
        assert len(impasto_emulator.charges) == 1
        assert b"PostgreSQL at" not in b"".join(each.body for each in answers)
        assert len([each for each in caplog.records if "Until then everything" in each.message]) == 1
        await execute(server, f"ALTER USER app PASSWORD '{PASSWORD}'")
        assert (await generate(gateway, "b")).status == 200
        assert (await gateway.ask("GET", "/health/readiness")).status == 200
