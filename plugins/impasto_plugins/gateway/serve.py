"""The gateway as a process: one worker or several, signals, and its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import click

from impasto import ConfigError, ImpastoError

from .config.loader import examine, load
from .config.model import Config, Mistakes, check_bind
from .gateway import BACKLOG, Gateway
from .telemetry.access_log import Lines
from .telemetry.instrumentation import Observer
from .telemetry.metrics import LOST_LINES, Metrics
from .telemetry.tracing import provider_from_environment

_log = logging.getLogger("impasto.gateway")

RESTART_SECONDS = 0.5
"""How long a worker that died stays away, so that one that can't live does not take the machine with it."""

_STEERING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (*_STEERING, signal.SIGCHLD)

_MOST_FILES = 65_536

LOST = 1
"""The exit code where calls that ran were given up."""


def serve(path: str, *, host: str, port: int, workers: int, no_auth: bool) -> int:
    """Serves until it is told to end; the exit code. Raises ConfigError."""
    config, mistakes = examine(path)
    if mistakes:
        check(path, host=host, no_auth=no_auth)  # it raises all of them, and what only the plugins know
    for warning in check_bind(config, host, no_auth=no_auth):
        click.echo(f"Warning: {warning}", err=True)
    if workers > 1:
        # Here errors are reported once and not by each worker, and imports are shared. A thread of the check may end a
        # little later: it must not take a signal from the supervisor, whose own thread blocks them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            check(path, host=host, no_auth=no_auth)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _allow_many_files()
    sockets = _sockets(host, port, workers)
    number = sockets[0].getsockname()[1]
    running = f"RUNNING on http://{f'[{host}]' if ':' in host else host}:{number}"
    if workers == 1:
        return _Worker(path, config, sockets[0], host, no_auth=no_auth).run(lambda: click.echo(running))
    with TemporaryDirectory(prefix="impasto-gateway-") as folder:
        works = [_Worker(path, config, each, host, no_auth=no_auth, shared=Path(folder)) for each in sockets]
        return _Supervisor(works).run(lambda: click.echo(running))


def check(path: str, *, host: str, no_auth: bool) -> str:
    """Return what ``--check`` prints of a configuration that is valid. Raises ConfigError with every mistake."""
    from aiohttp import ClientSession

    from impasto import Client

    from .calls.runtime import open_parts

    config, mistakes = examine(path)
    warnings: list[str] = []
    try:
        warnings = check_bind(config, host, no_auth=no_auth)
    except Mistakes as error:
        mistakes += error.found

    async def open_all() -> int:
        async with Client(plugins=config.plugins) as client, ClientSession() as uploads:
            models, _, found = await open_parts(config, client, Observer(Metrics(), None), uploads)
        mistakes.extend(found)
        return len(models)

    models = asyncio.run(open_all())
    if mistakes:
        raise Mistakes(config.source, mistakes)
    sound = f"{config.source} is sound: {models} model{'s' if models != 1 else ''}"
    return "\n".join([sound, *(f"Warning: {each}" for each in warnings)])


