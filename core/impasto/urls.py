"""URLs: the checks of a base URL that a user sets, and of an address that a plugin's request leads to."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from .errors import BrokenPlugin, ConfigError
from .redact import kind_in_words, printable

LONGEST_URL = 8_192
"""Characters of the longest address that is followed. Signed ones have about 2,000."""


def is_loopback(host: str) -> bool:
    """Return True if a host name can only be this machine."""
    import ipaddress  # only for plain http

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=64)  # benchmark `call`
def host_of(url: str) -> str | None:
    """Return the host of a URL, without its port."""
    return urlsplit(url).hostname


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


_LABELS = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_HOST_PATTERN = re.compile(rf"(\*\.)?{_LABELS}\.[a-z][a-z0-9-]*[a-z0-9]")
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABELS}|\[[0-9a-f:.]+\])(?P<port>:[0-9]{{1,5}})?(?P<rest>([/?][!-~]*)?)",
    re.IGNORECASE,
)
"""An address that every reader of URLs understands in the same way: no user, and all of it in ASCII."""


def check_host_pattern(host: str, provider: str) -> None:
    """Raise BrokenPlugin if a provider's declared host is not a name such as ``cdn.acme.ai`` or ``*.acme.ai``."""
    if _HOST_PATTERN.fullmatch(host) is None:
        advice = "give names such as 'cdn.acme.ai' and '*.acme.ai'"
        raise BrokenPlugin(f"provider {provider}: invalid host {printable(host)!r}; {advice}")


def check_url(url: object, base_url: str, hosts: tuple[str, ...]) -> str:
    """Return an address that a plugin's request leads to, if its host is the base URL's or a declared one.

    ``hosts`` are names; ``*.`` stands for one label or more. A base URL on this machine leads to this machine only,
    whatever is declared: the answers of a stand-in never lead out. Raises BrokenPlugin, which names the host.
    """
    found = _URL.fullmatch(url) if isinstance(url, str) and url.isascii() and len(url) <= LONGEST_URL else None
    if found is None or "\\" in found["rest"] or "#" in found["rest"]:
        raise BrokenPlugin(
            "the address is not https://, a host and a path in ASCII, without user, backslash or fragment"
        )
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"] or ""
    base = urlsplit(base_url)
    if is_loopback(base.hostname or ""):
        if not is_loopback(host.strip("[]")):
            raise BrokenPlugin(f"{host} is not this machine, as the provider's own address {base.netloc} is")
    elif scheme != "https":
        raise BrokenPlugin(f"the address of {host} must begin with https://")
    elif f"{host}{port}" not in (base.netloc, base.netloc.removesuffix(":443")):
        if port:
            raise BrokenPlugin(f"the address of {host} has the port {port[1:]}; only the default port is allowed")
        if not any(host == each or (each[0] == "*" and host.endswith(each[1:])) for each in hosts):
            allowed = ", ".join((base.netloc, *hosts))
            raise BrokenPlugin(f"{host} is not a host of the provider, whose hosts are {allowed} (Provider.hosts)")
    return f"{scheme}://{host}{port}/{found['rest'].removeprefix('/')}"
