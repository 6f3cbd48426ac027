"""Imports and tries other people's plugins for `impasto doctor`, each distribution in a process of its own.

A module may end the process, hang or crash the interpreter while it is imported. That must not end the doctor, nor
change its findings about other plugins.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from impasto import Provider, Registry

LONGEST_SECONDS = 20.0
"""Seconds that one plugin may take to import."""

SLOW_SECONDS = 1.0
"""Seconds from which an import is reported as slow."""

_GIVEN_UP = 3
"""Ended processes after which no more plugins of a distribution are tried."""

_CHILD = "import json, sys; work = json.load(sys.stdin); sys.path[:] = work['path']\n"
_CHILD += "from impasto_plugins.cli.checks.imports import child; child(work['points'], work['seconds'])"
_TIMED_OUT = b"Timeout ("

PluginAddress = tuple[str, str]
"""A group and a name."""


class ProviderAccess(NamedTuple):
    """The settings of a provider's address and key. ``has_secrets``: for a provider without a key variable."""

    key_variable: str | None
    base_url_variable: str | None
    base_url: str
    has_secrets: bool = False


class ImportResult(NamedTuple):
    """The result of importing one plugin: ``state`` is "ok", "note" or "broken", ``text`` the reason if not "ok"."""

    state: str
    text: str = ""
    loaded: bool = False
    reached_by: ProviderAccess | None = None
    """Set for a provider."""


def import_plugin(registry: Registry, group: str, name: str) -> ImportResult:
    """Import a plugin in this process."""
    import click

    from impasto import ConfigError, ImpastoError, MissingExtra, Operation, Provider
    from impasto.ext import COMMANDS, EMULATORS, OPERATIONS, PROVIDERS, TRANSPORTS, is_pattern

    kinds: dict[str, type] = {OPERATIONS: Operation, PROVIDERS: Provider, TRANSPORTS: type, COMMANDS: click.Command}
    start = time.monotonic()
    reached_by = None
    try:
        is_function = group == EMULATORS or (group == OPERATIONS and is_pattern(name))
        plugin: object = registry.load(group, name, object if is_function else kinds.get(group, object))
        if is_function and not callable(plugin):
            return ImportResult("broken", f"must be a function, not {type(plugin).__name__}")
        if isinstance(plugin, Provider):
            reached_by = _reached_by(plugin)
    except MissingExtra as error:
        return ImportResult("note", error.message)
    except ConfigError as error:  # of the environment, such as a setting that is missing; the plugin itself works
        return ImportResult("note", error.message, loaded=True)
    except ImpastoError as error:
        return ImportResult("broken", error.message)
    seconds = time.monotonic() - start
    if seconds < SLOW_SECONDS:
        return ImportResult("ok", loaded=True, reached_by=reached_by)
    return ImportResult("note", f"takes {seconds:.1f} s to import", loaded=True, reached_by=reached_by)


def _reached_by(provider: Provider) -> ProviderAccess:
    """Read a provider's settings here, in the process that imported its module. Raises ConfigError."""
    if provider.key_variable is not None:
        return ProviderAccess(provider.key_variable, provider.base_url_variable, provider.base_url)
    has_address = provider.base_url or os.environ.get(provider.base_url_variable or "")
    account = provider.account({} if has_address else {"api_base": "http://127.0.0.1"})
    address = account.base_url if has_address else ""
    return ProviderAccess(None, provider.base_url_variable, address, has_secrets=bool(account.secrets))


def import_in_processes(points: Sequence[PluginAddress]) -> list[ImportResult]:
    """Import the plugins of one distribution in another process, and in a new one each time they end it."""
    found: list[ImportResult] = []
    ended_processes = 0
    while len(found) < len(points):
        if ended_processes == _GIVEN_UP:
            found.append(ImportResult("broken", f"not tried: {ended_processes} other plugins of it ended the process"))
            continue
        rest = points[len(found) :]
        imports, why = _run(rest)
        found += imports
        if len(imports) < len(rest):
            ended_processes += 1
            found.append(ImportResult("broken", why))
    return found


def _run(points: Sequence[PluginAddress]) -> tuple[list[ImportResult], str]:
    """Return the results that a process reported before it ended, and the way it ended."""
    payload = json.dumps({"path": sys.path, "points": points, "seconds": LONGEST_SECONDS})
    try:
        ran = subprocess.run(  # noqa: S603 - this interpreter, on what it has installed
            [sys.executable, "-c", _CHILD],
            input=payload.encode(),
            capture_output=True,
            check=False,
            timeout=LONGEST_SECONDS * (len(points) + 1),
        )
    except subprocess.TimeoutExpired as error:
        return _parse_output(error.stdout or b""), _too_long()
    if _TIMED_OUT in ran.stderr:
        return _parse_output(ran.stdout), _too_long()
    code = ran.returncode
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return _parse_output(ran.stdout), f"ends the process when it is imported ({how})"


def _too_long() -> str:
    return f"takes more than {LONGEST_SECONDS:g} s to import"


def _parse_output(output: bytes) -> list[ImportResult]:
    came = [ImportResult(*json.loads(line)) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]
    return [
        each if each.reached_by is None else each._replace(reached_by=ProviderAccess(*each.reached_by)) for each in came
    ]


def child(points: Sequence[PluginAddress], seconds: float) -> None:
    """Run in the other process: report the result of each import at once."""
    from impasto import Operation, Registry
    from impasto.ext import OPERATIONS, is_pattern

    from .hook_speed import slow_hook  # here, as what it imports itself is not a plugin's

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that no plugin prints into the results
    registry = Registry()
    tried: dict[Operation, str | None] = {}
    for group, name in points:
        faulthandler.dump_traceback_later(seconds, exit=True)  # from another thread, as this one may hang
        came = import_plugin(registry, group, name)
        if came.state == "ok" and group == OPERATIONS and not is_pattern(name):
            operation = registry.load(group, name, Operation)
            if operation not in tried:  # an alias is another name of the same one
                tried[operation] = slow_hook(operation, name)
            slow = tried[operation]
            came = came if slow is None else ImportResult("note", slow, loaded=True)
        print(json.dumps(came), file=out, flush=True)
    faulthandler.cancel_dump_traceback_later()
    out.flush()
    os._exit(0)  # without waiting for threads or exit functions of plugins
