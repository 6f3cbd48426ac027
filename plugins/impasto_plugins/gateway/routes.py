"""The paths that are served, each with and without ``/v1``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from urllib.parse import unquote

import attrs
from aiohttp import web

from .api import file_downloads, jobs, models
from .api.images import EDITS, GENERATIONS, MODELS_3D, SOUNDS, VARIATIONS, images
from .batches import batches_api, files_api
from .batches.context import BatchExchange
from .errors import Failure

Endpoint = Callable[[BatchExchange], Awaitable[web.StreamResponse]]

_LONGEST_TAIL = 300
_DEPLOYMENT = re.compile(r"/v1/deployments/(.+)/(images/(?:generations|edits|variations))")


@attrs.frozen
class Route:
    """A path as it is documented. One that ends in ``/`` is followed by a name.

    ``open``: it needs no key, as what it serves has names that nobody guesses.
    """

    path: str
    methods: Mapping[str, Endpoint]
    open: bool = False

    def endpoint(self, method: str) -> Endpoint:
        """What a method does here. Raises Failure."""
        if (endpoint := self.methods.get("GET" if method == "HEAD" else method)) is None:
            raise not_allowed(self.methods)
        return endpoint


def not_allowed(methods: Iterable[str]) -> Failure:
    """The refusal of a method where these are taken, and HEAD wherever GET is."""
    allowed = _with_head(methods)
    said = f"this path takes {allowed}"
    return Failure(405, said, code="method_not_allowed", headers={"allow": allowed}, close=True)


def options_response(path: str) -> web.Response:
    """Return the methods that a path takes, or those of the whole gateway for ``*`` (RFC 9110, 9.3.7). Raises Failure.

    Whoever asks for them needs no key: they are no secret.
    """
    methods = _ALL_METHODS if path == "*" else ["GET"] if path in UNVERSIONED else routed(path)[0].methods
    return web.Response(status=204, headers={"allow": f"{_with_head(methods)}, OPTIONS"})


def _with_head(methods: Iterable[str]) -> str:
    return ", ".join(methods).replace("GET", "GET, HEAD")


ROUTES = {
    route.path: route
    for route in (
        Route("/v1/images/generations", {"POST": partial(images, kind=GENERATIONS)}),
        Route("/v1/images/edits", {"POST": partial(images, kind=EDITS)}),
        Route("/v1/images/variations", {"POST": partial(images, kind=VARIATIONS)}),
        Route("/v1/audio/generations", {"POST": partial(images, kind=SOUNDS)}),
        Route("/v1/3d/generations", {"POST": partial(images, kind=MODELS_3D)}),
        Route("/v1/images/jobs/", {"GET": jobs.job}),
        Route("/v1/images/files/", {"GET": file_downloads.file}, open=True),
        Route("/v1/files", {"GET": files_api.files, "POST": files_api.upload}),
        Route("/v1/files/", {"GET": files_api.file, "DELETE": files_api.delete}),
        Route("/v1/batches", {"GET": batches_api.batches, "POST": batches_api.create}),
        Route("/v1/batches/", {"GET": batches_api.batch, "POST": batches_api.cancel}),
        Route("/v1/models", {"GET": models.models}),
        Route("/v1/models/", {"GET": models.model}),
    )
}


_ALL_METHODS = sorted({method for route in ROUTES.values() for method in route.methods}, reverse=True)

UNVERSIONED = ("/health/liveliness", "/health/readiness", "/metrics")
"""Paths without ``/v1``, of which a GET needs no body and makes nothing."""


def routed(path: str) -> tuple[Route, str]:
    """Return the route of a path, and the name in it. Raises Failure.

    Clients of Azure put ``/openai`` before each path, and the model's name into those of images.
    """
    whole = path.removeprefix("/openai") if path.startswith("/openai/") else path
    whole = whole if whole.startswith("/v1/") else f"/v1{whole}"
    if (found := _DEPLOYMENT.fullmatch(whole)) is not None:
        return ROUTES[f"/v1/{found[2]}"], unquote(found[1][:_LONGEST_TAIL])
    if (route := ROUTES.get(whole)) is not None and not whole.endswith("/"):
        return route, ""
    for start, route in ROUTES.items():
        if start.endswith("/") and whole.startswith(start):
            return route, unquote(whole[len(start) :][:_LONGEST_TAIL])
    raise unknown()


def unknown() -> Failure:
    """The refusal of a path that is none."""
    return Failure(404, "there is no such path; see GET /v1/models", code="unknown_url", close=True)
