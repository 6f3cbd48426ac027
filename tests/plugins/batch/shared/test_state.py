"""Batches whose hosts have a database in common: their rate and their budget are one, without shares."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

import impasto
from impasto import BatchStopped, ConfigError
from impasto.ext import shared_state
from impasto_plugins.cli.main import main
from tests.campaigns.hosts import Times
from tests.campaigns.provider import Provider, provider
from tests.conftest import KEY
from tests.images import png
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import CREATIVE, Run, Write, many, row
from tests.plugins.state.postgres.test_failures import execute
from tests.postgres import PASSWORD, own_server

from .conftest import SHORT, Host, exit_code_of, results
from .test_deaths import wait_for
from .test_shares import log

pytestmark = pytest.mark.waits


def test_hosts_send_at_one_rate_and_end_at_one_budget(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, postgres: str
) -> None:
    path = manifest(*many(40))
    words = ("--state", postgres, "--rate", "10/1s", "--budget", "0.65")
    began = time.monotonic()
    assert [exit_code_of(each) for each in [host(name, path, *words) for name in "ab"]] == [1, 1]
    sent, seconds = at.charges(), time.monotonic() - began
    assert max(sent.values()) == 1
    assert 13 <= sent.total() <= 21, "0.63 USD, less what both hosts had reserved in the end"
    assert seconds > (sent.total() - 1) // 10, "10 in any second"
    assert exit_code_of(host("c", path, "--state", postgres, "--budget", "0.72")) == 1
    assert at.charges().total() == 24


def test_hosts_that_are_killed_stay_within_the_budget(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, postgres: str
) -> None:
    """What a dead host had reserved counts as spent, and what it had requested is never requested again."""
    path = manifest(*many(40))
    words = ("--state", postgres, "--budget", "0.65")
    for number, intents in enumerate((3, 8)):
        victim = host(f"victim-{number}", path, *words, times=SHORT)
        while len(bucket.intents()) < intents:
            time.sleep(0.05)
            assert victim.is_alive()
        victim.kill()
        victim.join()
    assert exit_code_of(host("last", path, *words, times=SHORT)) == 1
    sent = at.charges()
    assert max(sent.values()) == 1
    assert 13 <= sent.total() <= 21, "0.63 USD, less what the hosts had reserved as they died"
    assert exit_code_of(host("more", path, "--state", postgres, "--budget", "9", times=SHORT)) in (0, 1)
    sent = at.charges()
    assert max(sent.values()) == 1
    done = len(results(bucket))
    assert 40 - 2 * 4 <= done <= sent.total() <= 40, "at most what each had in flight is ambiguous"


def test_money_that_was_spent_without_the_state_counts(
    bucket: Bucket, at: Provider, manifest: Write, postgres: str, batch: Run
) -> None:
    run = ("run", str(manifest(*many(9))), "--out", bucket.out, "--join", "--staging")
    variables = {**bucket.environment, **at.environment}
    assert batch(*run, "a", "--share", "1/1", "--budget", "0.1", **variables).exit_code == 1
    assert batch(*run, "b", "--state", postgres, "--budget", "0.16", **variables).exit_code == 1
    assert at.charges().total() == 5
    assert batch(*run, "c", "--state", postgres, "--budget", "1", **variables).exit_code == 0
    assert at.charges().total() == 9


async def test_from_a_program(
    bucket: Bucket, at: Provider, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    async with impasto.Client(api_key=KEY, api_base=at.url, state=postgres) as client:
        batch = client.batch(many(4), out=bucket.out, staging=tmp_path / "a", join=True, budget_usd=0.1)
        with pytest.raises(BatchStopped, match="the budget of 0.10 USD is used up"):
            _ = [each async for each in batch]
        open_store = shared_state(client)
        assert open_store is not None
        async with open_store() as store:
            assert await store.is_usable()
        shares = client.batch(many(4), out=bucket.out, join=True, share="1/2")
        with pytest.raises(ConfigError, match="^share can't be used with state, "):
            _ = [each async for each in shares]
    assert at.charges().total() == 3


def test_hosts_with_a_state_and_without_do_not_run_together(
    bucket: Bucket, host: Host, manifest: Write, tmp_path: Path, postgres: str
) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    path = manifest(row("job", model=CREATIVE, image="small.png"))
    with provider("--job-seconds", "600") as slow:
        first = host("a", path, "--state", postgres, times=Times(lease=15.0), **slow.environment)
        wait_for(bucket.intents)
        assert exit_code_of(host("b", path, "--share", "1/2", **slow.environment)) == 2
        first.kill()
        assert slow.charges().total() == 1
    assert "a running host of this batch has --state; give all hosts the same --state" in log(tmp_path, "b")


def test_a_database_that_is_away_pauses_the_batch(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, tmp_path: Path
) -> None:
    path = manifest(*many(14))
    with own_server() as server:
        run = host("a", path, "--state", server.dsn(), "--rate", "5/1s", "--budget", "1")
        wait_for(lambda: len(bucket.intents()) >= 5)
        server.kill()
        wait_for(lambda: "without" in log(tmp_path, "a"))
        sent = at.charges().total()
        assert sent < 14
        assert run.is_alive()
        server.start()
        assert exit_code_of(run) == 0
    assert "the state can be reached again" in log(tmp_path, "a")
    assert at.charges() == Counter(range(1, 15))
    assert len(results(bucket)) == 14


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_wrong_address_ends_the_run_before_anything_is_sent(
    at: Provider, manifest: Write, postgres: str, batch: Run, more: list[str]
) -> None:
    path = manifest(*many(3))
    wrong = {
        postgres.replace(PASSWORD, "other"): "refused the user or the password",
        postgres.replace("/postgres?", "/nowhere?"): "no database of this name",
    }
    for address, cause in wrong.items():
        words = ("run", str(path), "--out", str(path.with_name("out")), "--state", address, *more)
        refused = batch(*words, **at.environment)
        assert refused.exit_code == 2
        assert f"Error: --state: PostgreSQL at {urlsplit(postgres).netloc.rpartition('@')[2]}" in refused.output
        assert cause in refused.output
    assert not at.charges()


def test_a_dry_run_creates_nothing(at: Provider, manifest: Write, postgres: str, batch: Run, tmp_path: Path) -> None:
    words = ("run", str(manifest(*many(3))), "--out", str(tmp_path / "out"), "--state", postgres, "--dry-run")
    assert batch(*words, **at.environment).exit_code == 0
    assert "version 0" in CliRunner().invoke(main, ["state", "check", postgres]).output


def test_a_password_that_changes_in_use_stops_the_batch(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, tmp_path: Path
) -> None:
    path = manifest(*many(40))
    with own_server() as server:
        asyncio.run(execute(server, f"CREATE USER app SUPERUSER PASSWORD '{PASSWORD}'"))
        state = server.dsn().replace("postgres:", "app:", 1)
        run = host("a", path, "--state", state, "--rate", "5/1s")
        wait_for(lambda: len(bucket.intents()) >= 5)
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        asyncio.run(execute(server, "ALTER USER app PASSWORD 'new'", cut))
        assert exit_code_of(run) == 1
        assert at.charges().total() < 40
        output = log(tmp_path, "a")
        assert "Stopped: " in output
        assert "refused the user or the password" in output
        assert PASSWORD not in output
        asyncio.run(execute(server, f"ALTER USER app PASSWORD '{PASSWORD}'"))
        assert exit_code_of(host("a", path, "--state", state)) == 0
    assert at.charges() == Counter(range(1, 41))


def test_a_database_that_is_away_at_the_start_is_waited_for(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, tmp_path: Path
) -> None:
    path = manifest(*many(3))
    with own_server() as server:
        server.stop()
        run = host("a", path, "--state", server.dsn(), "--rate", "5/1s")
        wait_for((tmp_path / "a.log").exists)
        wait_for(lambda: "trying again for up to 10 minutes" in log(tmp_path, "a"))
        assert "--state: can't reach PostgreSQL at 127.0.0.1:" in log(tmp_path, "a")
        assert not at.charges()
        server.start()
        assert exit_code_of(run) == 0
    assert at.charges() == Counter(range(1, 4))
