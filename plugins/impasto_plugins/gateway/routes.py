"""The routes, each with and without ``/v1``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from urllib.parse import unquote

import attrs
from aiohttp import web

from .api import file_downloads, jobs, models
from .api.images import AUDIO, EDITS, GENERATIONS, MODELS_3D, VARIATIONS, create_images
from .batches import batches_api, files_api
from .batches.context import BatchRequestContext
from .errors import APIError

Endpoint = Callable[[BatchRequestContext], Awaitable[web.StreamResponse]]

_MAX_NAME_LENGTH = 300
_UNRESERVED = re.compile(r"%(?:2[DE]|3[0-9]|[46][1-9A-F]|[57][0-9A]|5F|7E)", re.IGNORECASE)
_DEPLOYMENT = re.compile(r"/v1/deployments/(.+)/(images/(?:generations|edits|variations))")


@attrs.frozen
class HTTPRoute:
    """A path as documented. One that ends in ``/`` is followed by a name.

    ``is_public``: it needs no key, because its names can't be guessed.
    """

    path: str
    methods: Mapping[str, Endpoint]
    is_public: bool = False


def method_not_allowed(methods: Iterable[str]) -> APIError:
    """Return the refusal of a method, with the allowed ones, and HEAD wherever GET is allowed."""
    methods_text = _with_head(methods)
    message = f"this path takes {methods_text}"
    return APIError(405, message, code="method_not_allowed", headers={"allow": methods_text}, close=True)


def options_response(path: str) -> web.Response:
    """Return the methods of a path, or of the whole gateway for ``*`` (RFC 9110, 9.3.7). Raises APIError.

    No key is needed: the methods are no secret.
    """
    methods = _ALL_METHODS if path == "*" else ["GET"] if path in UNVERSIONED else match_route(path)[0].methods
    return web.Response(status=204, headers={"allow": f"{_with_head(methods)}, OPTIONS"})


def _with_head(methods: Iterable[str]) -> str:
    return ", ".join(methods).replace("GET", "GET, HEAD")


ROUTES = {
    route.path: route
    for route in (
        HTTPRoute("/v1/images/generations", {"POST": partial(create_images, kind=GENERATIONS)}),
        HTTPRoute("/v1/images/edits", {"POST": partial(create_images, kind=EDITS)}),
        HTTPRoute("/v1/images/variations", {"POST": partial(create_images, kind=VARIATIONS)}),
        HTTPRoute("/v1/audio/generations", {"POST": partial(create_images, kind=AUDIO)}),
        HTTPRoute("/v1/3d/generations", {"POST": partial(create_images, kind=MODELS_3D)}),
        HTTPRoute("/v1/images/jobs/", {"GET": jobs.get_job}),
        HTTPRoute("/v1/images/files/", {"GET": file_downloads.download_file}, is_public=True),
        HTTPRoute("/v1/files", {"GET": files_api.list_files, "POST": files_api.upload_file}),
        HTTPRoute("/v1/files/", {"GET": files_api.get_file, "DELETE": files_api.delete_file}),
        HTTPRoute("/v1/batches", {"GET": batches_api.list_batches, "POST": batches_api.create_batch}),
        HTTPRoute("/v1/batches/", {"GET": batches_api.get_batch, "POST": batches_api.cancel_batch}),
        HTTPRoute("/v1/models", {"GET": models.list_models}),
        HTTPRoute("/v1/models/", {"GET": models.get_model}),
    )
}


_ALL_METHODS = sorted({method for route in ROUTES.values() for method in route.methods}, reverse=True)

UNVERSIONED = ("/health/liveliness", "/health/readiness", "/metrics")
"""Paths without ``/v1`` whose GET needs no body and changes nothing."""


def normalize_path(path: str) -> str:
    """Return the equal path without needless percent-encoding (RFC 3986, 6.2.2.2).

    An encoded ``/`` stays as it is: it belongs to a name, and separates nothing.
    """
    return _UNRESERVED.sub(lambda match: chr(int(match[0][1:], 16)), path)


def match_route(path: str) -> tuple[HTTPRoute, str]:
    """Return the route of a path, and the name in it. Raises APIError.

    Azure's clients put ``/openai`` before each path, and the model's name into those of images.
    """
    full_path = path.removeprefix("/openai") if path.startswith("/openai/") else path
    full_path = full_path if full_path.startswith("/v1/") else f"/v1{full_path}"
    if (match := _DEPLOYMENT.fullmatch(full_path)) is not None:
        return ROUTES[f"/v1/{match[2]}"], unquote(match[1][:_MAX_NAME_LENGTH])
    if (route := ROUTES.get(full_path)) is not None and not full_path.endswith("/"):
        return route, ""
    for prefix, route in ROUTES.items():
        if prefix.endswith("/") and full_path.startswith(prefix):
            return route, unquote(full_path[len(prefix) :][:_MAX_NAME_LENGTH])
    raise unknown_url()


def unknown_url() -> APIError:
    """Return the refusal of an unknown path."""
    return APIError(404, "unknown path; see the documentation of the gateway's paths", code="unknown_url", close=True)
