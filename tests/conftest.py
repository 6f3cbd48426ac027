"""What every test has: a loop that must not be blocked, no keys of the developer's, and the recorder."""

from __future__ import annotations

import gc
import itertools
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import pytest
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import settings

import impasto
from tests.postgres import PostgresServer, shared_server
from tests.recorder import Recorder, recording

ROOT = Path(__file__).parent
ASYNC_PACKAGES = (
    "impasto",
    "impasto_plugins.batch",
    "impasto_plugins.emulator",
    "impasto_plugins.gateway",
    "impasto_plugins.idempotent_calls",
    "impasto_plugins.media",
    "impasto_plugins.middleware",
    "impasto_plugins.openai_compat",
    "impasto_plugins.images",
    "impasto_plugins.stability",
    "impasto_plugins.state",
    "impasto_plugins.transports",
)
"""All but the command line, which has the process to itself."""
settings.register_profile("impasto", deadline=None)  # how long one example takes says how busy the machine is
settings.load_profile("impasto")

KEY = "sk-" + "tests-" * 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files again; then review the diff")


def pytest_configure() -> None:
    """Set what the processes of the tests inherit: compiled modules are stored, and no signal is ignored.

    Containers often forbid the first, so that a thousand processes would compile every module again; nohup and many CI
    runners ignore signals.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE") != "campaign":  # whose files change within a second, see forks.py
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_xdist_auto_num_workers() -> int | None:
    """Return two workers for each core: a test waits for sockets, processes and polls for much of its time.

    pytest-xdist itself counts physical cores, so that a machine of two hyper-threads would have one worker.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 2 * cores


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let each worker of a whole run compile its part of the modules, which the others read: asserts take long."""
    worker: Mapping[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    paths = sorted(ROOT.rglob("test_*.py"))
    first = len(paths) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in paths[first:] + paths[:first]:
        with suppress(Exception), catch_warnings(action="error"):  # the collection imports it again, and reports it
            import_module(".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait, in one worker: the others use the cores meanwhile, and none of them is last."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


def pytest_collection_finish() -> None:
    """Exempt modules and collected tests, half a million objects, from every garbage collection of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    """A blocking call from our code inside a running loop raises BlockingError."""
    guard = BlockBuster(list(ASYNC_PACKAGES))
    paths = guard.functions["os.stat"]._scanned_modules
    for name in ("os.pread", "os.open", "io.FileIO.read", "io.FileIO.readall", "io.FileIO.readinto"):
        watched = BlockBusterFunction(None, name)
        watched._scanned_modules = paths
        guard.functions[name] = watched
    for name in ("io.BufferedWriter.write", "io.TextIOWrapper.write"):
        # save() is the caller's own, synchronous choice, and what the first example of the README shows
        guard.functions[name].can_block_in("impasto/records.py", "save")
    for watched in guard.functions.values():
        # both are synchronous in the surface: they read the metadata of what is installed, and a model's module, once
        watched.can_block_in("impasto/client.py", {"models", "describe"})
        watched.can_block_in("impasto/__init__.py", "_load_export")  # the first use of a plugin's name
    for watched in guard.functions.values():
        # a loop of its own, in a thread of its own
        watched.can_block_in("impasto_plugins/transports/aws.py", "run_in_loop_of_its_own")
        watched.can_block_in("impasto/testing/watch/run_queue.py", "seconds")  # a counter of the system, no file
        watched.can_block_in("tests/plugins/state/postgres/test_suite.py", "_execute")  # the test's own statements
        # the driver looks for the user's certificates and passwords, once for each of its few connections
        watched.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")
        watched.can_block_in("/linecache.py", "updatecache")  # a finalizer's error is told with its lines
        watched.can_block_in("coverage/collector.py", "lock_data")  # the tracer's own, in whichever code it meets anew
    guard.activate()
    yield guard
    guard.deactivate()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own keys and addresses do not reach the tests."""
    for name in list(os.environ):
        if name.startswith(("STABILITY_", "AWS_", "IMPASTO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def no_state_in_the_home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the state of processes that fixtures of modules and sessions start out of the developer's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def no_rate_window_of_another_test(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Forget a provider's pauses: tests share keys and the emulator's address, and so its rate windows."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_numbers)}"))
    yield
    if (gate := sys.modules.get("impasto_plugins.middleware.gate")) is not None:
        gate._gates.clear()
        gate.model_pauses._ends.clear()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server, one for all processes of the run."""
    base = tmp_path_factory.getbasetemp()
    with shared_server(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> str:
    """The address of a store in a schema of its own, which does not exist yet."""
    return postgres_server.dsn(schema=f"test_{secrets.token_hex(6)}")


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """A recorder of its own for each test."""
    async with recording() as it:
        yield it


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[impasto.Client]:
    """A client that talks to the recorder."""
    async with impasto.Client(api_key=KEY, api_base=recorder.url, poll_interval=0.01, timeout=20.0) as it:
        yield it
