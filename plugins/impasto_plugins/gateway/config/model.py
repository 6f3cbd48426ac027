"""A gateway's configuration as records. ``loader`` reads them from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import attrs

from impasto import ConfigError, RateLimit
from impasto.ext import is_loopback
from impasto.fields import KEY, Field, choice, integer, number, text

DAY_SECONDS = 24 * 3600.0

EXAMPLE_KEYS = frozenset({"sk-1234"})
"""Keys in published documentation."""

_EXAMPLE_HASHES = frozenset(hashlib.sha256(key.encode()).hexdigest() for key in EXAMPLE_KEYS)

MIN_LENGTH = 24
"""Minimum characters of a strong key."""


def _number_setting(default: float, minimum: float, maximum: float) -> Any:
    """Declare a number with a default; attrs reads its type from the class."""
    field = Field(
        kind="integer" if isinstance(default, int) else "number", minimum=minimum, maximum=maximum, default=default
    )
    return attrs.field(default=default, metadata={KEY: field})


@attrs.frozen(kw_only=True)
class DeploymentConfig:
    """One entry of ``model_list``: one deployment of the model ``model_name``.

    ``provider_settings`` holds the provider's key and address under LiteLLM's names; ``line`` is its line in the file.
    ``defaults``
    are values for fields that a caller does not give, ``lines`` their lines. A model's deployments of the lowest
    ``order`` go first; ``input_cost_per_image`` is in USD. ``unknown_fields``: parameters whose values are invalid or
    unknown, in a file with mistakes.
    """

    model_name: str
    model: str
    base_model: str | None = None
    timeout: float | None = None
    mode: str | None = None
    provider_settings: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    drop_params: bool | None = None
    order: int | None = None
    rate_limit: RateLimit | None = None
    input_cost_per_image: float | None = None
    defaults: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    lines: Mapping[str, int] = attrs.field(factory=dict[str, int])
    line: int = 0
    unknown_fields: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class DeploymentParams:
    """``litellm_params``, or ``provider_params``: the model, provider settings, defaults."""

    model: str = text(1, 2048, required=True)
    base_model: str | None = text(1, 2048)
    model_id: str | None = text(1, 2048)
    timeout: float | None = number(0.1, DAY_SECONDS)
    api_key: str | None = text(1, 4096)
    api_base: str | None = text(1, 2048)
    aws_region_name: str | None = text(1, 64)
    aws_access_key_id: str | None = text(1, 4096)
    aws_secret_access_key: str | None = text(1, 4096)
    aws_session_token: str | None = text(1, 8192)
    aws_profile_name: str | None = text(1, 256)
    aws_bedrock_runtime_endpoint: str | None = text(1, 2048)
    drop_params: bool | None = None
    order: int | None = integer(0, 1_000_000)
    rate_limit: str | None = text(1, 64)
    input_cost_per_image: float | None = number(0, 1e6)


CALL_PARAMS = (
    "model",
    "base_model",
    "model_id",
    "timeout",
    "drop_params",
    "order",
    "rate_limit",
    "input_cost_per_image",
)
"""Parameters of the call; the others are settings of the provider."""

MODES = ("image_generation", "image_edit", "audio_generation", "3d_generation")


@attrs.frozen(kw_only=True)
class ModelInfo:
    """``model_info``."""

    mode: str | None = choice(*MODES)
    input_cost_per_image: float | None = number(0, 1e6)


@attrs.frozen(kw_only=True)
class LiteLLMSettings:
    """``litellm_settings``."""

    drop_params: bool = False


@attrs.frozen(kw_only=True, repr=False)
class GeneralSettings:
    """``general_settings``. Times are in seconds."""

    master_key: str | None = text(1, 4096)
    public_url: str | None = text(1, 2048)
    default_model: str | None = text(1, 200)
    data_dir: str | None = text(1, 4096)
    state: str | None = text(1, 4096)
    timeout: float = _number_setting(300.0, 0.1, DAY_SECONDS)
    poll_interval: float | None = number(0.001, 3600)
    max_bytes_in_flight: int = _number_setting(1 << 30, 1 << 24, 1 << 40)
    drain_seconds: float = _number_setting(330.0, 0, DAY_SECONDS)
    max_connections: int = _number_setting(16_384, 1, 1_000_000)
    header_seconds: float = _number_setting(20.0, 0.01, 3600)
    body_seconds: float = _number_setting(600.0, 0.01, DAY_SECONDS)
    body_idle_seconds: float = _number_setting(20.0, 0.01, 3600)
    write_seconds: float = _number_setting(30.0, 0.01, 3600)
    idle_seconds: float = _number_setting(75.0, 0.01, DAY_SECONDS)
    max_wait_seconds: float = _number_setting(60.0, 0.01, DAY_SECONDS)
    access_log: bool = True
    log_prompts: bool = False


@attrs.frozen(kw_only=True)
class KeyConfig:
    """One of ``keys``."""

    name: str = text(1, 64, required=True)
    sha256: str = text(64, 64, required=True)
    rpm: int | None = integer(1, 1_000_000)
    images_per_day: int | None = integer(1, 1_000_000_000)
    usd_per_month: float | None = number(0, 1e9)
    models: tuple[str, ...] | None = None

    @property
    def has_limits(self) -> bool:
        """True if its spending is limited."""
        return any(limit is not None for limit in (self.rpm, self.images_per_day, self.usd_per_month))


@attrs.frozen(kw_only=True, repr=False)
class S3Config:
    """``files.s3``: a bucket and its access; missing settings are found as boto3 finds them."""

    bucket: str = text(3, 63, required=True)
    prefix: str | None = text(1, 200)
    endpoint_url: str | None = text(1, 2048)
    aws_region_name: str | None = text(1, 64)
    aws_access_key_id: str | None = text(1, 4096)
    aws_secret_access_key: str | None = text(1, 4096)
    aws_session_token: str | None = text(1, 8192)
    aws_profile_name: str | None = text(1, 256)

    def account(self) -> dict[str, str | None]:
        """Return the settings that identify the credentials."""
        return {
            "region": self.aws_region_name,
            "endpoint": self.endpoint_url and self.endpoint_url.rstrip("/"),
            "access_key_id": self.aws_access_key_id,
            "secret_access_key": self.aws_secret_access_key,
            "session_token": self.aws_session_token,
            "profile": self.aws_profile_name,
        }


@attrs.frozen(kw_only=True)
class FilesConfig:
    """``files``: the store of images that are answered as a URL."""

    folder: str | None = text(1, 4096)
    seconds: float = _number_setting(3600.0, 0.1, 30 * DAY_SECONDS)
    s3: S3Config | None = None


@attrs.frozen(kw_only=True)
class BatchesConfig:
    """``batches``: ``files`` and ``batches`` of OpenAI's API."""

    enabled: bool = True
    folder: str | None = text(1, 4096)
    seconds: int = _number_setting(int(30 * DAY_SECONDS), 3600, int(30 * DAY_SECONDS))
    max_bytes: int = _number_setting(50 << 30, 1 << 20, 1 << 50)
    max_file_bytes: int = _number_setting(200 << 20, 1 << 10, 1 << 32)
    max_requests: int = _number_setting(50_000, 1, 1_000_000)
    max_files: int = _number_setting(1_000, 1, 1_000_000)
    concurrency: int = _number_setting(16, 1, 1_000)


