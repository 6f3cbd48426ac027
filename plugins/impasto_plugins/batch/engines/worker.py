"""A worker of an engine: a host of a shared batch in a thread of its own, which takes rows in parts."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from impasto import Client, ConfigError, Registry, StorageError
from impasto.ext import Settings
from impasto_plugins.batch.joined import JoinedHost, open_host
from impasto_plugins.batch.ledger.workspace import LockedFolder
from impasto_plugins.batch.option_names import ARGUMENTS, options_as
from impasto_plugins.batch.output.s3 import BucketTarget, target_of
from impasto_plugins.batch.program import RunOptions
from impasto_plugins.batch.shared.share import MOST_SHARES, JoinOptions, Share

from .rows import ImageRow, run_part

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped]  # it ships no types

Requests = Sequence[Mapping[str, object]]


@attrs.frozen(kw_only=True)
class WorkerSpec:
    """Options of all workers of a batch. ``models`` of the rows, each with its ``base_model``."""

    target: BucketTarget
    staging: Path
    workers: int
    run: RunOptions
    settings: Settings
    models: tuple[tuple[str, str | None], ...] = ()
    images: int = 0

    @classmethod
    def of(
        cls,
        *,
        out: str,
        staging: str | os.PathLike[str] | None,
        s3_endpoint: str | None,
        workers: int,
        run: RunOptions,
        settings: Settings,
    ) -> WorkerSpec:
        """Return the specification of checked options. Raises ConfigError, TypeError for an unknown setting."""
        target = target_of(str(out), None, s3_endpoint)
        if target is None:
            raise ConfigError(f"out must be s3://bucket/prefix, which all workers reach, not {str(out)[:200]!r}")
        if type(workers) is not int or not 1 <= workers <= MOST_SHARES:
            raise ConfigError(f"workers must be a whole number from 1 to {MOST_SHARES:,}, not {workers!r}")
        Client(**settings)  # raises for wrong ones
        if (state := settings.get("state")) is not None and not (isinstance(state, str) and "://" in state):
            raise ConfigError("state must be the URL of a store that all workers reach: postgresql://host/database")
        place = Path(staging) if staging is not None else target.staging.with_name(f"{target.staging.name}-workers")
        return cls(target=target, staging=place, workers=workers, run=run, settings=settings)

    @property
    def join_options(self) -> JoinOptions:
        """Return how each worker joins the batch: its limits are in the state, or it takes a free share of them."""
        has_state = self.settings.get("state") is not None
        share = None if has_state else Share(0, self.workers)
        return JoinOptions(target=self.target, share=share, has_state=has_state)


class RowWorker:
    """Turns blocks of requests into blocks of images. Ray makes one in each of its actors."""

    def __init__(self, spec: WorkerSpec, model: str | None) -> None:
        self._spec, self._model = spec, model
        self._registry = Registry(allow=spec.settings.get("plugins"))
        self._host: HostThread | None = None

    def __call__(self, table: Table) -> Table:
        """Run a part of the rows, and return their images."""
        from .ray_dataset import requests_of

        with options_as(ARGUMENTS):
            if self._host is None:  # here, since Ray starts an actor again whose constructor fails
                self._host = HostThread(self._spec)
            return ImageRow.table(self._host.run(list(requests_of(table, self._registry, self._model))))

    def __del__(self) -> None:
        """Leave the batch. Ray calls it in the end, unless it kills the actor."""
        if getattr(self, "_host", None) is not None:
            cast(HostThread, self._host).close()


class HostThread:
    """A host of a shared batch, whose lease is renewed in its own thread while nobody gives it rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._ready: Future[None] = Future()
        self._parts: asyncio.Queue[tuple[Requests, Future[list[ImageRow]]] | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="impasto-host", daemon=True)
        self._thread.start()
        self._ready.result()

    def run(self, requests: Requests) -> list[ImageRow]:
        """Run a part of the rows. Raises the errors of ``run_part``."""
        answer: Future[list[ImageRow]] = Future()
        self._put((requests, answer))
        return answer.result()

    def close(self) -> None:
        """Leave the batch."""
        self._put(None)
        self._thread.join()

    def _put(self, part: tuple[Requests, Future[list[ImageRow]]] | None) -> None:
        assert self._loop is not None  # noqa: S101 - it was opened
        self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the caller's, who waits in the other thread
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Client(**self._spec.settings) as client, AsyncExitStack() as stack:
            host = await _take_free_folder(stack, client, self._spec)
            self._ready.set_result(None)
            while (part := await self._parts.get()) is not None:
                requests, answer = part
                try:
                    answer.set_result(await run_part(host, requests))
                except Exception as error:  # noqa: BLE001 - it is the caller's, in the other thread
                    answer.set_exception(error)
            with suppress(StorageError, OSError):  # the next host to leave writes them
                await host.shared.update()
                await host.publish()


async def _take_free_folder(stack: AsyncExitStack, client: Client, spec: WorkerSpec) -> JoinedHost:
    """Be a host in the first folder that no worker of this node uses: it is that of a worker that died, if one did.

    So what that one had on the disk is uploaded, and its lease need not end before.
    """
    operations = {each.id: each for each in [await client.operation(m, base_model=base) for m, base in spec.models]}
    for number in itertools.count(1):
        host = open_host(
            client,
            spec.join_options,
            spec.staging / str(number),
            operations=operations.values(),
            images=spec.images,
            run_options=spec.run,
        )
        with suppress(LockedFolder):
            return await stack.enter_async_context(host)
    raise AssertionError("there are more numbers")
