"""The one door for plugins: helpers of the core that they may use. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "advice": "without_python_advice",
    "call": "JOB_CANCELLED Sending",
    "charges": "billed_of_failures billed_of_images cost_of_failure is_not_charged",
    "client_state": "Transport shared_state",
    "describe": "Description describe",
    "distributions": "OWN_DISTRIBUTION VARIABLE AllowList normalized_name scan_entry_points",
    "errors": "MAX_PROBLEMS Billed StopReason",
    "fanout": "MAX_N check_n combine_results combined_error requests_with_seeds result_of_cancelled",
    "field_checks": "field_at",
    "files": "EXTENSIONS Positioned media_type_of stat_regular",
    "free_requests": "ask",
    "interrupts": "finish pass_interrupt",
    "leases": "LEASE_SECONDS RENEW_SECONDS WorkerEnded WorkerLease",
    "metadata": "Distribution read_folders",
    "model_names": "resolve_model",
    "operation": "Makes",
    "options": "Options Settings check_proxy check_seconds default_concurrency machine_folder",
    "params": "close_files convert_files files_of structure",
    "provider": "account_of check_key check_setting_names",
    "records": "MAX_ARTIFACTS",
    "redact": "describe_error kind_in_words printable redact",
    "registry": "COMMANDS EMULATORS GROUPS MIDDLEWARE OPERATIONS PROVIDERS STATES TRANSPORTS is_pattern",
    "replicas": "CallInFlight Rates ReplicaStore Workers",
    "retry_after": "retry_after",
    "state_records": (
        "CALLER_WAITS LimitReached ObjectsFull Period Reservation StateAway StateError StateReport StoredCall"
        " StoredObject Use"
    ),
    "states": "RESULTS Budgets CallRecords ObjectRecords StateStore check_store open_store state_of",
    "streaming": "stream_call",
    "suggestions": "closest",
    "urls": "check_base_url is_loopback",
    "wire": "Scalar",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = list(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]  # type checkers read the stub


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'impasto.ext' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"impasto.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
