"""Helpers for authors of providers, made of public records only. A plugin that uses none of them is as good."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

import attrs

from .costs import Cost, Usage
from .errors import BrokenPlugin, ImpastoError, InvalidRequest, Problem, UnusableResult
from .fanout import combined_error
from .files import File, media_type_of
from .operation import Operation
from .provider import Account
from .records import MAX_ARTIFACTS, Artifact, Download, FailedArtifact, Pending, Result
from .refusals import INVALID, STATUSES, Advice, Place, Refusals, charge_unknown, parse_json, unusable
from .tokens import Token, TokenCache
from .urls import LONGEST_URL
from .usage import TokenPrice, usage_by_modality, usage_in
from .wire import FileRef, JSONValue, WireRequest, WireResponse

__all__ = [
    "DATA_URI",
    "STATUSES",
    "Advice",
    "Place",
    "Refusals",
    "Token",
    "TokenCache",
    "TokenPrice",
    "charge_unknown",
    "decode_base64",
    "image_in_body",
    "images_from_base64",
    "images_from_urls",
    "images_of_job",
    "json_object",
    "pending_from_url",
    "poll_of_job",
    "split_files",
    "to_json",
    "unusable",
    "usage_by_modality",
    "usage_in",
]


def json_object(response: WireResponse) -> Mapping[str, object]:
    """Return the JSON object of a paid answer. Raises UnusableResult."""
    body = parse_json(response.body)
    if not isinstance(body, dict):
        raise unusable("is invalid JSON" if body is INVALID else "is JSON, but not an object", response)
    return body


_SCALARS = (str, int, float)  # a union would be made again for each value: benchmark `dispatch`


def split_files(
    operation: Operation, params: attrs.AttrsInstance, wire_names: Mapping[str, str] | None = None
) -> tuple[dict[str, JSONValue], list[tuple[str, File]]]:
    """Return the fields that the caller gave, and apart from them the files; several of one field repeat its name.

    A nested object becomes one of JSON, in which its files stand as base64. ``wire_names``: names on the wire that
    differ from the parameters'.
    """
    fields: dict[str, JSONValue] = {}
    files: list[tuple[str, File]] = []
    for name in operation.fields:
        value = getattr(params, name)
        if value is None:  # most are
            continue
        wire_name = wire_names.get(name, name) if wire_names is not None else name
        if isinstance(value, _SCALARS):
            fields[wire_name] = value
        elif isinstance(value, File):
            files.append((wire_name, value))
        elif isinstance(value, tuple) and value and all(isinstance(each, File) for each in value):
            files += [(wire_name, each) for each in value]
        else:
            fields[wire_name] = to_json(value)
    return fields, files


def params_to_json(params: attrs.AttrsInstance) -> dict[str, JSONValue]:
    """Return parameters as an object of JSON, without what was not given; a file is its FileRef."""
    names = [each.name for each in attrs.fields(type(params))]
    return {name: to_json(each) for name in names if (each := getattr(params, name)) is not None}


def to_json(value: object) -> JSONValue:
    """Return the value of a parameter as a value of JSON, also of a list or a nested object."""
    if isinstance(value, File):
        return FileRef(value)
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if attrs.has(type(value)):
        return params_to_json(cast(attrs.AttrsInstance, value))
    return cast(JSONValue, value)


def images_from_base64(
    texts: Iterable[object],
    response: WireResponse,
    is_complete: Callable[[bytes, str], bool],
    media_types: Collection[str] = (),
    seeds: Sequence[object] = (),
) -> Result:
    """Return the images of a paid answer, each a base64 text. A damaged one drops no other: it is in ``errors``.

    Each of ``texts`` may be the error that stands for an image, such as a ContentFiltered. ``seeds`` are theirs, in the
    same order; what is not a whole number is passed over.
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
            artifacts.append(Artifact(data=data, media_type=media_type, seed=seed if type(seed) is int else None))
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


def poll_of_job(job: str, account: Account, form: re.Pattern[str], *, anonymous: bool = False) -> WireRequest:
    """Return the poll of a job whose id is the address of its polls, as a caller gives it.

    Raises InvalidRequest if it has another form, or leads to another host than the provider's own.
    """
    try:
        if len(job) <= LONGEST_URL and form.fullmatch(job) is not None:
            return WireRequest(url=account.check_url(job), method="GET", anonymous=anonymous)
    except BrokenPlugin:
        pass  # the caller's fault here
    raise InvalidRequest([Problem("id", f"must be the address of a job, as {account.provider.name} answered it")])


