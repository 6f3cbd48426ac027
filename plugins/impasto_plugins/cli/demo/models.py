"""One call to each of some models, at the emulators that their plugins declare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from impasto import Client
from impasto.ext import EXTENSIONS
from impasto.fields import Field
from impasto.rules import OneOf

from .tour import POLL_SECONDS, SKETCH, draw_sketch

PROMPT = "a lighthouse on a cliff at dusk"


async def call_models(models: Sequence[str], out: Path, report: Callable[[str, Path, float], None]) -> None:
    """Call each model with the least that it takes, and save what comes into a folder. ``report`` gets each file.

    Raises ConfigError for a provider without an emulator.
    """
    async with Client(transport="emulator", poll_interval=POLL_SECONDS) as client:
        for model in models:
            operation = await client.operation(model)
            params = _smallest_params(operation.fields, out / SKETCH)
            for rule in operation.rules:
                if isinstance(rule, OneOf) and params.keys().isdisjoint(rule.fields):
                    name = rule.fields[0]
                    params[name] = _smallest_value(operation.fields[name], out / SKETCH)
            if any(name in params for name in operation.file_fields):
                await asyncio.to_thread(draw_sketch, out / SKETCH)
            started = time.monotonic()
            result = await client.invoke(model, params)
            seconds = time.monotonic() - started
            for number, artifact in enumerate(result.artifacts, 1):
                suffix = f"-{number}" if len(result.artifacts) > 1 else ""
                name = f"{model.replace('/', '-')}{suffix}{EXTENSIONS.get(artifact.media_type, '.bin')}"
                report(model, await asyncio.to_thread(artifact.save, out / name), seconds)


def _smallest_params(fields: Mapping[str, Field], image: Path) -> dict[str, object]:
    """Return a value for each field that is required."""
    return {name: _smallest_value(field, image) for name, field in fields.items() if field.required}


def _smallest_value(field: Field, image: Path) -> object:
    match field.kind:
        case "file":
            return image
        case "files" | "texts" | "numbers" | "groups" if field.item is not None:
            return [_smallest_value(field.item, image)] * max(int(field.minimum or 0), 1)
        case "group":
            return _smallest_params(field.fields, image)
        case "integer" | "number":
            return field.minimum or 0
        case "boolean":
            return False
        case "color":
            return "#808080"
        case _:
            return field.choices[0] if field.choices else PROMPT
