from .advice import without_python_advice as without_python_advice
from .call import JOB_CANCELLED as JOB_CANCELLED, Sending as Sending
from .charges import (
    billed_of_failures as billed_of_failures,
    billed_of_images as billed_of_images,
    cost_of_failure as cost_of_failure,
    is_not_charged as is_not_charged,
)
from .client_state import Transport as Transport, shared_state as shared_state
from .describe import Description as Description, describe as describe
from .distributions import (
    OWN_DISTRIBUTION as OWN_DISTRIBUTION,
    VARIABLE as VARIABLE,
    AllowList as AllowList,
    normalized_name as normalized_name,
    scan_entry_points as scan_entry_points,
)
from .errors import (
    MAX_PROBLEMS as MAX_PROBLEMS,
    Billed as Billed,
    StopReason as StopReason,
)
from .fanout import (
    MAX_N as MAX_N,
    check_n as check_n,
    combine_results as combine_results,
    combined_error as combined_error,
    requests_with_seeds as requests_with_seeds,
    result_of_cancelled as result_of_cancelled,
)
from .field_checks import field_at as field_at
from .files import (
    EXTENSIONS as EXTENSIONS,
    Positioned as Positioned,
    media_type_of as media_type_of,
    stat_regular as stat_regular,
)
from .free_requests import ask as ask
from .interrupts import finish as finish, pass_interrupt as pass_interrupt
from .leases import (
    LEASE_SECONDS as LEASE_SECONDS,
    RENEW_SECONDS as RENEW_SECONDS,
    WorkerEnded as WorkerEnded,
    WorkerLease as WorkerLease,
)
from .metadata import Distribution as Distribution, read_folders as read_folders
from .model_names import resolve_model as resolve_model
from .operation import Makes as Makes
from .options import (
    Options as Options,
    Settings as Settings,
    check_proxy as check_proxy,
    check_seconds as check_seconds,
    default_concurrency as default_concurrency,
    machine_folder as machine_folder,
)
from .params import (
    close_files as close_files,
    convert_files as convert_files,
    files_of as files_of,
    structure as structure,
)
from .provider import (
    account_of as account_of,
    check_key as check_key,
    check_setting_names as check_setting_names,
)
from .records import MAX_ARTIFACTS as MAX_ARTIFACTS
from .redact import (
    describe_error as describe_error,
    kind_in_words as kind_in_words,
    printable as printable,
    redact as redact,
)
from .registry import (
    COMMANDS as COMMANDS,
    EMULATORS as EMULATORS,
    GROUPS as GROUPS,
    MIDDLEWARE as MIDDLEWARE,
    OPERATIONS as OPERATIONS,
    PROVIDERS as PROVIDERS,
    STATES as STATES,
    TRANSPORTS as TRANSPORTS,
    is_pattern as is_pattern,
)
from .replicas import (
    CallInFlight as CallInFlight,
    Rates as Rates,
    ReplicaStore as ReplicaStore,
    Workers as Workers,
)
from .retry_after import retry_after as retry_after
from .state_records import (
    CALLER_WAITS as CALLER_WAITS,
    LimitReached as LimitReached,
    ObjectsFull as ObjectsFull,
    Period as Period,
    Reservation as Reservation,
    StateAway as StateAway,
    StateError as StateError,
    StateReport as StateReport,
    StoredCall as StoredCall,
    StoredObject as StoredObject,
    Use as Use,
)
from .states import (
    RESULTS as RESULTS,
    Budgets as Budgets,
    CallRecords as CallRecords,
    ObjectRecords as ObjectRecords,
    StateStore as StateStore,
    check_store as check_store,
    open_store as open_store,
    state_of as state_of,
)
from .streaming import stream_call as stream_call
from .suggestions import closest as closest
from .urls import check_base_url as check_base_url, is_loopback as is_loopback
from .wire import Scalar as Scalar
