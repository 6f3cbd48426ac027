"""Shared by generate, edit and resume: one call, its progress line, saving and reporting."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Unpack

import attrs
import click

from impasto import Call, Client, ImpastoError, InvalidRequest, Operation, Problem, Registry, Result
from impasto.ext import JOB_CANCELLED, Makes, Settings, check_n, result_of_cancelled
from impasto_plugins.cli.models import group_of
from impasto_plugins.cli.options import registry_of
from impasto_plugins.cli.terminal.failure import CallInterrupted, as_object, format_error
from impasto_plugins.cli.terminal.output import echo, is_terminal, protect_output, stderr, stdout
from impasto_plugins.cli.terminal.signals import run_until_signal

from .artifact_files import ArtifactSaver, SavedArtifact
from .connection import ConnectionOptions, settings_of
from .values import request_of

_MAKES: Mapping[str, Makes] = {"audio": "audio", "model3d": "3d"}
"""The output of each command's models, if not images."""

_NOUNS: Mapping[Makes, str] = {"image": "images", "audio": "sounds", "3d": "3D models"}


class CallCommandOptions(ConnectionOptions):
    """The options that ``options.call_options`` adds to a command."""

    out: Path | None
    force: bool
    as_json: bool


def make(
    ctx: click.Context,
    model: str,
    *,
    n: int,
    prompt: str | None = None,
    images: Sequence[str] = (),
    mask: str | None = None,
    audio: str | None = None,
    fields: Sequence[str] = (),
    **calling: Unpack[CallCommandOptions],
) -> None:
    """Call a model and save its output. Ends the command with 1 if some of ``n`` failed."""
    protect_output()
    registry = registry_of(ctx)
    operation = registry.operation(model)
    if (problem := _wrong_command(str(ctx.info_name), operation, images, fields)) is not None:
        raise InvalidRequest([problem], operation=model)
    saving = ArtifactSaver(
        model=model, out=calling["out"], n=n, force=calling["force"], to_stdout=not calling["as_json"]
    )
    problems = wrong_n(n) or list(saving.problems())
    by_role = {
        "prompt": () if prompt is None else (prompt,),
        "image": images,
        "mask": () if mask is None else (mask,),
        "audio": () if audio is None else (audio,),
    }
    request = request_of(operation, model, by_role, assignments=fields, out=saving.out, problems=problems)
    calls: list[Call] = []

    def remembered(*arguments: Any, **settings: Any) -> Call:
        calls.append(Call(*arguments, **settings))
        return calls[-1]

    finish(
        ctx,
        saving,
        lambda client: client.invoke(model, request, n=n, call=remembered),
        registry,
        calling,
        jobs=lambda: {
            call.job: call.request.count
            for call in calls
            if call.job is not None and call.cancellation != JOB_CANCELLED
        },
    )


def finish(
    ctx: click.Context,
    saving: ArtifactSaver,
    call: Callable[[Client], Awaitable[Result]],
    registry: Registry,
    calling: CallCommandOptions,
    *,
    jobs: Callable[[], Mapping[str, int]],
) -> None:
    """Wait for a call, save its artifacts and report them.

    ``jobs``: ids of jobs that continue if it is interrupted, each with its number of images.
    """
    settings = settings_of(calling, registry.operation(saving.model).provider.name)
    started = time.monotonic()
    cancellations: list[asyncio.CancelledError] = []
    try:
        result = run_until_signal(_run(call, saving.model, registry, settings, cancellations))
    except ImpastoError as error:
        saving.keep(error)
        raise
    except KeyboardInterrupt:
        notes = [note for each in cancellations for note in (*getattr(each, "__notes__", ()), *_keep(each, saving))]
        raise CallInterrupted(saving.model, notes=notes, jobs=jobs()) from None
    seconds = time.monotonic() - started
    saved = _save_each(result, saving)
    for failure in result.errors:
        saving.keep(failure.error, failure.index)
    try:
        if calling["as_json"]:
            echo(json.dumps(_as_object(saving.model, saved, result, seconds), indent=2))
        else:
            _print_result(saved, result, seconds, names_to_stderr=saving.used_stdout)
    except OSError:  # nobody reads it, or no disk takes it
        for each in saved:
            echo(f"saved: {each.place}", err=True)
        raise
    for each in saved:
        if each.trouble is not None:
            echo(f"Error: {each.trouble}", err=True)
        if (problem := each.name_problem()) is not None:
            echo(f"Warning: {problem}", err=True)
    for warning in result.warnings:
        echo(f"Warning: {warning}", err=True)
    total = len(result.artifacts) + len(result.errors)
    for failure in result.errors:
        echo(f"Error: {failure.index + 1} of {total}: {format_error(failure.error)}", err=True)
    if result.errors or any(each.trouble for each in saved):
        ctx.exit(1)


