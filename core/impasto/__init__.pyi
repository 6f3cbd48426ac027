from impasto_plugins.batch import BatchOptions as BatchOptions, Outcome as Outcome, run_batch as run_batch
from impasto_plugins.batch.engines import ray as ray
from impasto_plugins.idempotent_calls import run_idempotent as run_idempotent
from impasto_plugins.openai_compat import (
    aimage_edit as aimage_edit,
    aimage_generation as aimage_generation,
    image_edit as image_edit,
    image_generation as image_generation,
)
from impasto_plugins.stability.account import StabilityAccount as StabilityAccount

from .call import Call as Call
from .client import Client as Client
from .costs import Cost as Cost, Usage as Usage
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
    JobFailed as JobFailed,
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
    Download as Download,
    EventOutcome as EventOutcome,
    FailedArtifact as FailedArtifact,
    Handler as Handler,
    Middleware as Middleware,
    Partial as Partial,
    Pending as Pending,
    Request as Request,
    Result as Result,
)
from .registry import Registry as Registry
from .route import Route as Route
from .server_events import ServerEvent as ServerEvent
from .sizes import (
    AspectRatios as AspectRatios,
    Sizes as Sizes,
    WidthHeight as WidthHeight,
)
from .wire import (
    Body as Body,
    FileRef as FileRef,
    JSONValue as JSONValue,
    Spool as Spool,
    WireRequest as WireRequest,
    WireResponse as WireResponse,
)

__version__: str
