"""``impasto batch status``: the status of a local batch, or of one that several hosts share."""

from __future__ import annotations

from collections.abc import Iterable

from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.batch.output.s3 import local_folder, target_of
from impasto_plugins.batch.output.status import BatchStatus, missing_images, read_status


def find_status(text: str, endpoint: str | None) -> tuple[BatchStatus, Iterable[str]]:
    """Return the status of the batch with this name, and lines about missing images. Raises ConfigError."""
    target, layout = target_of(text, None, endpoint), WorkspacePaths(local_folder(text))
    if target is None or layout.ledger.exists():
        status, history = read_status(layout)
        if target is None or not history.hosts:
            return status, missing_images(history)
    from impasto_plugins.batch.shared.status import read_shared_status  # aiobotocore: only for those who need it

    return read_shared_status(target), ()
