"""Providers, and the accounts with which a client calls them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping

import attrs

from .advice import KEY_ADVICE
from .errors import BrokenPlugin, ConfigError, ImpastoError
from .fields import format_value
from .interrupts import pass_interrupt
from .policy import RateLimit
from .redact import kind_in_words
from .urls import check_base_url, check_host_pattern, check_url, host_of

_EMULATOR_KEY = "emulator"
"""The key for an emulator, which accepts any."""

_SETTINGS = ("api_key", "api_base")


def _check_hosts(provider: Provider, attribute: object, hosts: tuple[str, ...]) -> None:
    for host in hosts:
        check_host_pattern(host, provider.name)


@attrs.frozen(kw_only=True, eq=False)
class Provider:
    """The address of a family of models, and the way a caller authenticates.

    ``base_url`` is the vendor's own; without it each caller has one, such as that of a server of its own.
    ``base_url_variable`` and ``key_variable`` name environment variables.
    ``rate_limit`` binds only at the vendor's own host. ``poll_interval``: the seconds between polls of a job, 1 by
    default; if it is set, it is the minimum at the vendor's own host.
    ``user_header`` carries the caller's end user (``request.user``), or ``user_field`` of the body; the dialect puts it
    there. Without both it is not sent, with a warning. ``health_path`` is the path of a
    free GET that shows if the provider answers. ``key_query``: the query parameter for the key, in place of a header;
    with ``key_header=""`` the key is not sent: it signs requests.

    ``hosts`` are the vendor's further hosts, to which ``WireRequest.url`` may lead, anonymous or not:
    ``"cdn.acme.ai"``, or ``"*.acme.ai"`` for every host below ``acme.ai``, which is another. ``settings`` names what an
    account has beside its key and address, such as a project; the values are text, in ``Account.settings``. A subclass
    may have the hooks ``authorize`` and ``sign``.
    """

    name: str
    base_url: str = ""
    base_url_variable: str | None = None
    key_variable: str | None = None
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    key_query: str | None = None
    transport: str = "https"
    rate_limit: RateLimit | None = None
    poll_interval: float = 0.0
    user_header: str | None = None
    user_field: str | None = None
    health_path: str | None = None
    hosts: tuple[str, ...] = attrs.field(default=(), validator=_check_hosts)
    settings: tuple[str, ...] = ()

    def is_own_host(self, base_url: str) -> bool:
        """Return True if a base URL is the vendor's own host."""
        return host_of(base_url) == host_of(self.base_url)

    def account(self, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
        """Return the account for a client's settings and the environment.

        ``emulator_url`` is the base URL of an emulator, which needs no key. Raises ConfigError with the name of the
        variable to set.
        """
        check_setting_names(self.name, settings, (*_SETTINGS, *self.settings))
        base = settings.get("api_base")
        if base is None:
            base = emulator_url
        if base is None and self.base_url_variable is not None:
            base = os.environ.get(self.base_url_variable) or None
        if base is None and not self.base_url:
            variable = f"set {self.base_url_variable} or " if self.base_url_variable is not None else ""
            raise ConfigError(f"no address for {self.name}: {variable}give api_base")
        base_url = check_base_url(self.base_url if base is None else base)
        key, label = settings.get("api_key"), "the API key"
        if key is None and self.key_variable is not None:
            key, label = os.environ.get(self.key_variable), f"the API key in {self.key_variable}"
            if key is None and emulator_url is not None:
                key = _EMULATOR_KEY
            if key is None:
                raise ConfigError(f"no key for {self.name}: set {self.key_variable}{KEY_ADVICE}")
        valid_key = check_key(key, label) if key is not None else None
        in_header = valid_key is not None and self.key_query is None and self.key_header
        return Account(
            provider=self,
            base_url=base_url,
            headers={self.key_header: f"{self.key_prefix}{valid_key}"} if in_header else {},
            query={self.key_query: valid_key} if valid_key is not None and self.key_query is not None else {},
            key=valid_key,
            settings=self._own_settings(settings),
            secrets=(valid_key,) if valid_key not in (None, _EMULATOR_KEY) else (),  # a word that messages may hold
            rate_limit=self.rate_limit if self.is_own_host(base_url) else None,
        )

    def _own_settings(self, settings: Mapping[str, object]) -> dict[str, str]:
        own: dict[str, str] = {}
        for name in self.settings:
            value = settings.get(name)
            if value is None:
                continue
            if not isinstance(value, str) or not value:
                kind = "empty" if value == "" else kind_in_words(value)
                raise ConfigError(f"providers: {name} of {self.name} must be text, not {kind}")
            own[name] = str.__str__(value)
        return own


@attrs.frozen(kw_only=True, eq=False)
class Account:
    """A provider, an address and a key. Its repr holds no secret.

    ``headers`` and ``query`` (parameters of the URL) hold the ``key``. ``secrets`` are texts that no message may show;
    ``settings`` holds what the provider or its own transport needs.
    """

    provider: Provider
    base_url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    key: str | None = attrs.field(default=None, repr=False)
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    settings: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    rate_limit: RateLimit | None = None
    fingerprint: str = attrs.field(init=False, default=attrs.Factory(lambda self: _fingerprint(self), takes_self=True))  # noqa: PLW0108 - defined below

    def check_url(self, url: object) -> str:
        """Return a whole address that a plugin's request leads to, if it is one of the provider's own.

        The key may go there. Raises BrokenPlugin, which names the host.
        """
        return check_url(url, self.base_url, self.provider.hosts)


def account_of(provider: Provider, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
    """Return a provider's account for these settings, for any author's provider.

    Raises ConfigError and BrokenPlugin.
    """
    account: object = None
    reason = ""
    try:
        account = provider.account(settings, emulator_url=emulator_url)
    except ImpastoError as error:
        from .call_errors import redact_error  # which knows of calls

        variable = os.environ.get(provider.key_variable) if provider.key_variable is not None else None
        redact_error(error, tuple(each for each in (settings.get("api_key"), variable) if isinstance(each, str)))
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        pass_interrupt(error)
        reason = f"finding its account raised {type(error).__name__}; nothing was sent"
    if reason:  # outside the except block: the provider's own error may hold the key
        raise BrokenPlugin(f"provider {provider.name}: {reason}")
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
