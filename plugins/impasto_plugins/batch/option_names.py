"""Options in the messages of a batch: they have the names of `batch run`, and other entrances have others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from impasto import BatchStopped, ConfigError, StorageError

ARGUMENTS = {
    "--out": "out",
    "--staging": "staging",
    "--s3-endpoint": "s3_endpoint",
    "--join": "join=True",
    "--share": "share",
    "--state": "state",
    "--budget": "budget_usd",
    "--max-failures": "max_failures",
    "--start-over": "start_over=True",
    "--retry-failed": "retry_failed=True",
    "--retry-ambiguous": "retry_ambiguous=True",
}
"""Their names in a program."""


@contextmanager
def options_as(names: Mapping[str, str]) -> Iterator[None]:
    """Let the errors of a block have these names of options."""
    try:
        yield
    except (ConfigError, BatchStopped, StorageError) as error:
        pattern = rf"(?:{'|'.join(names)})\b"
        error.message = re.sub(pattern, lambda found: names[found[0]], error.message)
        raise