def images_of_job(job: str, account: Account, form: re.Pattern[str], *, anonymous: bool = False) -> Pending:
    """Return the end of a job whose id is the addresses of its images, see ``images_from_urls``.

    ``transform_request`` may return it in place of a poll. Raises InvalidRequest as ``poll_of_job`` does.
    """
    polls = [poll_of_job(url, account, form, anonymous=anonymous) for url in job.split(" ")]
    return Pending(id=job, downloads=tuple(Download(request=poll, index=i) for i, poll in enumerate(polls)))


def pending_from_url(
    url: object,
    response: WireResponse,
    *,
    id: str | None = None,
    anonymous: bool = False,
    result_ttl: float | None = None,
    is_ready: bool = False,
    cancel: WireRequest | None = None,
    cost: Cost | None = None,
) -> Pending:
    """Return a Pending whose poll is a GET of a whole address in an answer. Raises UnusableResult if it is no text.

    The route lets it lead to the provider's own hosts only. Without ``id`` the address is the job's id, see
    ``poll_of_job``. ``anonymous``: without the key.
    """
    if not isinstance(url, str) or not url:
        raise unusable("has no address of the result", response)
    poll = WireRequest(url=url, method="GET", anonymous=anonymous)
    return Pending(id=id or url, poll=poll, result_ttl=result_ttl, is_ready=is_ready, cancel=cancel, cost=cost)


def images_from_urls(
    urls: Iterable[object],
    response: WireResponse,
    *,
    id: str | None = None,
    anonymous: bool = False,
    seeds: Sequence[object] = (),
    finish_reasons: Sequence[object] = (),
    result_ttl: float | None = None,
    cost: Cost | None = None,
    usage: Usage | None = None,
) -> Pending:
    """Return the end of a job whose images are fetched from their addresses, with GETs, side by side.

    Each of ``urls`` is the address of an image, or the error that stands for it, such as a ContentFiltered. ``seeds``
    and ``finish_reasons`` are theirs, in the same order. Without ``id`` the addresses are the job's id, see
    ``images_of_job``. ``anonymous``: without the key. Their hosts must be in ``Provider.hosts``, anonymous or not. If
    there is no address, the first error is raised, or UnusableResult.
    """
    downloads: list[Download] = []
    errors: list[FailedArtifact] = []
    for index, url in enumerate(urls):
        if isinstance(url, str) and url:
            seed = seeds[index] if index < len(seeds) else None
            reason = finish_reasons[index] if index < len(finish_reasons) else None
            download = Download(
                request=WireRequest(url=url, method="GET", anonymous=anonymous),
                index=index,
                seed=seed if type(seed) is int else None,
                finish_reason=reason if isinstance(reason, str) else None,
            )
            downloads.append(download)
        else:
            error = url if isinstance(url, ImpastoError) else unusable(f"has no address of image {index + 1}", response)
            errors.append(FailedArtifact(index=index, error=error))
    if not downloads:
        raise combined_error([each.error for each in errors]) if errors else unusable("has no address", response)
    return Pending(
        id=id or " ".join(each.request.url or "" for each in downloads),
        downloads=tuple(downloads),
        errors=tuple(errors),
        result_ttl=result_ttl,
        cost=cost,
        usage=usage,
    )


DATA_URI = re.compile(rb"data:[^,\"]{0,200},", re.IGNORECASE)
"""The beginning of a ``data:`` URI. Its media type is ignored: the content has its own."""

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 of either alphabet, also in a ``data:`` URI, with line breaks in it, or without its padding.

    Raises:
        ValueError: bytes are missing or damaged.
    """
    data = text.encode("ascii")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        pass
    data = data.strip()
    if (prefix := DATA_URI.match(data)) is not None:
        data = data[prefix.end() :]
    if b"%" in data:
        from urllib.parse import unquote_to_bytes  # only for URIs that quote + and =

        data = unquote_to_bytes(data)
    data = b"".join(data.split()).translate(_TO_STANDARD).rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
