"""The gateway as a process: one worker or several, signals, and its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from impasto import ConfigError, ImpastoError, Registry
from impasto.ext import MIDDLEWARE, TRANSPORTS, resolve_model
from impasto_plugins.cli.terminal.output import count_of, echo, stdout
from impasto_plugins.cli.terminal.signals import not_ignored
from impasto_plugins.concurrency import parse_bind_host
from impasto_plugins.concurrency.memory import give_back, keep_blocks
from impasto_plugins.transports.s3 import S3Clients, import_client

from .bucket import check_bucket
from .config.loader import examine, load
from .config.model import Config, InvalidConfig, check_bind
from .gateway import BACKLOG, Gateway
from .state import check_state
from .telemetry.access_log import AccessLogWriter
from .telemetry.instrumentation import Observer
from .telemetry.metrics import DROPPED_LINES, Metrics
from .telemetry.tracing import provider_from_environment

_log = logging.getLogger("impasto.gateway")

RESTART_SECONDS = 0.5
"""Seconds before a dead worker is restarted, so that one that can't live does not overload the machine."""

IDLE_SECONDS = 5.0
"""Seconds between looks if memory can be given back."""

_HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_MAX_OPEN_FILES = 65_536

EXIT_ABANDONED = 1
"""The exit code if running calls were abandoned."""


def serve(path: str, *, host: str, port: int, workers: int, no_auth: bool) -> int:
    """Serve until a signal ends it; return the exit code. Raises ConfigError."""
    host = parse_bind_host(host)
    config, mistakes = examine(path)
    if mistakes:
        check(path, host=host, no_auth=no_auth)  # it raises all of them, and what only the plugins know
    for warning in check_bind(config, host, no_auth=no_auth):
        echo(f"Warning: {warning}", err=True)
    if workers > 1:
        _import_own_plugins(config)
        _check_apart(path, host=host, no_auth=no_auth)  # errors are reported once, and not by each worker
    _raise_file_limit()
    sockets = _open_sockets(host, port, workers)
    number = sockets[0].getsockname()[1]
    running = f"RUNNING on http://{f'[{host}]' if ':' in host else host}:{number}"
    if workers == 1:
        return _Worker(path, config, sockets[0], host, no_auth=no_auth).run(lambda: echo(running))
    with TemporaryDirectory(prefix="impasto-gateway-") as folder:
        works = [_Worker(path, config, each, host, no_auth=no_auth, metrics_folder=Path(folder)) for each in sockets]
        return _Supervisor(works).run(lambda: echo(running))


def check(path: str, *, host: str, no_auth: bool) -> str:
    """Return the output of ``--check`` for a valid configuration. Raises ConfigError with every mistake."""
    from impasto import Client

    from .calls.runtime import open_components

    host = parse_bind_host(host)
    config, mistakes = examine(path)
    warnings: list[str] = []
    try:
        warnings = check_bind(config, host, no_auth=no_auth)
    except InvalidConfig as error:
        mistakes += error.mistakes

    async def open_and_count() -> int:
        async with Client(plugins=config.plugins) as client, S3Clients() as s3_clients:
            models, bucket, more_mistakes = await open_components(config, client, Observer(Metrics(), None), s3_clients)
            mistakes.extend(more_mistakes)
            checks = [check_state(config), *([] if bucket is None else [check_bucket(config, bucket)])]
            for each in checks:
                try:
                    warnings.extend(await each)
                except InvalidConfig as error:
                    mistakes.extend(error.mistakes)
        return len(models)

    models = asyncio.run(open_and_count())
    if mistakes:
        raise InvalidConfig(config.source, mistakes)
    summary = f"{config.source} is valid: {count_of(models, 'model')}"
    return "\n".join([summary, *(f"Warning: {each}" for each in warnings)])


