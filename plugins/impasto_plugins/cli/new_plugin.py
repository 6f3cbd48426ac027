"""`impasto new-plugin`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from .terminal.output import echo

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_ENDING = ".template"
_TEMPLATES: dict[str | None, tuple[str, ...]] = {
    None: ("plugin_template",),
    "job": ("plugin_template", "job_template"),
    "transport": ("transport_template",),
    "middleware": ("middleware_template",),
}
"""Folders of templates. Files of a later one replace those of the same name."""


@click.command("new-plugin", short_help="Write a small, complete plugin package to start from.")
@click.argument("name")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The directory to write to.  [default: impasto-NAME]",
)
@click.option("--job", "kind", flag_value="job", help="A provider that answers with a job, which is polled.")
@click.option("--transport", "kind", flag_value="transport", help="A transport, instead of a provider.")
@click.option("--middleware", "kind", flag_value="middleware", help="A middleware, instead of a provider.")
def command(name: str, out: Path | None, kind: str | None) -> None:
    """Write the package impasto-NAME, a small plugin that works.

    It has a provider called NAME with one model, NAME/paint, a local stand-in of the provider to test against, and
    tests with the conformance suite, which pass at once.

    \b
    impasto new-plugin acme
    """
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise click.BadParameter(
            f"must be lower-case letters, digits and single dashes, at most {_LONGEST} characters, such as acme",
            param_hint="NAME",
        )
    if (taken := _name_conflict(name)) is not None:
        raise click.BadParameter(f"{taken} is installed already; choose another name", param_hint="NAME")
    folder = out if out is not None else Path(f"impasto-{name}")
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{str(folder)!r} is not empty; give another folder with -o")
    _write(name, folder, _TEMPLATES[kind])
    python = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
    echo(f"Wrote {folder}. Try it:\n\n    cd {folder} && {python}\n\nIts README.md describes the next steps.")


def _name_conflict(name: str) -> str | None:
    """Return the module, distribution or provider that a plugin of this name would overwrite or conflict with."""
    from importlib.util import find_spec

    from impasto import Registry
    from impasto.ext import PROVIDERS, normalized_name, read_folders

    module, distribution = _module(name), f"impasto-{name}"
    if find_spec(module) is not None:
        return f"the module {module}"
    if any(normalized_name(folder.name) == distribution for folder in read_folders(complete=True)[0]):
        return f"the distribution {distribution}"
    return f"the provider {name}" if name in Registry(allow="none").names(PROVIDERS) else None


def _module(name: str) -> str:
    return f"impasto_{name.replace('-', '_')}"


def _write(name: str, folder: Path, templates: tuple[str, ...]) -> None:
    """Write every file of the templates with its names filled in."""
    from importlib.resources import as_file, files
    from string import Template

    package = _module(name)
    words = {"name": name, "package": package, "title": name.title(), "VARIABLE": f"{name.replace('-', '_').upper()}"}
    for each in templates:
        with as_file(files("impasto_plugins.cli") / each) as template:
            for source in sorted(template.rglob(f"*{_ENDING}")):
                place = source.relative_to(template).as_posix().removesuffix(_ENDING)
                target = folder / place.replace("PACKAGE", package).replace("NAME", name).replace("DOT", ".")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(Template(source.read_text("utf-8")).substitute(words), "utf-8")
