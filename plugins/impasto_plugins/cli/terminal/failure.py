"""Errors of a command: a message on stderr, with --json also an object on stdout, and an exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import NoReturn

import click

from impasto import (
    BadRequest,
    ChargeUnknown,
    ConfigError,
    ContentFiltered,
    ImpastoError,
    InvalidRequest,
    JobFailed,
    NotFound,
    PollExpired,
    RegistryError,
    TooLarge,
    Unprocessable,
)
from impasto.ext import JOB_CANCELLED, Billed, without_python_advice
from impasto_plugins.cli.entry import INTERRUPTED
from impasto_plugins.cli.options import JSON

from .output import echo

WRONG_INPUT = (InvalidRequest, ConfigError, RegistryError)

_WITHOUT_RESULT = (JobFailed, ContentFiltered, PollExpired, NotFound, BadRequest, Unprocessable, TooLarge)
"""Errors of a job that has ended, so that nothing can be fetched any more."""

_CHARGES: Mapping[Billed, str] = {
    "no": "It was not charged.",
    "unknown": "It may have been charged.",
    "yes": "It was charged.",
}


def fail(ctx: click.Context, error: ImpastoError) -> NoReturn:
    """End the command: exit code 2 if the input or the set-up is wrong, otherwise 1."""
    if ctx.meta.get(JSON):
        echo(json.dumps({"error": as_object(error)}, indent=2))
    echo(f"Error: {format_error(error)}", err=True)
    ctx.exit(2 if isinstance(error, WRONG_INPUT) else 1)


class CallInterrupted(KeyboardInterrupt):
    """A signal that ended a call, with the core's notes about charges and the jobs that continue.

    ``jobs``: their ids, each with its number of images.
    """

    def __init__(self, model: str, *, notes: Sequence[str], jobs: Mapping[str, int]) -> None:
        super().__init__(model)
        self.model = model
        self.notes = [without_python_advice(note) for note in dict.fromkeys(notes)]
        self.advice = [resume_advice(model, job, count) for job, count in jobs.items()]
        self.job = next(iter(jobs), None)


def end_interrupted(ctx: click.Context, error: KeyboardInterrupt) -> NoReturn:
    """End the command with 130, and report the call that a signal ended."""
    lines = ["\nInterrupted."]
    if isinstance(error, CallInterrupted):
        lines = [*error.notes, *error.advice, *lines]
        if ctx.meta.get(JSON):
            with suppress(OSError):  # the reader has left; the report below and the exit code remain
                echo(json.dumps({"error": _interrupted_as_object(error)}, indent=2))
    with suppress(OSError):  # the terminal was closed; the exit code remains
        echo("\n".join(lines), err=True)
    ctx.exit(INTERRUPTED)


def _interrupted_as_object(error: CallInterrupted) -> dict[str, object]:
    """Return an interrupted call for a program, in the shape of an error."""
    return {
        "type": "Interrupted",
        "message": "a signal ended the call",
        "model": error.model,
        "billed": "unknown" if error.notes or error.job else "no",
        "request_id": None,
        "id": error.job,
        "notes": [*error.notes, *error.advice[1:]],  # ``id`` has the first
    }


def format_error(error: ImpastoError) -> str:
    """Return the error for a person, with advice about a job that continues."""
    if isinstance(error, InvalidRequest):
        lines = [error.operation or "invalid request", *(f"  {problem}" for problem in error.problems)]
        lines.append("Nothing was sent.")
    else:
        lines = [without_python_advice(str(error))]
        if not isinstance(error, WRONG_INPUT) and not any(word in lines[0] for word in ("charged", "nothing was sent")):
            lines.append(_CHARGES[error.billed])
    lines += _notes(error)
    if error.id is not None and error.operation is not None and _may_have_result(error):
        lines.append(resume_advice(error.operation, error.id, error.count))
    text = "\n".join(lines)
    others = dict.fromkeys(format_error(each) for each in error.errors)  # images of one call often fail alike
    return "\n".join([text, *(f"also: {other}" for other in others if other != text)])


def _may_have_result(error: ImpastoError) -> bool:
    is_unknown_job = isinstance(error, ChargeUnknown) and error.status == HTTPStatus.NOT_FOUND
    is_cancelled = f" {JOB_CANCELLED};" in error.message
    return not (is_unknown_job or is_cancelled or isinstance(error, _WITHOUT_RESULT))


def as_object(error: ImpastoError) -> dict[str, object]:
    """Return the error for a program."""
    payload: dict[str, object] = {
        "type": type(error).__name__,
        "message": without_python_advice(str(error)),
        "model": error.operation,
        "billed": error.billed,
        "request_id": error.request_id,
        "id": error.id,
        "notes": _notes(error),
    }
    if isinstance(error, InvalidRequest):
        payload["problems"] = [{"field": problem.field, "message": problem.message} for problem in error.problems]
    if error.errors:
        payload["errors"] = [as_object(each) for each in error.errors]
    return payload


def _notes(error: ImpastoError) -> list[str]:
    return [without_python_advice(note) for note in getattr(error, "__notes__", [])]


def resume_advice(model: str, job: str, count: int) -> str:
    """Return the command that fetches the result of a job of ``count`` images."""
    number = f" -n {count}" if count > 1 else ""
    return f"Fetch the job's result with: impasto resume {model} {shlex.quote(job)}{number}"