@attrs.frozen(kw_only=True)
class Config:
    """A whole configuration. ``source`` names the file in messages.

    ``plugins`` are the distributions whose plugins may be used beside impasto's own. ``warnings`` name skipped entries.
    ``lines``: lines of settings in the file. ``unknown_fields``: settings that are invalid or unknown; only a file with
    mistakes has any.
    """

    source: str = "config"
    models: tuple[DeploymentConfig, ...]
    drop_params: bool = False
    general: GeneralSettings = GeneralSettings()
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    plugins: tuple[str, ...] | None = None
    keys: tuple[KeyConfig, ...] = ()
    files: FilesConfig = FilesConfig()
    batches: BatchesConfig = BatchesConfig()
    warnings: tuple[str, ...] = ()
    lines: Mapping[str, int] = attrs.field(factory=dict[str, int], repr=False)
    unknown_fields: frozenset[str] = frozenset()

    @property
    def has_shared_state(self) -> bool:
        """True if the records are in a store that other machines can share."""
        return self.general.state is not None and "://" in self.general.state

    @property
    def has_shared_contents(self) -> bool:
        """True if the contents of calls, files and batches are in a bucket, beside shared records."""
        return self.has_shared_state and self.files.s3 is not None

    def allows_host(self, host: str) -> bool:
        """Return True if ``allowed_hosts`` has this lower-case host, or a pattern that matches it."""
        patterns = self.allowed_hosts
        return host in patterns or any(each[:2] == "*." and host.endswith(each[1:]) for each in patterns)


