"""One call to each of some models, at the emulators that their plugins declare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from impasto import Client, Operation
from impasto.ext import EXTENSIONS

from .tour import POLL_SECONDS, SKETCH, draw_sketch

PROMPT = "a lighthouse on a cliff at dusk"


async def call_models(models: Sequence[str], out: Path, report: Callable[[str, Path, float], None]) -> None:
    """Call each model with the least that it takes, and save what comes into a folder. ``report`` gets each file.

    Raises ConfigError for a provider without an emulator.
    """
    async with Client(transport="emulator", poll_interval=POLL_SECONDS) as client:
        for model in models:
            params = _smallest_params(await client.operation(model), out / SKETCH)
            if out / SKETCH in params.values():
                await asyncio.to_thread(draw_sketch, out / SKETCH)
            started = time.monotonic()
            result = await client.invoke(model, params)
            seconds = time.monotonic() - started
            for number, artifact in enumerate(result.artifacts, 1):
                suffix = f"-{number}" if len(result.artifacts) > 1 else ""
                name = f"{model.replace('/', '-')}{suffix}{EXTENSIONS.get(artifact.media_type, '.bin')}"
                report(model, await asyncio.to_thread(artifact.save, out / name), seconds)


def _smallest_params(operation: Operation, image: Path) -> dict[str, object]:
    """Return a value for each field that a model requires."""
    params: dict[str, object] = {}
    for name, field in operation.fields.items():
        if not field.required:
            continue
        if field.kind == "file":
            params[name] = image
        elif field.kind in ("integer", "number"):
            params[name] = field.minimum or 0
        else:
            params[name] = field.choices[0] if field.choices else PROMPT
    return params
