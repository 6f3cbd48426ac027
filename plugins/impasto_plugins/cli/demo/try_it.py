"""`impasto try`."""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from impasto_plugins.cli.terminal.output import columns, echo, is_terminal, protect_output, stdout

if TYPE_CHECKING:
    from .tour import FinishedStep

PAGE = "index.html"
_SIZE_AND_TIME = "     1856 x 1280   1.08 s  "


@click.command("try", short_help="Generate and edit images now: no key, no cost.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("impasto-try"),
    show_default=True,
    metavar="DIR",
    help="Folder for the page and the images.",
)
@click.option("--all", "everything", is_flag=True, help="Generate sounds and 3D models too.")
@click.option("--open/--no-open", "show", default=None, help="Open the page.  [default: if there is a desktop]")
def command(models: tuple[str, ...], out: Path, everything: bool, show: bool | None) -> None:
    """Generate and edit images through a real HTTP server, and write an HTML page that shows each call.

    The server is the built-in emulator, in this process: no key, no network, no cost. DIR is created; an earlier
    page in it is replaced.

    With the name of a MODEL, that model is called at the emulator that its plugin ships, and the result is saved.
    """
    from impasto_plugins.cli.terminal.signals import run_until_signal  # this and the client: only for those who try

    from .more_steps import MORE_STEPS
    from .page import GENERATOR, count_steps, write
    from .tour import STEPS, run_tour

    protect_output()
    page = out / PAGE
    _prepare(out, page, GENERATOR)
    if models:
        from .models import call_models

        rows: list[str] = []

        def report_file(model: str, file: Path, seconds: float) -> None:
            echo(f"  {model}  {seconds:.2f} s  {file}")
            rows.append(f'<p>{escape(model)}: <a href="{quote(file.name)}">{escape(file.name)}</a></p>')

        run_until_signal(call_models(models, out, report_file))
        page.write_text(f"<!doctype html>{GENERATOR}{''.join(rows)}", "utf-8")
        return
    more = MORE_STEPS if everything else ()
    steps = (*STEPS, *more)
    echo(f"{len(steps)} calls to the built-in emulator, over HTTP. No key, no cost.\n")
    width = max(len(step.title) for step in steps)
    narrow = columns() < width + max(len(step.model) for step in steps) + len(_SIZE_AND_TIME)

    def report(done: FinishedStep) -> None:
        step = done.step
        model = "" if narrow else f"  {click.style(step.model, dim=True)}"
        echo(f"  {step.title:<{width}}  {done.size:>12}  {done.seconds:5.2f} s{model}")

    tour = run_until_signal(run_tour(out, report, more))
    write(page, tour)
    credits = sum(charge.credits for charge in tour.charges)
    echo("\nA call with wrong parameters, refused before anything was sent:")
    for problem in tour.refusal.problems:
        echo(f"  {problem}")
    echo(f"\n{count_steps(tour)}, {len(tour.charges)} charges: {credits:g} of the emulator's credits.")
    echo(f"\nThe page: {page}")
    if show if show is not None else _has_desktop():
        click.launch(page.resolve().as_uri())


def _prepare(out: Path, page: Path, generator: str) -> None:
    """Create the folder, with a placeholder page until the real one is written.

    A folder that holds anything but an earlier page is not touched.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(out.iterdir()) and not (page.is_file() and generator in page.read_text("utf-8"))
        if not taken:
            page.write_text(f"<!doctype html>{generator}<p>impasto try was interrupted: run it again.", "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"can't use {str(out)!r}: {getattr(error, 'strerror', None) or error}") from None
    if taken:
        raise click.UsageError(f"{str(out)!r} contains other files; give a new folder with --out")


def _has_desktop() -> bool:
    desktop = sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return desktop and is_terminal(stdout()) and "SSH_CONNECTION" not in os.environ
