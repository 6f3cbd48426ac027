"""impasto: an async framework for image providers. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impasto_plugins.batch import BatchOptions as BatchOptions, Outcome as Outcome, run_batch as run_batch
    from impasto_plugins.openai_compat import (
        aimage_edit as aimage_edit,
        aimage_generation as aimage_generation,
        image_edit as image_edit,
        image_generation as image_generation,
    )
    from impasto_plugins.stability.account import StabilityAccount as StabilityAccount

    from .call import Call as Call
    from .client import Client as Client
    from .describe import Description as Description
    from .errors import (
        BadRequest as BadRequest,
        BatchStopped as BatchStopped,
        BrokenPlugin as BrokenPlugin,
        ChargeUnknown as ChargeUnknown,
        ClientClosedError as ClientClosedError,
        ConfigError as ConfigError,
        ContentFiltered as ContentFiltered,
        DuplicateOperation as DuplicateOperation,
        ImpastoError as ImpastoError,
        InvalidRequest as InvalidRequest,
        LoopMismatchError as LoopMismatchError,
        ManifestError as ManifestError,
        MissingExtra as MissingExtra,
        NotAllowed as NotAllowed,
        NotFound as NotFound,
        NotSent as NotSent,
        PaymentRequired as PaymentRequired,
        PermissionDenied as PermissionDenied,
        PollExpired as PollExpired,
        Problem as Problem,
        ProviderFault as ProviderFault,
        RateLimited as RateLimited,
        RegistryError as RegistryError,
        ResponseError as ResponseError,
        SpendLimitExceeded as SpendLimitExceeded,
        StorageError as StorageError,
        TooLarge as TooLarge,
        TransportError as TransportError,
        Unauthorized as Unauthorized,
        UnknownOperation as UnknownOperation,
        Unprocessable as Unprocessable,
        UnusableResult as UnusableResult,
    )
    from .files import File as File
    from .hooks import (
        Specs as Specs,
        hookimpl as hookimpl,
        hookspec as hookspec,
    )
    from .operation import (
        Dialect as Dialect,
        FlatPrice as FlatPrice,
        Operation as Operation,
        Price as Price,
    )
    from .policy import (
        RateLimit as RateLimit,
        Retry as Retry,
    )
    from .provider import (
        Account as Account,
        Provider as Provider,
    )
    from .records import (
        Artifact as Artifact,
        Body as Body,
        Cost as Cost,
        FailedArtifact as FailedArtifact,
        Handler as Handler,
        Middleware as Middleware,
        Pending as Pending,
        Request as Request,
        Result as Result,
        Spool as Spool,
        WireRequest as WireRequest,
        WireResponse as WireResponse,
    )
    from .registry import Registry as Registry
    from .route import Route as Route

_HOMES = {
    "call": "Call",
    "client": "Client",
    "describe": "Description",
    "errors": "BadRequest BatchStopped BrokenPlugin ChargeUnknown ClientClosedError ConfigError ContentFiltered "
    "DuplicateOperation ImpastoError InvalidRequest LoopMismatchError ManifestError MissingExtra NotAllowed NotFound "
    "NotSent PaymentRequired PermissionDenied PollExpired Problem ProviderFault RateLimited RegistryError "
    "ResponseError SpendLimitExceeded StorageError TooLarge TransportError Unauthorized UnknownOperation Unprocessable "
    "UnusableResult",
    "files": "File",
    "hooks": "Specs hookimpl hookspec",
    "operation": "Dialect FlatPrice Operation Price",
    "policy": "RateLimit Retry",
    "provider": "Account Provider",
    "records": "Artifact Body Cost FailedArtifact Handler Middleware Pending Request Result Spool WireRequest "
    "WireResponse",
    "registry": "Registry",
    "route": "Route",
}
_HOME_OF = {name: f"impasto.{module}" for module, names in _HOMES.items() for name in names.split()}
_HOME_OF |= dict.fromkeys(
    ("image_generation", "aimage_generation", "image_edit", "aimage_edit"), "impasto_plugins.openai_compat"
)
_HOME_OF |= dict.fromkeys(("BatchOptions", "Outcome", "run_batch"), "impasto_plugins.batch")
_HOME_OF["StabilityAccount"] = "impasto_plugins.stability.account"

__version__ = "0.1.0"
__all__ = list(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]  # the names are those above


if not TYPE_CHECKING:  # type checkers have the names above, and tell a misspelt one

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'impasto' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
