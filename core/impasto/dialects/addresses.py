"""Jobs and images at addresses that an answer names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from impasto.costs import Cost, Usage
from impasto.errors import BrokenPlugin, ImpastoError, InvalidRequest, Problem, UnusableResult
from impasto.fanout import combined_error
from impasto.files import media_type_of
from impasto.provider import Account
from impasto.records import Download, FailedArtifact, Pending
from impasto.urls import LONGEST_URL
from impasto.wire import WireRequest, WireResponse

from .base64_text import decode_base64
from .refusals import unusable

_NO_ADDRESS = "_"
"""The place in an id of an image that has no address: the others keep theirs."""


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
    urls = [*enumerate(job.split(" "))]
    addresses = [each for each in urls if each[1] != _NO_ADDRESS] or urls  # an id without any is refused below
    polls = [(index, poll_of_job(url, account, form, anonymous=anonymous)) for index, url in addresses]
    return Pending(
        id=job,
        downloads=tuple(Download(request=poll, index=index) for index, poll in polls),
        errors=tuple(_without_address(index) for index, url in urls if url == _NO_ADDRESS),
    )


def _without_address(index: int) -> FailedArtifact:
    error = UnusableResult(f"image {index + 1} has no address: the answer to its request had it, or said why not")
    error.billed = "unknown"
    return FailedArtifact(index=index, error=error)


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
    """Return a Pending whose poll is a GET of a whole address in an answer. Raises UnusableResult without one.

    The route lets it lead to the provider's own hosts only. Without ``id`` the address is the job's id, see
    ``poll_of_job``; the error has ``id`` too, which may be resumed. ``anonymous``: without the key.
    """
    if not isinstance(url, str) or not url:
        error = unusable("has no address of the result", response)
        error.id = id
        raise error
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
    revised_prompts: Sequence[object] = (),
    result_ttl: float | None = None,
    cost: Cost | None = None,
    usage: Usage | None = None,
) -> Pending:
    """Return the end of a job whose images are fetched from their addresses, with GETs, side by side.

    Each of ``urls`` is the address of an image, its ``data:`` URI, or the error that stands for it, such as a
    ContentFiltered. ``seeds``, ``finish_reasons`` and ``revised_prompts`` are theirs, in the same order. Without ``id``
    the addresses are the job's id, see ``images_of_job``. ``anonymous``: without the key. Their hosts must be in
    ``Provider.hosts``, anonymous or not. If there is no address, the first error is raised, or UnusableResult.
    """
    downloads: list[Download] = []
    errors: list[FailedArtifact] = []
    addresses: list[str] = []
    for index, url in enumerate(urls):
        if isinstance(url, str) and url:
            answer = _answer_in(url)
            seed = seeds[index] if index < len(seeds) else None
            reason = finish_reasons[index] if index < len(finish_reasons) else None
            prompt = revised_prompts[index] if index < len(revised_prompts) else None
            download = Download(
                request=WireRequest(url=url if answer is None else None, method="GET", anonymous=anonymous),
                index=index,
                seed=seed if type(seed) is int else None,
                finish_reason=reason if isinstance(reason, str) else None,
                revised_prompt=prompt if isinstance(prompt, str) else None,
                response=answer,
            )
            downloads.append(download)
            addresses.append(download.request.url or _NO_ADDRESS)
        else:
            error = url if isinstance(url, ImpastoError) else unusable(f"has no address of image {index + 1}", response)
            errors.append(FailedArtifact(index=index, error=error))
            addresses.append(_NO_ADDRESS)
    if not downloads:
        raise combined_error([each.error for each in errors]) if errors else unusable("has no address", response)
    return Pending(
        id=id or (" ".join(addresses) if {*addresses} != {_NO_ADDRESS} else "data:"),
        downloads=tuple(downloads),
        errors=tuple(errors),
        result_ttl=result_ttl,
        cost=cost,
        usage=usage,
    )


def _answer_in(url: str) -> WireResponse | None:
    """Return the answer that a ``data:`` URI holds, empty if it is damaged; None for an address."""
    if url[:5].lower() != "data:":
        return None
    try:
        body = decode_base64(url)
    except ValueError:
        body = b""
    stated = re.match(r"[\w.+-]+/[\w.+-]+", url[5:200])
    media_type = stated[0] if stated is not None else media_type_of(body[:16]) or ""
    return WireResponse(status=200, headers={"content-type": media_type}, body=body)