def _allow_many_files() -> None:
    """Each connection is a file, and the usual limit is one for programs that use ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """One listening socket for each worker, on one port: the system shares connections out among them."""
    made: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        for _ in range(workers):
            each = socket.socket(family, socket.SOCK_STREAM)
            made.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if workers > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind((host, made[0].getsockname()[1] if len(made) > 1 else port))
            each.listen(BACKLOG)
            each.setblocking(False)
    except OSError as error:
        for each in made:
            each.close()
        raise ConfigError(f"can't listen on {host} port {port}: {error.strerror or error}") from None
    return made


class _Worker:
    """One gateway in a loop of its own, and the signals that steer it."""

    def __init__(
        self, path: str, config: Config, bound: socket.socket, host: str, *, no_auth: bool, shared: Path | None = None
    ) -> None:
        self._path, self._bound, self._config, self._shared = path, bound, config, shared
        self._host, self._no_auth = host, no_auth
        self.is_outdated = False
        """Whether the configuration was to be read again since it was given."""

    def run(self, ready: Callable[[], object], life: int | None = None) -> int:
        """Serves until a signal ends it, or its supervisor's end of the pipe ``life`` is closed; the exit code."""
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(self._main(ready, life))

    async def _main(self, ready: Callable[[], object], life: int | None) -> int:
        stop, again, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            (again if stop.is_set() else stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        if life is not None:
            loop.add_reader(life, stop.set)
        async with AsyncExitStack() as stack:
            # A closed stdout is None, and the null device has its number (the command line sees to that).
            lines = stack.enter_context(Lines(sys.stdout.fileno() if sys.stdout is not None else 1))
            gateway = Gateway(
                self._config,
                host=self._host,
                no_auth=self._no_auth,
                bound=self._bound,
                shared=self._shared,
                log=lines.log,
                before=self._take_up if self.is_outdated else None,
            )
            if (traces := provider_from_environment()) is not None:
                stack.push_async_callback(asyncio.to_thread, traces.shutdown)
            await stack.enter_async_context(gateway)
            lines.lost = lambda: gateway.metrics.add(LOST_LINES)
            reloading = asyncio.create_task(self._reload(gateway, reload))
            gc.collect()
            gc.freeze()  # what there is from the start is not looked through again and again
            ready()
            await stop.wait()
            if life is not None:
                loop.remove_reader(life)
            reloading.cancel()
            draining, given_up = asyncio.create_task(gateway.drain()), asyncio.create_task(again.wait())
            await asyncio.wait([draining, given_up], return_when=asyncio.FIRST_COMPLETED)
            drained = draining.done() and draining.result()
            for task in (draining, given_up):
                task.cancel()
            if not drained:
                _log.error("ended while calls were running: what they cost is not known")
        return 0 if drained else LOST

    async def _reload(self, gateway: Gateway, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            await self._take_up(gateway)

    async def _take_up(self, gateway: Gateway) -> None:
        try:
            config = await asyncio.to_thread(load, self._path)
            await gateway.take_up(config)
        except ImpastoError as error:
            _log.error("the configuration stays as it was: %s", error)
        else:
            for warning in config.warnings:
                _log.warning("%s", warning)
            _log.warning("the configuration was read again")


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]  # where it is installed
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return, unused-ignore]  # untyped where uvloop is missing


class _Supervisor:
    """Runs each worker in a process of its own, passes signals on, and starts one that dies again.

    The workers end where the pipe ``life`` does, however this process ends. Signals are blocked, and taken one by one:
    a handler's would be lost that comes just before this process begins to wait.
    """

    def __init__(self, workers: list[_Worker]) -> None:
        self._workers = workers
        self._running: dict[int, _Worker] = {}
        self._ending = False
        self._life = os.pipe()

    def run(self, ready: Callable[[], object]) -> int:
        """Waits until all have ended; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        for worker in self._workers:
            self._start(worker)
        ready()
        worst = 0
        while self._running:
            if (number := signal.sigwait(_WATCHED)) != signal.SIGCHLD:
                self._pass_on(number)
                continue
            for pid, code in _ended():
                worker = self._running.pop(pid)
                if self._ending:
                    worst = worst or (LOST if code else 0)
                else:
                    _log.error("worker %d ended with %d and is started again", pid, code)
                    time.sleep(RESTART_SECONDS)
                    self._start(worker)
        return worst

    def _start(self, worker: _Worker) -> None:
        if (pid := os.fork()) == 0:
            self._work(worker)
        self._running[pid] = worker

    def _work(self, worker: _Worker) -> NoReturn:
        code = 70
        try:
            os.close(self._life[1])
            code = worker.run(lambda: None, self._life[0])
        except Exception:  # noqa: BLE001 - its traceback would go with the process
            _log.exception("a worker failed")
        finally:
            os._exit(code)

    def _pass_on(self, number: int) -> None:
        self._ending = self._ending or number != signal.SIGHUP
        for worker in self._workers:
            worker.is_outdated = worker.is_outdated or number == signal.SIGHUP
        for pid in self._running:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, number)


def _ended() -> Iterator[tuple[int, int]]:
    """The children that have ended, each with its exit code: one signal may tell of several."""
    with suppress(ChildProcessError):  # there is none any more
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])
