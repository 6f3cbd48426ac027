"""Paid answers that can't be used: stored for a day, with their place in the error."""

from __future__ import annotations

import logging

from impasto import Artifact, ChargeUnknown, File, ImpastoError, UnusableResult

from .local import UNKNOWN_TYPE, LocalStore, StoreError

_log = logging.getLogger("impasto.gateway")


async def save_unusable(store: LocalStore, *errors: ImpastoError) -> None:
    """Store the bytes of these errors, and add their place to the messages."""
    for each in (one for error in errors for one in (error, *error.errors)):
        if (content := _content(each)) is None:
            continue
        try:
            name = await store.save(Artifact(data=b"", media_type=content.media_type, file=content))
        except StoreError as error:
            _log.error("what was paid for and can't be used could not be kept: %s", error)
        else:
            each.message += f"; GET /v1/images/files/{name} has what came, for {store.seconds / 3600:g} hours"


def _content(error: ImpastoError) -> File | None:
    """Return a paid answer, or the beginning of an image that broke off, but no proxy's page."""
    if not isinstance(error, ChargeUnknown | UnusableResult):
        return None
    content = error.file or File.of(error.raw)
    is_salvageable = isinstance(error, UnusableResult) or content.media_type != UNKNOWN_TYPE
    return content if is_salvageable and content.size else None
