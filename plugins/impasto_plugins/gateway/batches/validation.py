"""Validates a whole input file before anything is spent: every invalid line, and the sums of the valid ones."""

from __future__ import annotations

from pathlib import Path

import attrs

from impasto.ext import close_files
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import price_nano_usd
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.errors import APIError

from .input_lines import InputLine, LineFiles, parse_line, prepare_line, read_lines

MAX_ERRORS = 100
"""Invalid lines that are reported."""


@attrs.define(kw_only=True)
class ValidationSummary:
    """The summary of an input; ``errors`` are errors in OpenAI's form."""

    lines: int = 0
    images: int = 0
    nano_usd: int = 0
    models: set[str] = attrs.field(factory=set[str])
    errors: list[dict[str, object]] = attrs.field(factory=list[dict[str, object]])
    _line_numbers: dict[str, int] = attrs.field(factory=dict[str, int])

    def add(self, line: InputLine, endpoint: str, runtime: Runtime, caller: Caller, files: LineFiles) -> None:
        """Add a line. Raises APIError if it can't be run."""
        if (other_line := self._line_numbers.setdefault(line.id, line.number)) != line.number:
            message = f"custom_id: is the same as in line {other_line} too"
            raise APIError(400, message, code="duplicate_custom_id", param="custom_id")
        model, calls = prepare_line(line, endpoint, runtime, caller, files)
        costs = []
        for prepared_call in calls.values():
            close_files(prepared_call.request.params)
            costs.append(price_nano_usd(prepared_call, caller.limits))
        n = next(iter(calls.values())).n
        self.images += n
        self.nano_usd += n * max(costs)
        self.models.add(model.name)


def validate_input(path: Path, endpoint: str, runtime: Runtime, caller: Caller, files: LineFiles) -> ValidationSummary:
    """Validate every line. Blocks. Raises APIError if the file as a whole can't be run."""
    summary, max_lines = ValidationSummary(), runtime.config.batches.max_requests
    for number, body in read_lines(path):
        summary.lines += 1
        if summary.lines > max_lines:
            raise APIError(400, f"an input file may have at most {max_lines:,} lines", code="too_many_requests")
        try:
            summary.add(parse_line(number, body, endpoint), endpoint, runtime, caller, files)
        except APIError as failure:
            summary.errors.append(error_payload(failure, number))
            if len(summary.errors) == MAX_ERRORS:
                return summary
    if not summary.lines:
        raise APIError(400, "the input file has no lines", code="empty_file")
    return summary


def error_payload(failure: APIError, line: int | None = None) -> dict[str, object]:
    """Return an entry of a batch's ``errors``."""
    return {"code": failure.code, "message": failure.message, "param": failure.param, "line": line}
