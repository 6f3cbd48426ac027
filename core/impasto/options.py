"""A client's settings, checked when they are set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast
from urllib.parse import urlsplit

import attrs

from .distributions import AllowList
from .errors import ConfigError
from .fields import format_value
from .policy import RateLimit, Retry
from .provider import check_key
from .redact import kind_in_words
from .urls import check_base_url

if TYPE_CHECKING:
    import ssl

    from .states import StateStore

DEFAULT_PROVIDER = "stability"
SHARED = frozenset({"connect_timeout", "max_concurrency", "plugins", "proxy", "ssl", "state"})
"""Settings of the connections and of the plugins, shared by ``with_options`` siblings, which can't change them."""

_MOST = 1e9
_AWS = {
    "aws_region": "region",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_profile": "profile",
    "bedrock_endpoint": "endpoint",
}


def _mapping(value: object) -> Mapping[str, Mapping[str, object]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(own, Mapping) for own in value.values()):
        raise ConfigError('providers must be a mapping of names to settings, such as {"acme": {"api_key": ...}}')
    return {name: dict(own) for name, own in value.items()}


def _sequence(value: object) -> tuple[object, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"middleware must be a list of names or plugins, not {kind_in_words(value)}")
    return tuple(value)


def _retry(value: Retry | None) -> Retry:
    return Retry() if value is None else value


def _poll_interval(value: float | None) -> float | None:
    if value is not None:
        return value
    text = os.environ.get("IMPASTO_POLL_INTERVAL")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"IMPASTO_POLL_INTERVAL must be a number of seconds, not {text!r}") from None


