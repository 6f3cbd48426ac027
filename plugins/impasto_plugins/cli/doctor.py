"""`impasto doctor`."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from impasto.ext import GROUPS, OWN_DISTRIBUTION, PROVIDERS, VARIABLE, normalized_name, read_folders, scan_entry_points

from .declarations import PluginInfo, declared
from .options import as_json, registry_of
from .terminal.output import columns, echo

if TYPE_CHECKING:
    from impasto import Registry

    from .checks.imports import ImportResult

FEW_FILES = 256
_DEVELOPMENT = ("benchmarks", "dev", "docs")
"""Extras for those who work on impasto itself."""

_INDENT = " " * len("  BROKEN  ")


class Finding:
    """The result of one check: ``state`` is "ok", "note" (not broken, but worth knowing) or "broken"."""

    __slots__ = ("section", "state", "subject", "text")

    def __init__(self, section: str, subject: str, text: str, state: str = "ok") -> None:
        self.section, self.subject, self.text, self.state = section, subject, text, state


@click.command("doctor", short_help="Check the installation: versions, keys, plugins.")
@as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check the installation and report what is broken.

    Checked are Python, dependencies, extras, keys, addresses and limits; that the files of every distribution with
    plugins are as installed; and that every plugin can be imported, those of other distributions in separate
    processes.

    Keys are never shown. The exit code is 1 if something is broken.
    """
    from impasto import ConfigError, Registry

    registry, wrong_setting = registry_of(ctx), []
    try:
        _ = registry.allowed
    except ConfigError as error:
        registry = Registry(allow="none")
        wrong_setting.append(Finding("plugins", VARIABLE, error.message, "broken"))
    imports = _imports(registry)
    findings = [
        Finding("python", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_dependencies(registry),
        *_providers({each.name: came for each, came in imports.items() if each.group == PROVIDERS}),
        *_limits(),
        *wrong_setting,
        *_distributions(registry),
        *_plugins(registry, imports),
    ]
    broken = any(each.state == "broken" for each in findings)
    if as_json:
        import json

        rows = [{name: getattr(each, name) for name in ("section", "subject", "state", "text")} for each in findings]
        echo(json.dumps({"broken": broken, "findings": rows}, indent=2))
    else:
        _print(findings)
    ctx.exit(1 if broken else 0)


def _print(findings: list[Finding]) -> None:
    marks = {"ok": click.style("ok    ", fg="green"), "note": click.style("note  ", fg="yellow")}
    section = ""
    for each in findings:
        if each.section != section:
            section = each.section
            echo(click.style(section, bold=True))
        mark = marks.get(each.state, click.style("BROKEN", fg="red"))
        text = click.wrap_text(f"{each.subject}: {each.text}", columns(), _INDENT, _INDENT)
        echo(f"  {mark}  {text.removeprefix(_INDENT)}")


def _dependencies(registry: Registry) -> Iterator[Finding]:
    """Check the requirements in impasto's metadata, and the extras that users can install."""
    own = next((owner for owner in registry.scan.owners if owner.is_own), None)
    if own is None:
        yield Finding("dependencies", OWN_DISTRIBUTION, "its metadata is not found; install it again", "broken")
        return
    yield Finding("dependencies", OWN_DISTRIBUTION, own.version)
    folders, _ = read_folders(complete=True)
    versions = {normalized_name(folder.name): folder.version for folder in reversed(folders)}
    missing: dict[str, list[str]] = {}
    for text in own.installed.requires or ():
        requirement, _, marker = text.partition(";")
        found = re.match(r"[\w.-]+", requirement.strip())
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (
            found is None
            or normalized_name(found.group()) == OWN_DISTRIBUTION
            or (extra is not None and extra.group(1) in _DEVELOPMENT)
        ):
            continue
        name = found.group()
        installed = versions.get(normalized_name(name))
        if extra is not None:
            wanted = missing.setdefault(extra.group(1), [])
            if installed is None:
                wanted.append(name)
        elif installed is None:
            yield Finding("dependencies", name, "is not installed", "broken")
        else:
            least = re.search(r">=\s*([\d.]+)", requirement)
            old = least is not None and _numbers(installed) < _numbers(least.group(1))
            text = f"{installed}, too old: {requirement.strip()}" if old else installed
            yield Finding("dependencies", name, text, "broken" if old else "ok")
    for name, absent in sorted(missing.items()):
        text = f"not installed ({', '.join(absent)}): pip install 'impasto[{name}]'" if absent else "installed"
        yield Finding("extras", name, text, "note" if absent else "ok")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _providers(imports: Mapping[str, ImportResult]) -> Iterator[Finding]:
    """Check the key and the address of each provider that could be imported."""
    from impasto import ConfigError
    from impasto.ext import check_base_url, check_key

    for name, came in sorted(imports.items()):
        if came.reached_by is None:
            continue
        key, base, base_url, has_secrets = came.reached_by
        try:
            if key is None:
                found = "found" if has_secrets else "not set in the environment; the transport also looks elsewhere"
                yield Finding("providers", f"{name} key", found)
                yield _address(name, base, base_url)
                continue
            if (value := os.environ.get(key)) is None:
                yield Finding("providers", f"{name} key", f"{key} is not set (--emulator needs none)", "note")
            else:
                check_key(value)
                yield Finding("providers", f"{name} key", f"{key} is set")
            address = os.environ.get(base or "") or base_url
            yield _address(name, base, check_base_url(address, base or "") if address else "")
        except ConfigError as error:
            yield Finding("providers", name, error.message, "broken")


def _address(name: str, variable: str | None, base_url: str) -> Finding:
    if base_url:
        return Finding("providers", f"{name} base URL", base_url)
    advice = f"set {variable} or give api_base" if variable is not None else "give api_base"
    return Finding("providers", f"{name} base URL", f"each caller has its own: {advice}", "note")


def _limits() -> Iterator[Finding]:
    import resource

    from impasto import ConfigError
    from impasto.ext import Options, default_concurrency

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    few = 0 < soft < FEW_FILES
    text = f"{files}: {default_concurrency():,} calls in flight" + ("; raise it with ulimit -n" if few else "")
    yield Finding("limits", "open files", text, "note" if few else "ok")
    try:
        Options()
    except ConfigError as error:
        yield Finding("limits", "settings", error.message, "broken")


def _distributions(registry: Registry) -> Iterator[Finding]:
    """Check each distribution with plugins: its permission, and its files against its RECORD."""
    from .checks.installed_files import files_of

    allowed, section = registry.allowed, "distributions"
    for owner in registry.scan.owners:
        files = files_of(owner)
        state = {"changed": "broken", "unknown": "note"}.get(files.state, "ok")
        if allowed.permits(owner):
            yield Finding(section, str(owner), files.text, state)
        else:
            text = f"not allowed: {allowed.source} allows {allowed}; {files.text}"
            yield Finding(section, str(owner), text, "broken" if state == "broken" else "note")
    installed = {normalized_name(owner.name) for owner in registry.scan.owners}
    for folder in scan_entry_points(complete=True).damaged:
        yield Finding(section, folder.path, folder.reason, "broken" if folder.has_plugins else "note")
    for name in sorted(allowed.names or ()):
        if name not in installed:
            yield Finding(section, name, f"allowed by {allowed.source}, but not installed or without plugins", "note")


def _imports(registry: Registry) -> dict[PluginInfo, ImportResult]:
    """Import each plugin that is allowed, other people's in processes of their own."""
    from .checks.imports import (  # the help of all commands goes without
        ImportResult,
        import_in_processes,
        import_plugin,
    )

    allowed = [each for group in GROUPS for each in declared(registry, group) if each.allowed]
    found = {each: ImportResult("broken", each.refusal) for each in allowed if each.refusal is not None}
    by_owner: dict[str, list[PluginInfo]] = {}
    for each in allowed:
        if each.refusal is None:
            by_owner.setdefault(each.distribution, []).append(each)
    for owner in registry.scan.owners:
        mine = by_owner.pop(owner.name, [])
        points = [(each.group, each.name) for each in mine]
        came = [import_plugin(registry, *point) for point in points] if owner.is_own else import_in_processes(points)
        found.update(zip(mine, came, strict=True))
    return found


def _plugins(registry: Registry, imports: Mapping[PluginInfo, ImportResult]) -> Iterator[Finding]:
    """Count the plugins that load, and name those that don't."""
    for group in GROUPS:
        alike = {each: came for each, came in imports.items() if each.group == group}
        for each, came in alike.items():
            if came.state != "ok":
                text = f"{each.distribution} {each.version}: {came.text}"
                yield Finding("plugins", f"{group} {each.name}", text, came.state)
        loaded = {each.name for each, came in alike.items() if came.loaded}
        yield Finding("plugins", group, f"{len(loaded)} of {len(registry.names(group))} imported")
    for group in sorted(registry.scan.declarations):
        if group not in GROUPS:
            yield Finding("plugins", group, f"unknown group; the groups are {', '.join(GROUPS)}", "note")