def _keep(cancelled: asyncio.CancelledError, saving: ArtifactSaver) -> Iterator[str]:
    """Save what had come when a call was cancelled, and yield notes with the places."""
    if (result := result_of_cancelled(cancelled)) is None:
        return
    for each in _save_each(result, saving):
        yield f"saved: {each.place}"
    for failure in result.errors:
        saving.keep(failure.error, failure.index)
        yield from getattr(failure.error, "__notes__", ())


def _save_each(result: Result, saving: ArtifactSaver) -> list[SavedArtifact]:
    """Save the artifacts that came, each under the number of its place."""
    lost_places = {each.index for each in result.errors}
    places = (index for index in itertools.count() if index not in lost_places)  # as many as came, whatever n was
    return [saving.save(each, index) for each, index in zip(result.artifacts, places, strict=False)]


def _wrong_command(command: str, operation: Operation, images: Sequence[str], inputs: Sequence[str]) -> Problem | None:
    """Return the problem if another command calls this model. Fields that were given by name count as images."""
    right = group_of(operation)
    if _MAKES.get(command, "image") != operation.output:
        return Problem("model", f"generates {_NOUNS[operation.output]}; use `impasto {right}`")
    label = {word.partition("=")[0] for word in inputs}
    if command == "generate" and right == "edit" and label.isdisjoint(operation.roles["image"]):
        return Problem("model", f"needs an image; use `impasto {right}`")
    if images and not operation.roles.get("image"):
        return Problem("model", f"takes no image; use `impasto {right}`")
    return None


def wrong_n(n: int) -> list[Problem]:
    """Return the problems of a number of outputs."""
    try:
        check_n(n)
    except InvalidRequest as error:
        return list(error.problems)
    return []


async def _run(
    call: Callable[[Client], Awaitable[Result]],
    model: str,
    registry: Registry,
    settings: Settings,
    cancellations: list[asyncio.CancelledError],
) -> Result:
    """Await a call. If it is cancelled, ``cancellations`` gets the core's error, with what it knows of charges."""
    try:
        async with Client(registry=registry, **settings) as client, _progress_line(model):
            return await call(client)
    except asyncio.CancelledError as cancelled:
        cancellations.append(cancelled)
        raise


@asynccontextmanager
async def _progress_line(label: str) -> AsyncIterator[None]:
    """Show on a terminal that time passes; the duration of a call is not known in advance."""
    if not is_terminal(stderr()):
        yield
        return
    started = time.monotonic()
    bar = click.progressbar(
        itertools.repeat(""), label=label, file=stderr(), width=12, item_show_func=lambda seconds: seconds
    )

    async def turn() -> None:
        with suppress(OSError):  # the terminal was closed: the call goes on without its line
            while True:
                bar.update(1, f"{time.monotonic() - started:.0f} s")
                await asyncio.sleep(0.1)

    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        with suppress(OSError):
            bar.render_finish()


def _print_result(saved: Sequence[SavedArtifact], result: Result, seconds: float, *, names_to_stderr: bool) -> None:
    """Print the names of the files; on a terminal also the images and their cost."""
    terminal = is_terminal(stdout())
    for each in saved:
        if terminal:
            from impasto_plugins.cli.terminal.preview import show

            show(each.artifact.content.read(), each.artifact.media_type)
        if each.path is not None:
            echo(each.path, err=names_to_stderr)
    if terminal:
        seeds = ", ".join(str(each.artifact.seed) for each in saved if each.artifact.seed is not None)
        cost = f"{result.cost.usd:.4g} USD" if result.cost is not None else "price not known"
        tokens = f"{result.usage.total_tokens:,} tokens" if result.usage is not None else ""
        facts = [f"seed {seeds}" if seeds else "", cost, tokens, f"{seconds:.1f} s"]
        echo(click.style(" · ".join(filter(None, facts)), dim=True))


def _file(saved: SavedArtifact) -> dict[str, object]:
    artifact = saved.artifact
    return {
        "path": str(saved.path) if saved.path is not None else None,
        **({"b64_json": artifact.b64_json} if saved.path is None else {}),  # no disk took it
        "media_type": artifact.media_type,
        "bytes": artifact.content.size,
        "seed": artifact.seed,
        "finish_reason": artifact.finish_reason,
        **({"revised_prompt": artifact.revised_prompt} if artifact.revised_prompt is not None else {}),
    }


def _as_object(model: str, saved: Sequence[SavedArtifact], result: Result, seconds: float) -> dict[str, object]:
    from impasto_plugins.openai_compat.response import TokenUsage

    return {
        "model": model,
        "files": [_file(each) for each in saved],
        "cost": attrs.asdict(result.cost) if result.cost is not None else None,
        **({"usage": TokenUsage.of(result.usage).model_dump()} if result.usage is not None else {}),
        "warnings": list(result.warnings),
        "errors": [{"index": each.index, **as_object(each.error)} for each in result.errors],
        "request_id": result.request_id,
        "seconds": round(seconds, 3),
    }
