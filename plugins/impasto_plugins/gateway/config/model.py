"""What a gateway serves and how, as records. ``config_yaml`` makes them of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from impasto import ConfigError, RateLimit
from impasto.ext import is_loopback
from impasto.fields import KEY, Field, choice, integer, number, text

DAY = 24 * 3600.0

EXAMPLES = frozenset({"sk-1234"})
"""Keys that stand in somebody's documentation."""

_EXAMPLE_HASHES = frozenset(hashlib.sha256(key.encode()).hexdigest() for key in EXAMPLES)

STRONG = 24
"""Characters of a strong key, at least."""


def _setting(default: float, least: float, most: float) -> Any:
    """A number that has a value where none is set; attrs reads its type from the class."""
    kind = Field(kind="integer" if isinstance(default, int) else "number", least=least, most=most, default=default)
    return attrs.field(default=default, metadata={KEY: kind})


@attrs.frozen(kw_only=True)
class Entry:
    """One entry of ``model_list``: one deployment of the model ``model_name``.

    ``reach`` holds the provider's key and address under LiteLLM's names; ``line`` is where it stands in the file.
    ``defaults`` are values for fields that a caller does not give, ``lines`` where those stand. A model's deployments
    of the lowest ``order`` go first; ``input_cost_per_image`` is in USD. ``unread``: parameters whose values
    are wrong or not known, in a file that has mistakes.
    """

    model_name: str
    model: str
    base_model: str | None = None
    timeout: float | None = None
    mode: str | None = None
    reach: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    drop_params: bool | None = None
    order: int | None = None
    rate_limit: RateLimit | None = None
    input_cost_per_image: float | None = None
    defaults: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    lines: Mapping[str, int] = attrs.field(factory=dict[str, int])
    line: int = 0
    unread: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class Params:
    """``litellm_params``, or ``provider_params``: what is called, and how it is reached. ``timeout`` in seconds."""

    model: str = text(1, 2048, required=True)
    base_model: str | None = text(1, 2048)
    model_id: str | None = text(1, 2048)
    timeout: float | None = number(0.1, DAY)
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


CALL = ("model", "base_model", "model_id", "timeout", "drop_params", "order", "rate_limit", "input_cost_per_image")
"""The parameters that say how a model is called; the others say how its provider is reached."""

MODES = ("image_generation", "image_edit", "audio_generation", "3d_generation")


@attrs.frozen(kw_only=True)
class Info:
    """``model_info``."""

    mode: str | None = choice(*MODES)
    input_cost_per_image: float | None = number(0, 1e6)


@attrs.frozen(kw_only=True)
class Wording:
    """``litellm_settings``."""

    drop_params: bool = False


@attrs.frozen(kw_only=True, repr=False)
class General:
    """``general_settings``. Times are in seconds.

    ``timeout``: of one call to a provider. ``max_bytes_in_flight`` bounds what requests and answers may take of
    memory; past it new ones are sent away before anything is spent. ``drain_seconds``: how long the end of the
    process waits for calls that run. ``data_dir``: where what must outlive the process is kept.

    ``max_connections`` are those of one worker at a time, fewer where half of the limit of open files is less.
    ``header_seconds``: from a connection's first byte (its first request: from its beginning) to the end of a
    request's head; ``body_seconds``: from there to the end of its body, of which a byte must come every
    ``body_idle_seconds``; ``write_seconds``: how long a caller may leave an answer unread; ``idle_seconds``: how
    long a connection without a request is kept.

    ``max_wait_seconds``: how long a call may wait for its turn at a provider, where its caller does not say that it
    waits less (OpenAI's SDKs do); what would wait longer is sent away before anything is spent.

    ``default_model``: the one that is called if a request names none.

    ``access_log``: whether ``impasto serve`` writes a line for each request to stdout; ``log_prompts``: whether
    prompts stand in it, and in traces.
    """

    master_key: str | None = text(1, 4096)
    public_url: str | None = text(1, 2048)
    default_model: str | None = text(1, 200)
    data_dir: str | None = text(1, 4096)
    timeout: float = _setting(300.0, 0.1, DAY)
    poll_interval: float | None = number(0.001, 3600)
    max_bytes_in_flight: int = _setting(1 << 30, 1 << 24, 1 << 40)
    drain_seconds: float = _setting(330.0, 0, DAY)
    max_connections: int = _setting(16_384, 1, 1_000_000)
    header_seconds: float = _setting(20.0, 0.01, 3600)
    body_seconds: float = _setting(600.0, 0.01, DAY)
    body_idle_seconds: float = _setting(20.0, 0.01, 3600)
    write_seconds: float = _setting(30.0, 0.01, 3600)
    idle_seconds: float = _setting(75.0, 0.01, DAY)
    max_wait_seconds: float = _setting(60.0, 0.01, DAY)
    access_log: bool = True
    log_prompts: bool = False


