"""The certificates that connections trust: the system's, the environment's, or a file or folder of the user's."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path

from impasto import ConfigError

Trust = ssl.SSLContext | bool
"""The trusted certificates, as aiohttp takes them: a context, or True for its own."""


def tls_of(trust: str | os.PathLike[str] | ssl.SSLContext | None) -> Trust:
    """Return the trusted certificates: a context, or True for aiohttp's own. Raises ConfigError.

    Reads certificates, so run it in a thread. aiohttp creates its context when it is imported: if SSL_CERT_FILE or
    SSL_CERT_DIR may have changed since, a new one is created here.
    """
    if isinstance(trust, ssl.SSLContext):
        return trust
    variables = _certificate_variables()
    if trust is None and not (_AT_IMPORT or variables):
        return True
    path = None if trust is None else os.fspath(trust)
    try:
        return _context(path, *map(_version, variables if path is None else (path,)))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl: can't read CA certificates from {path!r}: {error}") from None


@functools.lru_cache(maxsize=16)
def _context(path: str | None, *versions: tuple[str, int]) -> ssl.SSLContext:
    """Read certificates: a file's, a folder's, or the environment's; again only if they have changed.

    A system's file takes 20 ms of CPU, for each client that is opened (``python -m benchmarks bedrock``).
    """
    is_folder = path is not None and Path(path).is_dir()
    return ssl.create_default_context(capath=path) if is_folder else ssl.create_default_context(cafile=path)


def _version(path: str) -> tuple[str, int]:
    """Return a path with the time of its last change, in nanoseconds."""
    try:
        return path, Path(path).stat().st_mtime_ns
    except OSError:  # reported when it is read
        return path, 0


def _certificate_variables() -> tuple[str, ...]:
    return tuple(value for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (value := os.environ.get(name)))


_AT_IMPORT = _certificate_variables()
