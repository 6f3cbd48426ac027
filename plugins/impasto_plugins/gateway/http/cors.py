"""Cross-origin resource sharing: the web pages that may call the gateway from a browser and read its responses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from aiohttp import web

_EXPOSED_HEADERS = (
    *("x-request-id", "x-impasto-cost-usd", "x-impasto-warnings", "x-should-retry", "retry-after"),
    *("location", "preference-applied", "idempotent-replayed"),
)
"""Response headers that a page's script may read."""

_ALLOWED_HEADERS = (
    *("authorization", "api-key", "x-api-key", "content-type", "accept", "idempotency-key", "prefer"),
    *("openai-organization", "openai-project", "openai-beta", "user-agent", "x-requested-with", "cache-control"),
    *("traceparent", "tracestate", "baggage", "http-referer", "x-title"),
    *(f"x-stainless-{name}" for name in ("arch", "async", "helper-method", "lang", "os", "package-version")),
    *(f"x-stainless-{name}" for name in ("retry-count", "runtime", "runtime-version", "timeout")),
)
"""Request headers that a page's script may set, as OpenAI's SDKs and usual clients do."""

_SDK_HEADER = "x-stainless-"
_PREFLIGHT_SECONDS = "7200"
"""Seconds for which a browser may remember the answer to a preflight: the most that browsers accept."""


def is_allowed(request: web.BaseRequest, origins: Collection[str]) -> bool:
    """Return True if a request comes from a page of one of these origins."""
    return request.headers.get("origin") in origins


def headers_for(request: web.BaseRequest, origins: Collection[str]) -> Mapping[str, str]:
    """Return the headers that every answer needs if there are origins: an error too, or its page can't show it."""
    if not origins:
        return {}
    if not is_allowed(request, origins):
        return {"vary": "Origin"}
    return {
        "vary": "Origin",
        "access-control-allow-origin": request.headers["origin"],
        "access-control-expose-headers": ", ".join(_EXPOSED_HEADERS),
    }


def is_preflight(request: web.BaseRequest) -> bool:
    """Return True for a browser's preflight request on behalf of a page."""
    return (
        request.method == "OPTIONS"
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )


def preflight_response(request: web.BaseRequest, methods: Iterable[str]) -> web.Response:
    """Return the answer to the preflight of an allowed origin."""
    header_names = request.headers.get("access-control-request-headers", "").lower().split(",")
    sdk_headers = {name for each in header_names if (name := each.strip()).startswith(_SDK_HEADER) and _is_token(name)}
    return web.Response(
        status=204,
        headers={
            "access-control-allow-methods": ", ".join(methods),
            "access-control-allow-headers": ", ".join(
                (*_ALLOWED_HEADERS, *sorted(sdk_headers.difference(_ALLOWED_HEADERS)))
            ),
            "access-control-max-age": _PREFLIGHT_SECONDS,
        },
    )


def is_foreign(request: web.BaseRequest) -> bool:
    """Return True if a request comes from a page that this gateway did not serve itself."""
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


def _is_token(name: str) -> bool:
    return len(name) <= 100 and name.replace("-", "").isalnum() and name.isascii()
