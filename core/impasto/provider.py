"""Providers, and the accounts with which a client calls them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from .errors import BrokenPlugin, ConfigError, ImpastoError
from .fields import format_value
from .interrupts import pass_interrupt
from .policy import RateLimit
from .redact import kind_in_words

_EMULATOR_KEY = "emulator"
"""The key for an emulator, which accepts any."""

_SETTINGS = ("api_key", "api_base")


def is_loopback(host: str) -> bool:
    """Return True if a host name can only be this machine."""
    import ipaddress  # only for plain http

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@attrs.frozen(kw_only=True, eq=False)
class Provider:
    """The address of a family of models, and the way a caller authenticates.

    ``base_url`` is the vendor's own; ``base_url_variable`` and ``key_variable`` name environment variables.
    ``rate_limit`` and ``poll_interval`` (the minimum between polls, in seconds) bind only at the vendor's own host.
    ``user_header`` carries the caller's end user, if the vendor has such a header. ``health_path`` is the path of a
    free GET that shows if the provider answers.
    """

    name: str
    base_url: str
    base_url_variable: str | None = None
    key_variable: str | None = None
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    transport: str = "https"
    rate_limit: RateLimit | None = None
    poll_interval: float = 0.0
    user_header: str | None = None
    health_path: str | None = None

    def is_own_host(self, base_url: str) -> bool:
        """Return True if a base URL is the vendor's own host."""
        return _host_of(base_url) == _host_of(self.base_url)

    def account(self, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
        """Return the account for a client's settings and the environment.

        ``emulator_url`` is the base URL of an emulator, which needs no key. Raises ConfigError with the name of the
        variable to set.
        """
        check_setting_names(self.name, settings, _SETTINGS)
        base = settings.get("api_base")
        if base is None:
            base = emulator_url
        if base is None and self.base_url_variable is not None:
            base = os.environ.get(self.base_url_variable) or None
        base_url = check_base_url(self.base_url if base is None else base)
        key, label = settings.get("api_key"), "the API key"
        if key is None and self.key_variable is not None:
            key, label = os.environ.get(self.key_variable), f"the API key in {self.key_variable}"
            if key is None and emulator_url is not None:
                key = _EMULATOR_KEY
            if key is None:
                raise ConfigError(f"no key for {self.name}: set {self.key_variable} or give api_key")
        valid_key = check_key(key, label) if key is not None else None
        return Account(
            provider=self,
            base_url=base_url,
            headers={self.key_header: self.key_prefix + valid_key} if valid_key is not None else {},
            secrets=(valid_key,) if valid_key not in (None, _EMULATOR_KEY) else (),  # a word that messages may hold
            rate_limit=self.rate_limit if self.is_own_host(base_url) else None,
        )


@attrs.frozen(kw_only=True, eq=False)
class Account:
    """A provider, an address and a key. Its repr holds no secret.

    ``secrets`` are texts that no message may show; ``settings`` holds what the provider's own transport needs.
    """

    provider: Provider
    base_url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    settings: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    rate_limit: RateLimit | None = None
    fingerprint: str = attrs.field(init=False, default=attrs.Factory(lambda self: _fingerprint(self), takes_self=True))  # noqa: PLW0108 - defined below


@lru_cache(maxsize=64)  # benchmark `call`, as below
def _host_of(url: str) -> str | None:
    return urlsplit(url).hostname


def account_of(provider: Provider, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
    """Return a provider's account for these settings, for any author's provider.

    Raises ConfigError and BrokenPlugin.
    """
    try:
        account = provider.account(settings, emulator_url=emulator_url)
    except ImpastoError:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        pass_interrupt(error)
        reason = f"finding its account raised {type(error).__name__}; nothing was sent"
        raise BrokenPlugin(f"provider {provider.name}: {reason}") from None  # its own words may hold the key
    if not isinstance(account, Account):
        raise BrokenPlugin(f"provider {provider.name}: its account is {type(account).__name__}, not an Account")
    return account


def _fingerprint(account: Account) -> str:
    parts = (account.base_url, *account.secrets, *(f"{k}={v}" for k, v in sorted(account.settings.items())))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_setting_names(provider: str, settings: Mapping[str, object], allowed: Collection[str]) -> None:
    """Raise ConfigError if a setting is not among those that the provider takes."""
    for name, value in settings.items():
        if value is not None and name not in allowed:
            raise ConfigError(
                f"providers: unknown setting {format_value(name)} of {provider}; allowed: {', '.join(allowed)}"
            )


def check_key(key: object, name: str = "the API key") -> str:
    """Return a key that can stand in a header. Raises ConfigError, which never holds the key."""
    if not isinstance(key, str):
        raise ConfigError(f"{name} must be text, not {kind_in_words(key)}")
    if not key:
        raise ConfigError(f"{name} is empty")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{name} contains a space, a line break or a character that is not ASCII; copy it again")
    return str.__str__(key)  # of an enum's member too the text: it is what no message may hold


def check_base_url(url: object, name: str = "api_base", *, with_path: bool = False) -> str:
    """Return a base URL of scheme and host, and of a path if allowed. Plain http is for loopback addresses.

    Raises ConfigError.
    """
    if not isinstance(url, str):
        raise ConfigError(f"{name} must be text, not {kind_in_words(url)}; {_base_url_hint(with_path)}")
    return _check_base_url(str.__str__(url), name, with_path)


def _base_url_hint(with_path: bool) -> str:
    most = "scheme, host and at most a path" if with_path else "scheme and host only"
    return f"give {most}, such as https://api.example.com{'/prefix' if with_path else ''}"


@lru_cache(maxsize=64)  # a drop-in function makes an account for each call: benchmark `call`
def _check_base_url(url: str, name: str, with_path: bool) -> str:
    most, hint = "path" if with_path else "host", _base_url_hint(with_path)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{name} is not a URL; {hint}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{name} must begin with https:// and name a host; {hint}")
    if "@" in parts.netloc:
        raise ConfigError(f"{name} must not contain a user or password; {hint}")
    path = parts.path.removesuffix("/")
    if "?" in url or "#" in url or not _PATH.fullmatch(path) or (path and not with_path):
        raise ConfigError(f"{name} must end after the {most}; {hint}")
    if port == 0 or not _is_host(host) or not url.isascii() or not url.isprintable() or url != url.strip():
        raise ConfigError(f"{name} has an invalid host; use ASCII letters, digits, dots and dashes; {hint}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"{name} is plain http, which would show the key to the network; use https (http is for loopback only)"
        )
    # Built again from its parts: another reader of URLs must not see another host in what urlsplit passed over.
    netloc = f"[{host}]" if ":" in host else host.removesuffix(".")
    return f"{parts.scheme}://{netloc}" + (f":{port}" if port is not None else "") + path


_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[\w.~!$&'()*+,;=:@%-]+)*", re.ASCII)
"""Path segments that every URL reader understands in the same way: not empty, not dots."""


def _is_host(host: str) -> bool:
    return re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*", host) is not None
