"""Importing and trying other people's plugins for `impasto doctor`, each distribution in a process of its own.

A module may end the process, hang or crash the interpreter while it is imported: that must end neither the doctor nor
what it says of the others.
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
"""How long one plugin may take to import."""

SLOW_SECONDS = 1.0
"""From here on it is worth knowing."""

_GIVEN_UP = 3
"""After so many that ended their process, no more of a distribution are tried."""

_CHILD = "import json, sys; given = json.load(sys.stdin); sys.path[:] = given['path']\n"
_CHILD += "from impasto_plugins.cli.probe import child; child(given['points'], given['seconds'])"
_TIMED_OUT = b"Timeout ("

Point = tuple[str, str]
"""A group and a name."""


class ReachedBy(NamedTuple):
    """The settings by which a provider is reached. ``has_secrets``: for a provider without a key variable."""

    key_variable: str | None
    base_url_variable: str | None
    base_url: str
    has_secrets: bool = False


class Import(NamedTuple):
    """What came of importing one plugin: ``state`` is "ok", "note" or "broken", ``text`` why it is no "ok"."""

    state: str
    text: str = ""
    loaded: bool = False
    reached_by: ReachedBy | None = None
    """Of a provider."""


def imported(registry: Registry, group: str, name: str) -> Import:
    """Imports a plugin in this process."""
    import click

    from impasto import ImpastoError, MissingExtra, Operation, Provider
    from impasto.ext import COMMANDS, OPERATIONS, PROVIDERS, TRANSPORTS

    kinds: dict[str, type] = {OPERATIONS: Operation, PROVIDERS: Provider, TRANSPORTS: type, COMMANDS: click.Command}
    start = time.monotonic()
    reached_by = None
    try:
        plugin: object = registry.load(group, name, kinds.get(group, object))
        if isinstance(plugin, Provider):
            reached_by = _reached_by(plugin)
    except MissingExtra as error:
        return Import("note", error.message)
    except ImpastoError as error:
        return Import("broken", error.message)
    seconds = time.monotonic() - start
    if seconds < SLOW_SECONDS:
        return Import("ok", loaded=True, reached_by=reached_by)
    return Import("note", f"takes {seconds:.1f} s to import", loaded=True, reached_by=reached_by)


def _reached_by(provider: Provider) -> ReachedBy:
    """Read a provider's settings here, in the process that imported its module. Raises ConfigError."""
    if provider.key_variable is not None:
        return ReachedBy(provider.key_variable, provider.base_url_variable, provider.base_url)
    account = provider.account({})
    return ReachedBy(None, provider.base_url_variable, account.base_url, has_secrets=bool(account.secrets))


def imported_apart(points: Sequence[Point]) -> list[Import]:
    """Imports the plugins of one distribution in another process; in a new one where they end it."""
    found: list[Import] = []
    ended = 0
    while len(found) < len(points):
        if ended == _GIVEN_UP:
            found.append(Import("broken", f"not tried: {ended} others of its distribution ended the process"))
            continue
        rest = points[len(found) :]
        told, why = _run(rest)
        found += told
        if len(told) < len(rest):
            ended += 1
            found.append(Import("broken", why))
    return found


def _run(points: Sequence[Point]) -> tuple[list[Import], str]:
    """What a process told before it ended, and how it ended."""
    given = json.dumps({"path": sys.path, "points": points, "seconds": LONGEST_SECONDS})
    try:
        ran = subprocess.run(  # noqa: S603 - this interpreter, on what it has installed
            [sys.executable, "-c", _CHILD],
            input=given.encode(),
            capture_output=True,
            check=False,
            timeout=LONGEST_SECONDS * (len(points) + 1),
        )
    except subprocess.TimeoutExpired as error:
        return _told(error.stdout or b""), _too_long()
    if _TIMED_OUT in ran.stderr:
        return _told(ran.stdout), _too_long()
    code = ran.returncode
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return _told(ran.stdout), f"ends the process when it is imported ({how})"


def _too_long() -> str:
    return f"takes more than {LONGEST_SECONDS:g} s to import"


def _told(output: bytes) -> list[Import]:
    came = [Import(*json.loads(line)) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]
    return [each if each.reached_by is None else each._replace(reached_by=ReachedBy(*each.reached_by)) for each in came]


def child(points: Sequence[Point], seconds: float) -> None:
    """The other process: tells what came of each import as soon as it is known."""
    from impasto import Operation, Registry
    from impasto.ext import OPERATIONS

    from .trial import slow_hook  # here, as what it imports itself is not a plugin's

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a plugin prints is no answer
    registry = Registry()
    for group, name in points:
        faulthandler.dump_traceback_later(seconds, exit=True)  # from a thread of its own, whatever holds this one
        came = imported(registry, group, name)
        if came.state == "ok" and group == OPERATIONS:
            slow = slow_hook(registry.load(group, name, Operation), name)
            came = came if slow is None else Import("note", slow, loaded=True)
        print(json.dumps(came), file=out, flush=True)
    faulthandler.cancel_dump_traceback_later()
    out.flush()
    os._exit(0)  # no thread or exit handler of a plugin holds it up
