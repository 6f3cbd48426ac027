"""The gateway as a process: one worker or several, signals, and its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable

import click

from impasto import ConfigError, ImpastoError

from .config import Config, check_bind
from .config_yaml import load
from .server import BACKLOG, Gateway

_log = logging.getLogger("impasto.gateway")

LOST = 1
"""The exit code where calls that ran were given up."""


def serve(path: str, *, host: str, port: int, workers: int, no_auth: bool) -> int:
    """Serves until it is told to end; the exit code. Raises ConfigError."""
    config = load(path)
    for warning in check_bind(config, host, no_auth=no_auth):
        click.echo(f"Warning: {warning}", err=True)
    sockets = _sockets(host, port, workers)
    number = sockets[0].getsockname()[1]
    click.echo(f"RUNNING on http://{f'[{host}]' if ':' in host else host}:{number}")
    works = [_Worker(path, config, each, host, no_auth=no_auth) for each in sockets]
    return works[0].run() if workers == 1 else _supervise(works)


def check(path: str, *, host: str, no_auth: bool) -> str:
    """What ``--check`` says of a configuration that is sound. Raises ConfigError."""
    from impasto import Client

    from .setup import Setup

    config = load(path)
    warnings = check_bind(config, host, no_auth=no_auth)

    async def all_of_it() -> int:
        async with Client() as client:
            return len((await Setup.of(config, client, no_auth=no_auth)).models)

    lines = [f"{config.source} is sound: {asyncio.run(all_of_it())} models", *(f"Warning: {each}" for each in warnings)]
    return "\n".join(lines)


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

    def __init__(self, path: str, config: Config, bound: socket.socket, host: str, *, no_auth: bool) -> None:
        self._path, self._bound, self._config = path, bound, config
        self._host, self._no_auth = host, no_auth

    def run(self) -> int:
        """Serves until a signal ends it; the exit code."""
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(self._main())

    async def _main(self) -> int:
        stop, again = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: (again if stop.is_set() else stop).set())  # noqa: PLW0108 - as it is then
        async with Gateway(self._config, host=self._host, no_auth=self._no_auth, bound=self._bound) as gateway:
            reload = asyncio.Event()
            loop.add_signal_handler(signal.SIGHUP, reload.set)
            reloading = asyncio.create_task(self._reload(gateway, reload))
            await stop.wait()
            reloading.cancel()
            draining = asyncio.create_task(gateway.drain())
            given_up = asyncio.create_task(again.wait())
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
            try:
                await gateway.take_up(await asyncio.to_thread(load, self._path))
            except ImpastoError as error:
                _log.error("the configuration stays as it was: %s", error)
            else:
                _log.warning("the configuration was read again")


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]  # where it is installed
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return, unused-ignore]  # untyped where uvloop is missing


def _supervise(workers: list[_Worker]) -> int:
    """Runs each worker in a process of its own, passes signals on, and starts one that dies again."""
    running: dict[int, _Worker] = {}
    ending = False

    def start(worker: _Worker) -> None:
        if (pid := os.fork()) == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            code = 70
            try:
                code = worker.run()
            finally:
                os._exit(code)
        running[pid] = worker

    def pass_on(number: int, _: object) -> None:
        nonlocal ending
        ending = ending or number != signal.SIGHUP
        for pid in running:
            os.kill(pid, number)

    for worker in workers:
        start(worker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    worst = 0
    while running:
        pid, status = os.wait()
        worker = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if ending:
            worst = worst or (LOST if code else 0)
        else:
            _log.error("worker %d ended with %d and is started again", pid, code)
            start(worker)
    return worst