def _check_apart(path: str, *, host: str, no_auth: bool) -> None:
    """Check a configuration in a process of its own. Raises ConfigError with every mistake.

    The check opens clients, and so runs threads. This process has one thread whenever it forks: a worker would wait for
    ever for a lock that another thread held then. An ended thread holds those of OpenSSL for some moments more.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_check, args=(sender, path, host, no_auth))
    with receiver:
        with sender:
            process.start()
        try:
            error = receiver.recv()
        except EOFError:
            process.join()
            error = ConfigError(f"the check of {path!r} ended with exit code {process.exitcode}")
    process.join()
    if error is not None:
        raise error


def _send_check(sender: Connection, path: str, host: str, no_auth: bool) -> None:
    for number in not_ignored(signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the supervisor reports it
    error = None
    try:
        check(path, host=host, no_auth=no_auth)
    except ImpastoError as mistakes:
        error = mistakes
    sender.send(error)


def _import_own_plugins(config: Config) -> None:
    """Import impasto's own plugins that a configuration uses: workers share their memory.

    None of them starts a thread. Those of others may, so that each worker imports them itself.
    """
    own = Registry(allow="none")
    for entry in config.models:
        with suppress(ImpastoError):
            operation = own.operation(resolve_model(entry.model, entry.base_model)[0])
            own.load(TRANSPORTS, operation.provider.transport, object)
    for name in own.names(MIDDLEWARE):
        own.load(MIDDLEWARE, name, object)
    if config.files.s3 is not None:
        with suppress(ImpastoError):
            import_client()


def _raise_file_limit() -> None:
    """Raise the limit of open files: each connection is one, and the usual limit suits programs with ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def _open_sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return one listening socket for each worker, on one port: the system distributes connections among them."""
    sockets: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        for _ in range(workers):
            each = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if workers > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind((host, sockets[0].getsockname()[1] if len(sockets) > 1 else port))
            each.listen(BACKLOG)
            each.setblocking(False)
    except OSError as error:
        for each in sockets:
            each.close()
        raise ConfigError(f"can't listen on {host} port {port}: {error.strerror or error}") from None
    return sockets


class _Worker:
    """One gateway in a loop of its own, and its signals."""

    def __init__(
        self,
        path: str,
        config: Config,
        sock: socket.socket,
        host: str,
        *,
        no_auth: bool,
        metrics_folder: Path | None = None,
    ) -> None:
        self._path, self._sock, self._config, self._metrics_folder = path, sock, config, metrics_folder
        self._host, self._no_auth = host, no_auth
        self.is_outdated = False
        """True if a reload was requested since the configuration was read."""

    def run(self, ready: Callable[[], object], parent_pipe: int | None = None) -> int:
        """Serve until a signal, or the end of its supervisor's pipe ``parent_pipe``, ends it; return the exit code."""
        keep_blocks()
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(self._main(ready, parent_pipe))

    async def _main(self, ready: Callable[[], object], parent_pipe: int | None) -> int:
        stop, second_signal, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            (second_signal if stop.is_set() else stop).set()

        for number in not_ignored(signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_SIGNALS)
        if parent_pipe is not None:
            loop.add_reader(parent_pipe, stop.set)
        async with AsyncExitStack() as stack:
            # A closed stdout is None, and the null device has its number (the command line sees to that).
            log_writer = stack.enter_context(AccessLogWriter(log.fileno() if (log := stdout()) is not None else 1))
            gateway = Gateway(
                self._config,
                host=self._host,
                no_auth=self._no_auth,
                sock=self._sock,
                metrics_folder=self._metrics_folder,
                log=log_writer.log,
                on_startup=self._reload_config if self.is_outdated else None,
            )
            if (traces := provider_from_environment()) is not None:
                stack.push_async_callback(asyncio.to_thread, traces.shutdown)
            await stack.enter_async_context(gateway)
            log_writer.on_dropped_line = lambda: gateway.metrics.add(DROPPED_LINES)
            reloading = asyncio.create_task(self._reload_on_signal(gateway, reload))
            stack.callback(asyncio.create_task(_give_back_memory(gateway)).cancel)
            gc.collect()
            gc.freeze()  # what there is from the start is not looked through again and again
            ready()
            await stop.wait()
            if parent_pipe is not None:
                loop.remove_reader(parent_pipe)
            reloading.cancel()
            draining, aborting = asyncio.create_task(gateway.drain()), asyncio.create_task(second_signal.wait())
            await asyncio.wait([draining, aborting], return_when=asyncio.FIRST_COMPLETED)
            is_drained = draining.done() and draining.result()
            for task in (draining, aborting):
                task.cancel()
            if not is_drained:
                _log.error("ended while calls were running: their cost is unknown")
        return 0 if is_drained else EXIT_ABANDONED

    async def _reload_on_signal(self, gateway: Gateway, event: asyncio.Event) -> None:
        while True:
            await event.wait()
            event.clear()
            await self._reload_config(gateway)

    async def _reload_config(self, gateway: Gateway) -> None:
        try:
            config = await asyncio.to_thread(load, self._path)
            await gateway.reload(config)
        except ImpastoError as error:
            _log.error("the configuration was not reloaded: %s", error)
        else:
            for warning in config.warnings:
                _log.warning("%s", warning)
            _log.warning("the configuration was reloaded")


