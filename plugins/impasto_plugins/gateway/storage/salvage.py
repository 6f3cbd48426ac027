"""What came of a call that was paid for and can't be used: it is kept for a day, and the error says where."""

from __future__ import annotations

import logging

from impasto import Artifact, ChargeUnknown, File, ImpastoError, UnusableResult

from .local import ANYTHING, Folder, NotKept

_log = logging.getLogger("impasto.gateway")


async def keep(folder: Folder, *errors: ImpastoError) -> None:
    """Keeps what these hold, and adds to their messages how it is had."""
    for each in (one for error in errors for one in (error, *error.errors)):
        if (content := _content(each)) is None:
            continue
        try:
            name = await folder.keep(Artifact(data=b"", media_type=content.media_type, file=content))
        except NotKept as error:
            _log.error("what was paid for and can't be used could not be kept: %s", error)
        else:
            each.message += f"; GET /v1/images/files/{name} has what came, for {folder.seconds / 3600:g} hours"


def _content(error: ImpastoError) -> File | None:
    """A paid answer, or the beginning of a picture that broke off: not a page that somebody's proxy wrote."""
    if not isinstance(error, ChargeUnknown | UnusableResult):
        return None
    content = error.file or File.of(error.raw)
    wanted = isinstance(error, UnusableResult) or content.media_type != ANYTHING
    return content if wanted and content.size else None
