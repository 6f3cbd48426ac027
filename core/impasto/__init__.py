"""impasto: an async framework for image providers. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "call": "Call",
    "client": "Client",
    "describe": "Description",
    "errors": "BadRequest BatchStopped BrokenPlugin ChargeUnknown ClientClosedError ConfigError ContentFiltered "
    "DuplicateOperation ImpastoError InvalidRequest JobFailed LoopMismatchError ManifestError MissingExtra "
    "NotAllowed NotFound NotSent PaymentRequired PermissionDenied PollExpired Problem ProviderFault "
    "RateLimited RegistryError ResponseError SpendLimitExceeded StorageError TooLarge TransportError "
    "Unauthorized UnknownOperation Unprocessable UnusableResult",
    "files": "File",
    "hooks": "Specs hookimpl hookspec",
    "operation": "Dialect FlatPrice Operation Price",
    "policy": "RateLimit Retry",
    "provider": "Account Provider",
    "costs": "Cost Usage",
    "records": "Artifact Download EventOutcome FailedArtifact Handler Middleware Partial Pending Request Result",
    "registry": "Registry",
    "route": "Route",
    "server_events": "ServerEvent",
    "sizes": "AspectRatios Sizes WidthHeight",
    "wire": "Body FileRef JSONValue Spool WireRequest WireResponse",
}
_HOME_OF = {name: f"impasto.{module}" for module, names in _HOMES.items() for name in names.split()}
__version__ = "0.1.0"
__all__ = list(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]  # type checkers read the stub


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name.startswith("_"):  # as Python itself asks for them, without meaning a plugin's
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    else:
        value = _load_export(name)
    globals()[name] = value
    return value


def _load_export(name: str) -> object:
    """Return what a plugin adds to this package, by its entry point in the group ``impasto.exports``."""
    from .errors import UnknownOperation
    from .registry import EXPORTS, Registry

    try:
        return Registry().load(EXPORTS, name, object)
    except UnknownOperation:
        raise AttributeError(
            f"module 'impasto' has no attribute {name!r}, and no installed plugin adds it. If it is new in this"
            " version, the installed metadata is older than the code: install impasto again"
        ) from None


def __dir__() -> list[str]:
    from .distributions import scan_entry_points
    from .registry import EXPORTS

    return sorted({*globals(), *__all__, *scan_entry_points().declarations.get(EXPORTS, ())})