@attrs.frozen(kw_only=True)
class Named:
    """One of ``keys``: ``sha256`` is of the key itself, in hexadecimal. ``models`` None means all."""

    name: str = text(1, 64, required=True)
    sha256: str = text(64, 64, required=True)
    rpm: int | None = integer(1, 1_000_000)
    images_per_day: int | None = integer(1, 1_000_000_000)
    usd_per_month: float | None = number(0, 1e9)
    models: tuple[str, ...] | None = None

    @property
    def limited(self) -> bool:
        """Whether what it may spend is limited."""
        return any(limit is not None for limit in (self.rpm, self.images_per_day, self.usd_per_month))


@attrs.frozen(kw_only=True, repr=False)
class S3:
    """``files.s3``: a bucket, and how it is reached; what is not given is found as boto3 finds it.

    ``endpoint_url``: of an S3 that is not Amazon's. ``prefix`` stands before the pictures' names.
    """

    bucket: str = text(3, 63, required=True)
    prefix: str | None = text(1, 200)
    endpoint_url: str | None = text(1, 2048)
    aws_region_name: str | None = text(1, 64)
    aws_access_key_id: str | None = text(1, 4096)
    aws_secret_access_key: str | None = text(1, 4096)
    aws_session_token: str | None = text(1, 8192)
    aws_profile_name: str | None = text(1, 256)

    def account(self) -> dict[str, str | None]:
        """What identifies who asks."""
        return {
            "region": self.aws_region_name,
            "endpoint": self.endpoint_url and self.endpoint_url.rstrip("/"),
            "access_key_id": self.aws_access_key_id,
            "secret_access_key": self.aws_secret_access_key,
            "session_token": self.aws_session_token,
            "profile": self.aws_profile_name,
        }


@attrs.frozen(kw_only=True)
class Files:
    """``files``: where pictures are kept that are answered as a URL, and for how long, in seconds."""

    folder: str | None = text(1, 4096)
    seconds: float = _setting(3600.0, 0.1, 30 * DAY)
    s3: S3 | None = None


@attrs.frozen(kw_only=True)
class Batches:
    """``batches``: ``files`` and ``batches`` of OpenAI's API.

    ``folder``: where files and what batches make are kept, by default below ``data_dir``, for ``seconds`` from when
    they are made; ``max_bytes``: what all of it may take of the disk. ``max_file_bytes`` and ``max_requests`` bound an
    input file, ``max_files`` the files of one key. ``concurrency``: how many pictures of one batch are asked for at
    once, at most.
    """

    enabled: bool = True
    folder: str | None = text(1, 4096)
    seconds: int = _setting(int(30 * DAY), 3600, int(30 * DAY))
    max_bytes: int = _setting(50 << 30, 1 << 20, 1 << 50)
    max_file_bytes: int = _setting(200 << 20, 1 << 10, 1 << 32)
    max_requests: int = _setting(50_000, 1, 1_000_000)
    max_files: int = _setting(1_000, 1, 1_000_000)
    concurrency: int = _setting(16, 1, 1_000)


