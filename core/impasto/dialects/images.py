"""Images in a paid answer: in base64, or as its body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from impasto.errors import ImpastoError, UnusableResult
from impasto.fanout import combined_error
from impasto.files import File, media_type_of
from impasto.records import MAX_ARTIFACTS, Artifact, FailedArtifact, Result
from impasto.wire import WireResponse

from .base64_text import decode_base64
from .refusals import unusable


def images_from_base64(
    texts: Iterable[object],
    response: WireResponse,
    is_complete: Callable[[bytes, str], bool],
    media_types: Collection[str] = (),
    seeds: Sequence[object] = (),
    *,
    revised_prompts: Sequence[object] = (),
) -> Result:
    """Return the images of a paid answer, each a base64 text. A damaged one drops no other: it is in ``errors``.

    Each of ``texts`` may be the error that stands for an image, such as a ContentFiltered. ``seeds`` and
    ``revised_prompts`` are theirs, in the same order; what is not a whole number, or text, is passed over.
    ``is_complete(data, media_type)`` returns False for an image that is cut short. Those of ``media_types``, which are
    the operation's, are passed on without it. Raises the first given error if there is no image, or UnusableResult.
    """
    artifacts: list[Artifact] = []
    errors: list[FailedArtifact] = []
    for index, text in enumerate(texts):
        if index == MAX_ARTIFACTS:  # a megabyte may list a hundred thousand, each of them an error
            raise unusable(f"has more than {MAX_ARTIFACTS} images", response)
        if isinstance(text, ImpastoError):
            errors.append(FailedArtifact(index=index, error=text))
            continue
        try:
            data = decode_base64(text) if isinstance(text, str) else b""
        except ValueError:
            data = b""
        media_type = _media_type(data, None, media_types)
        if media_type is not None and (media_type in media_types or is_complete(data, media_type)):
            seed = seeds[index] if index < len(seeds) else None
            prompt = revised_prompts[index] if index < len(revised_prompts) else None
            artifact = Artifact(
                data=data,
                media_type=media_type,
                seed=seed if type(seed) is int else None,
                revised_prompt=prompt if isinstance(prompt, str) else None,
            )
            artifacts.append(artifact)
        else:
            errors.append(FailedArtifact(index=index, error=unusable(f"has no complete image {index + 1}", response)))
    if not artifacts:
        reasons = [each.error for each in errors if not isinstance(each.error, UnusableResult)]
        raise combined_error(reasons) if reasons else unusable("has no complete image", response)
    return Result(artifacts=tuple(artifacts), errors=tuple(errors), request_id=response.request_id)


def _media_type(data: bytes | File, stated: str | None, declared: Collection[str]) -> str | None:
    """Return the media type that the content shows, or else the stated one, or the only one, if it is declared."""
    found = media_type_of(data[:16]) if isinstance(data, bytes) else data.media_type
    if found in (None, "application/octet-stream") and data and (stated in declared or len(declared) == 1):
        return stated if stated in declared else next(iter(declared))
    return found


def image_in_body(
    response: WireResponse, is_complete: Callable[[bytes | File, str], bool], media_types: Collection[str] = ()
) -> Result:
    """Return the image that an answer's body is. ``media_types``: as above. Raises UnusableResult."""
    data = response.body if response.file is None else response.file
    media_type = _media_type(data, response.media_type, media_types)
    if media_type is None or not (media_type in media_types or is_complete(data, media_type)):
        raise unusable("has no complete image", response)
    artifact = Artifact(data=response.body, file=response.file, media_type=media_type)
    return Result(artifacts=(artifact,), request_id=response.request_id)