def machine_folder() -> Path:
    """Return the user's folder for programs' state, ``$XDG_STATE_HOME/impasto``."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "impasto"


_STATE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\x00-\x20\x7f]+")


def _state(value: object) -> Path | str | StateStore | None:
    if value is None:
        return None
    if hasattr(value, "calls"):  # a store, whose owner closes it
        return cast("StateStore", value)
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(text, str) and "://" in text:  # it may hold a password: no message repeats it
        if _STATE_URL.fullmatch(text) is None:
            raise ConfigError("state is an invalid URL; it must be that of a store, such as postgresql://host/database")
        return text
    if not text or not isinstance(text, str):
        raise ConfigError('state must be "machine", the path of a folder, the URL of a store, or a store')
    return machine_folder() if value == "machine" else Path(text).absolute()


def _state_text(value: Path | str | StateStore | None) -> str:
    return f"'{value.partition('://')[0]}://...'" if isinstance(value, str) else repr(value)


class Settings(TypedDict, total=False):
    """Keyword arguments of ``Client(...)`` and ``client.with_options(...)``."""

    api_key: str | None
    api_base: str | None
    aws_region: str | None
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    aws_profile: str | None
    bedrock_endpoint: str | None
    providers: Mapping[str, Mapping[str, object]] | None
    timeout: float
    connect_timeout: float
    poll_interval: float | None
    max_concurrency: int | None
    rate_limit: RateLimit | None
    retry: Retry | None
    middleware: Sequence[object]
    spend_limit_usd: float | None
    transport: object
    plugins: str | Sequence[str] | None
    proxy: str | None
    ssl: str | os.PathLike[str] | ssl.SSLContext | None
    state: str | os.PathLike[str] | StateStore | None


@attrs.frozen(kw_only=True, eq=False)
class Options:
    """Checked settings. Its repr holds no secret."""

    api_key: str | None = attrs.field(default=None, repr=False)
    api_base: str | None = None
    aws_region: str | None = None
    aws_access_key_id: str | None = attrs.field(default=None, repr=False)
    aws_secret_access_key: str | None = attrs.field(default=None, repr=False)
    aws_session_token: str | None = attrs.field(default=None, repr=False)
    aws_profile: str | None = None
    bedrock_endpoint: str | None = None
    providers: Mapping[str, Mapping[str, object]] = attrs.field(default=None, repr=False, converter=_mapping)
    timeout: float = 300.0
    connect_timeout: float = 10.0
    poll_interval: float | None = attrs.field(default=None, converter=_poll_interval)
    max_concurrency: int | None = None
    rate_limit: RateLimit | None = None
    retry: Retry = attrs.field(default=None, converter=_retry)
    middleware: tuple[object, ...] = attrs.field(default=(), converter=_sequence)
    spend_limit_usd: float | None = None
    transport: object = None
    plugins: str | Sequence[str] | None = None
    proxy: str | None = attrs.field(default=None, repr=False)
    ssl: str | os.PathLike[str] | ssl.SSLContext | None = None
    state: Path | str | StateStore | None = attrs.field(default=None, converter=_state, repr=_state_text)
    """A folder, the URL of a store, or the store of a caller, who opens and closes it."""

    def __attrs_post_init__(self) -> None:
        if self.api_key is not None:
            check_key(self.api_key)
        if self.api_base is not None:
            check_base_url(self.api_base)
        check_seconds("timeout", self.timeout)
        check_seconds("connect_timeout", self.connect_timeout)
        if self.poll_interval is not None:
            check_seconds("poll_interval", self.poll_interval)
        if self.max_concurrency is not None and (type(self.max_concurrency) is not int or self.max_concurrency < 1):
            raise ConfigError(
                f"max_concurrency must be a whole number of at least 1, not {format_value(self.max_concurrency)}"
            )
        if self.spend_limit_usd is not None:
            check_seconds("spend_limit_usd", self.spend_limit_usd, unit="USD")
        if not isinstance(self.retry, Retry):
            raise ConfigError(f"retry must be an impasto.Retry, not {format_value(self.retry)}")
        if self.rate_limit is not None and not isinstance(self.rate_limit, RateLimit):
            raise ConfigError(f"rate_limit must be an impasto.RateLimit, not {format_value(self.rate_limit)}")
        if self.plugins is not None:
            AllowList.parse(self.plugins)
        if self.proxy is not None:
            check_proxy(self.proxy)
        if isinstance(self.ssl, bool):
            raise ConfigError("ssl can't be switched off; give the path of a CA file or an SSLContext")
        if self.ssl is not None and not isinstance(self.ssl, str | os.PathLike) and not hasattr(self.ssl, "wrap_bio"):
            raise ConfigError(f"ssl must be the path of a CA file or an SSLContext, not {kind_in_words(self.ssl)}")
        if self.transport is not None and not isinstance(self.transport, str) and not hasattr(self.transport, "send"):
            raise ConfigError(f"transport must be a name or an object with send, not {kind_in_words(self.transport)}")

    @cached_property
    def layers(self) -> tuple[object, ...]:
        """The transport and the middleware as a key of the route cache."""
        return identity(self.transport), *map(identity, self.middleware)

    def changed(self, settings: Settings) -> Options:
        """Return these options with other settings. Those of a provider that are not named stay."""
        if (changes := settings.get("providers")) is not None:
            providers = _mapping(changes)
            names = {*self.providers, *providers}
            own = {name: {**self.providers.get(name, {}), **providers.get(name, {})} for name in names}
            settings = {**settings, "providers": own}
        return attrs.evolve(self, **settings)

    def settings(self, provider: str) -> Mapping[str, object]:
        """Return one provider's settings: ``api_key`` and ``api_base`` belong to stability, ``aws_*`` to bedrock."""
        own = self.providers.get(provider, {})
        if provider == DEFAULT_PROVIDER:
            return {"api_key": self.api_key, "api_base": self.api_base, **own}
        if provider == "bedrock":
            return {short: getattr(self, name) for name, short in _AWS.items()} | dict(own)
        return own


def identity(plugin: object) -> object:
    """Return a hashable identity of a plugin: a name's text, or the object's id (many objects can't be hashed)."""
    return plugin if plugin is None or isinstance(plugin, str) else id(plugin)


def check_seconds(name: str, value: object, *, unit: str = "seconds") -> float:
    """Return a finite number above 0. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        raise ConfigError(f"{name} must be a number of {unit} above 0 and at most {_MOST:g}, not {format_value(value)}")
    return value


def check_proxy(url: object, name: str = "proxy") -> str:
    """Return the URL of a proxy. Raises ConfigError without the URL, which may hold a password."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        usable = parts is not None and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not isinstance(url, str) or not usable or not url.isprintable() or " " in url:
        raise ConfigError(f"{name} must be the URL of an http:// or https:// proxy, such as http://127.0.0.1:3128")
    return url


def default_concurrency() -> int:
    """Return the default number of calls in flight: as many as this process's limit of open files allows."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if soft == resource.RLIM_INFINITY else max(64, min(10_000, soft // 2))


def check_names(settings: Mapping[str, object]) -> None:
    """Raise TypeError for a name that is not a setting's."""
    names = attrs.fields_dict(Options)
    for name in settings:
        if name not in names:
            from .suggestions import closest  # only on the way to an error

            nearest = closest(name, names, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"the settings are {', '.join(names)}"
            raise TypeError(f"unknown setting {name!r}; {hint}")
