"""``impasto batch run`` in a process: its client, its signals, its exit code."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import attrs
import click

from impasto import Client, Registry
from impasto.options import Settings

from .batch import Batch, Order
from .telling import in_words


def conduct(*, manifest: Path, out: Path, concurrency: int, emulator: bool, api_base: str | None, as_json: bool) -> int:
    """Runs an order. Returns the exit code."""
    settings: Settings = {}
    if api_base is not None:
        settings["api_base"] = api_base
    if emulator:
        settings["transport"] = "emulator"
    return asyncio.run(_run(Order(manifest=manifest, out=out, concurrency=concurrency), settings, as_json))


async def _run(order: Order, settings: Settings, as_json: bool) -> int:
    registry = Registry()
    async with Client(registry=registry, **settings) as client:
        status = await Batch(order, registry).run(client, lambda _: None)
    click.echo(json.dumps(attrs.asdict(status)) if as_json else in_words(status))
    return 0 if status.done == status.total else 1
