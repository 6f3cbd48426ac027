"""The paths that are served, each with and without ``/v1``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from urllib.parse import unquote

import attrs
from aiohttp import web

from . import jobs, listing, served
from .batches import endpoints, uploads
from .errors import Failure
from .exchange import Exchange
from .images import EDITS, GENERATIONS, MODELS_3D, SOUNDS, VARIATIONS, images

Endpoint = Callable[[Exchange], Awaitable[web.StreamResponse]]

_LONGEST_TAIL = 300


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
    allowed = ", ".join(methods).replace("GET", "GET, HEAD")
    said = f"this path takes {allowed}"
    return Failure(405, said, code="method_not_allowed", headers={"allow": allowed}, close=True)


ROUTES = {
    route.path: route
    for route in (
        Route("/v1/images/generations", {"POST": partial(images, kind=GENERATIONS)}),
        Route("/v1/images/edits", {"POST": partial(images, kind=EDITS)}),
        Route("/v1/images/variations", {"POST": partial(images, kind=VARIATIONS)}),
        Route("/v1/audio/generations", {"POST": partial(images, kind=SOUNDS)}),
        Route("/v1/3d/generations", {"POST": partial(images, kind=MODELS_3D)}),
        Route("/v1/images/jobs/", {"GET": jobs.job}),
        Route("/v1/images/files/", {"GET": served.file}, open=True),
        Route("/v1/files", {"GET": uploads.files, "POST": uploads.upload}),
        Route("/v1/files/", {"GET": uploads.file, "DELETE": uploads.delete}),
        Route("/v1/batches", {"GET": endpoints.batches, "POST": endpoints.create}),
        Route("/v1/batches/", {"GET": endpoints.batch, "POST": endpoints.cancel}),
        Route("/v1/models", {"GET": listing.models}),
        Route("/v1/models/", {"GET": listing.model}),
    )
}


def routed(path: str) -> tuple[Route, str]:
    """The route of a path, and the name at its end. Raises Failure."""
    whole = path if path.startswith("/v1/") else f"/v1{path}"
    if (route := ROUTES.get(whole)) is not None and not whole.endswith("/"):
        return route, ""
    for start, route in ROUTES.items():
        if start.endswith("/") and whole.startswith(start):
            return route, unquote(whole[len(start) :][:_LONGEST_TAIL])
    raise unknown()


def unknown() -> Failure:
    """The refusal of a path that is none."""
    return Failure(404, "there is no such path; see GET /v1/models", code="unknown_url", close=True)