async def _give_back_memory(gateway: Gateway) -> None:
    """Give memory back to the system whenever the gateway is idle after work, for ever."""
    while True:
        await asyncio.sleep(IDLE_SECONDS)
        if gateway.is_idle_after_work():
            await asyncio.to_thread(give_back)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # another Python than CPython
        return None
    return uvloop.new_event_loop


class _Supervisor:
    """Runs each worker in a process of its own, forwards signals, and restarts a worker that dies.

    The workers end with the pipe ``life``, however this process ends. Signals are blocked and taken one by one: a
    handler would lose one that comes just before this process begins to wait.
    """

    def __init__(self, workers: list[_Worker]) -> None:
        self._workers = workers
        self._running: dict[int, _Worker] = {}
        self._is_stopping = False
        self._parent_pipe = os.pipe()

    def run(self, ready: Callable[[], object]) -> int:
        """Wait until all workers have ended; return the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_SIGNALS)
        # sigwait takes a blocked signal even if it is ignored
        awaited = {*not_ignored(signal.SIGTERM, signal.SIGINT), signal.SIGHUP, signal.SIGCHLD}
        gc.freeze()  # a collection in a worker would copy the memory that it shares
        for worker in self._workers:
            self._start(worker)
        ready()
        exit_code = 0
        while self._running:
            if (number := signal.sigwait(awaited)) != signal.SIGCHLD:
                self._forward_signal(number)
                continue
            for pid, code in _reap_children():
                worker = self._running.pop(pid)
                if self._is_stopping:
                    exit_code = exit_code or (EXIT_ABANDONED if code else 0)
                else:
                    _log.error("worker %d ended with exit code %d and is restarted", pid, code)
                    time.sleep(RESTART_SECONDS)
                    self._start(worker)
        return exit_code

    def _start(self, worker: _Worker) -> None:
        if (pid := os.fork()) == 0:
            self._run_child(worker)
        self._running[pid] = worker

    def _run_child(self, worker: _Worker) -> NoReturn:
        code = 70
        try:
            os.close(self._parent_pipe[1])
            code = worker.run(lambda: None, self._parent_pipe[0])
        except ConfigError as error:  # it was valid when the supervisor started
            _log.error("a worker can't start: %s", error)
        except Exception:  # noqa: BLE001 - its traceback would go with the process
            _log.exception("a worker failed")
        finally:
            os._exit(code)

    def _forward_signal(self, number: int) -> None:
        self._is_stopping = self._is_stopping or number != signal.SIGHUP
        for worker in self._workers:
            worker.is_outdated = worker.is_outdated or number == signal.SIGHUP
        for pid in self._running:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, number)


def _reap_children() -> Iterator[tuple[int, int]]:
    """Return the children that have ended, with exit codes: one signal may stand for several."""
    with suppress(ChildProcessError):  # none is left
        while (status := os.waitpid(-1, os.WNOHANG))[0]:
            yield status[0], os.waitstatus_to_exitcode(status[1])
