"""All of an input file, looked at before anything is spent: every bad line, and what the good ones come to."""

from __future__ import annotations

from pathlib import Path

import attrs

from impasto.ext import close_files
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import nano_usd
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.errors import Failure

from .input_lines import Line, LineFiles, line_of, read, ways

MOST_ERRORS = 100
"""How many bad lines are told."""


@attrs.define(kw_only=True)
class Look:
    """What an input asks for; ``bad`` is told as OpenAI does."""

    lines: int = 0
    pictures: int = 0
    nano_usd: int = 0
    models: set[str] = attrs.field(factory=set[str])
    bad: list[dict[str, object]] = attrs.field(factory=list[dict[str, object]])
    _seen: dict[str, int] = attrs.field(factory=dict[str, int])

    def add(self, line: Line, endpoint: str, setup: Setup, caller: Caller, files: LineFiles) -> None:
        """Takes a line in. Raises Failure where it can't be run."""
        if (before := self._seen.setdefault(line.id, line.number)) != line.number:
            said = f"custom_id: is that of line {before} too"
            raise Failure(400, said, code="duplicate_custom_id", param="custom_id")
        model, found = ways(line, endpoint, setup, caller, files)
        costs = []
        for checked in found.values():
            close_files(checked.request.params)
            costs.append(nano_usd(checked, caller.limits))
        n = next(iter(found.values())).n
        self.pictures += n
        self.nano_usd += n * max(costs)
        self.models.add(model.name)


def look_over(path: Path, endpoint: str, setup: Setup, caller: Caller, files: LineFiles) -> Look:
    """Looks at every line. It blocks. Raises Failure where the file as a whole can't be run."""
    look, most = Look(), setup.config.batches.max_requests
    for number, given in read(path):
        look.lines += 1
        if look.lines > most:
            raise Failure(400, f"an input file may have {most:,} lines", code="too_many_requests")
        try:
            look.add(line_of(number, given, endpoint), endpoint, setup, caller, files)
        except Failure as failure:
            look.bad.append(told_of(failure, number))
            if len(look.bad) == MOST_ERRORS:
                return look
    if not look.lines:
        raise Failure(400, "the input file has no lines", code="empty_file")
    return look


def told_of(failure: Failure, line: int | None = None) -> dict[str, object]:
    """A failure among a batch's ``errors``."""
    return {"code": failure.code, "message": failure.message, "param": failure.param, "line": line}