@attrs.frozen(kw_only=True)
class Config:
    """A whole configuration. ``source`` names the file in messages.

    ``plugins`` are the distributions whose plugins may be used beside impasto's own. ``warnings`` name
    the entries that are skipped. ``lines``: where settings stand in the file, and "" all of it. ``unread``: those that
    are wrong or not known; only a file that has mistakes has any.
    """

    source: str = "config"
    models: tuple[Entry, ...]
    drop_params: bool = False
    general: General = General()
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    plugins: tuple[str, ...] | None = None
    keys: tuple[Named, ...] = ()
    files: Files = Files()
    batches: Batches = Batches()
    warnings: tuple[str, ...] = ()
    lines: Mapping[str, int] = attrs.field(factory=dict[str, int], repr=False)
    unread: frozenset[str] = frozenset()

    def allows_host(self, host: str) -> bool:
        """Return True if ``allowed_hosts`` has a host in small letters, or a pattern that it matches."""
        allowed = self.allowed_hosts
        return host in allowed or any(each[:2] == "*." and host.endswith(each[1:]) for each in allowed)


MOST_MISTAKES = 100
"""Mistakes of a configuration that one error lists."""


class Mistakes(ConfigError):
    """What is wrong with a configuration, each with its line; 0 is the line of what is not in the file."""

    def __init__(self, source: str, found: Iterable[tuple[int, str]]) -> None:
        self.found = sorted(set(found))
        lines = [
            f"{source}: line {line}: {said}" if line else f"{source}: {said}"
            for line, said in self.found[:MOST_MISTAKES]
        ]
        if len(self.found) > MOST_MISTAKES:
            lines.append(f"{source}: and {len(self.found) - MOST_MISTAKES:,} more mistakes")
        super().__init__("\n".join(lines))


def check_bind(config: Config, host: str, *, no_auth: bool) -> list[str]:
    """Return what is unsafe but allowed about serving at ``host``. Raises Mistakes for what is not allowed."""
    if problems := list(_problems_of_bind(config, host, no_auth=no_auth)):
        raise Mistakes(config.source, problems)
    master = config.general.master_key
    weak = master is not None and _is_weak(master)
    return [*config.warnings, *(["general_settings.master_key is weak; it works on loopback only"] if weak else [])]


_MASTER, _HOSTS = "general_settings.master_key", "general_settings.allowed_hosts"


def _problems_of_bind(config: Config, host: str, *, no_auth: bool) -> Iterator[tuple[int, str]]:
    public = not is_loopback(host)
    master = config.general.master_key
    names_hosts = bool(config.allowed_hosts) or _HOSTS in config.unread
    has_keys = bool(master or config.keys or {_MASTER, "keys"} & config.unread)

    def problem(setting: str, said: str) -> tuple[int, str]:
        places = () if setting.startswith("--") else (setting, setting.partition(".")[0], "")
        return next((config.lines[name] for name in places if name in config.lines), 0), f"{setting}: {said}"

    if no_auth and public:
        yield problem("--no-auth", f"is for loopback only, and {host} lets other machines in")
    elif no_auth and names_hosts:
        yield problem(_HOSTS, "lets others in, and --no-auth is for loopback only; leave one of them out")
    if no_auth and has_keys:
        yield problem("--no-auth", "goes with a configuration without keys only")
    if not no_auth and not has_keys:
        yield problem(_MASTER, "is missing: set it, or keys (or --no-auth, on loopback only)")
    others = host if public else "allowed_hosts, by which others call it,"
    if public or names_hosts:
        if master is not None and _is_weak(master):
            said = f"too weak: {others} needs a key of at least {STRONG} characters that is not a documented example"
            yield problem(_MASTER, said)
        for i, key in enumerate(config.keys):
            if key.sha256 in _EXAMPLE_HASHES:
                said = f"{key.name}: is the hash of a key that stands in somebody's documentation"
                yield config.lines.get(f"keys[{i}].sha256", 0), f"keys: {said}"
    if public and not names_hosts:
        yield problem(_HOSTS, f"is missing: name the hosts by which {host} may be called")


def _is_weak(key: str) -> bool:
    return len(key) < STRONG or key in EXAMPLES