MAX_MISTAKES = 100
"""Mistakes of a configuration that one error lists."""


class InvalidConfig(ConfigError):
    """A configuration is invalid. Lists each mistake with its line; line 0 means that it is not in the file."""

    def __init__(self, source: str, mistakes: Iterable[tuple[int, str]]) -> None:
        self.mistakes = sorted(set(mistakes))
        lines = [
            f"{source}: line {line}: {message}" if line else f"{source}: {message}"
            for line, message in self.mistakes[:MAX_MISTAKES]
        ]
        if len(self.mistakes) > MAX_MISTAKES:
            lines.append(f"{source}: and {len(self.mistakes) - MAX_MISTAKES:,} more mistakes")
        super().__init__("\n".join(lines))

    @classmethod
    def of(cls, config: Config, setting: str, message: str) -> Self:
        """Return the error for one setting."""
        return cls(config.source, [(config.lines.get(setting, 0), message)])


def check_bind(config: Config, host: str, *, no_auth: bool) -> list[str]:
    """Return warnings about serving at ``host``. Raises InvalidConfig for an unsafe setting."""
    if problems := list(_bind_problems(config, host, no_auth=no_auth)):
        raise InvalidConfig(config.source, problems)
    master = config.general.master_key
    is_weak = master is not None and _is_weak(master)
    return [*config.warnings, *(["general_settings.master_key is weak; it works on loopback only"] if is_weak else [])]


_MASTER_KEY, _ALLOWED_HOSTS = "general_settings.master_key", "general_settings.allowed_hosts"


def _bind_problems(config: Config, host: str, *, no_auth: bool) -> Iterator[tuple[int, str]]:
    is_public = not is_loopback(host)
    master = config.general.master_key
    names_hosts = bool(config.allowed_hosts) or _ALLOWED_HOSTS in config.unknown_fields
    has_keys = bool(master or config.keys or {_MASTER_KEY, "keys"} & config.unknown_fields)

    def problem(setting: str, message: str) -> tuple[int, str]:
        places = () if setting.startswith("--") else (setting, setting.partition(".")[0], "")
        return next((config.lines[name] for name in places if name in config.lines), 0), f"{setting}: {message}"

    if no_auth and is_public:
        yield problem("--no-auth", f"works on loopback only; other machines can reach {host}")
    elif no_auth and names_hosts:
        yield problem(
            _ALLOWED_HOSTS, "lets other hosts in, and --no-auth works on loopback only; leave one of them out"
        )
    if no_auth and has_keys:
        yield problem("--no-auth", "needs a configuration without keys")
    if not no_auth and not has_keys:
        yield problem(_MASTER_KEY, "required: set it, or keys; on loopback --no-auth works without")
    audience = host if is_public else "a gateway with allowed_hosts"
    if is_public or names_hosts:
        if master is not None and _is_weak(master):
            message = (
                f"too weak: {audience} needs a key of at least {MIN_LENGTH} characters that is not a documented example"
            )
            yield problem(_MASTER_KEY, message)
        for i, key in enumerate(config.keys):
            if key.sha256 in _EXAMPLE_HASHES:
                message = f"{key.name}: is the hash of an example key from public documentation; use another key"
                yield config.lines.get(f"keys[{i}].sha256", 0), f"keys: {message}"
    if is_public and not names_hosts:
        yield problem(_ALLOWED_HOSTS, f"required: the host names under which clients call {host}")


def _is_weak(key: str) -> bool:
    return len(key) < MIN_LENGTH or key in EXAMPLE_KEYS
