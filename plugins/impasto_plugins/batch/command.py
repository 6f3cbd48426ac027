"""``impasto batch``: run a manifest, and report on batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from impasto_plugins.cli.options import as_json, number_type, plugin_options
from impasto_plugins.cli.terminal.output import echo

if TYPE_CHECKING:
    from typing import Unpack

    from .cli.run import CommandOptions


def _local(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    if value and "://" not in value:
        return Path(value)
    from .option_names import options_as
    from .output.s3 import local_folder

    with options_as({"--out": param.opts[0] if isinstance(param, click.Option) else "DIR"}):
        return local_folder(value) if value is not None else None


_folder = click.argument("folder", metavar="DIR", callback=_local)


@click.group("batch", short_help="Generate many images from a manifest; resumable, never paid twice.")
def command() -> None:
    """Generate the images of a manifest. If it is interrupted, the same command resumes it."""


@command.command("run", short_help="Run a manifest, or resume it.")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="DIR", help="Output: a folder, or s3://bucket/prefix.")
@click.option("--staging", callback=_local, metavar="DIR", help="With s3://: the local folder of the ledger.")
@click.option("--s3-endpoint", metavar="URL", help="With s3://: an S3 that is not Amazon's.")
@click.option("--join", is_flag=True, help="With s3://: share the batch with other hosts that run this command.")
@click.option("--share", metavar="K/N", help="With --join: this host's share of rows, rate and budget, such as 1/3.")
@click.option("--state", metavar="PATH|DSN", help="Rate limit, with --join the budget too, of all with this state.")
@click.option("--engine", type=click.Choice(["ray"]), help="With s3://: run the batch in workers of Ray.")
@click.option("--workers", type=number_type(int, 1, 1_000), help="With --engine: number of workers.  [default: 1]")
@click.option("--dry-run", is_flag=True, help="Validate the manifest and print its cost; send nothing.")
@click.option(
    "--concurrency", type=number_type(int, 1, 1_000), default=64, show_default=True, help="Maximum images in flight."
)
@click.option("--budget", type=number_type(), metavar="USD", help="Stop before the cost exceeds this.")
@click.option("--max-failures", metavar="N|P%", help="Stop if more images fail: a number (20) or a share (5%).")
@click.option("--timeout", type=number_type(), metavar="SECONDS", help="Seconds for each image.  [default: 300]")
@click.option("--deadline", metavar="TIME", help="Stop starting images after this long: 90s, 30m, 2h.")
@click.option("--rate", metavar="N/TIME", help="Rate limit, such as 150/10s.  [default: the provider's limit]")
@click.option(
    "--names",
    default="{id}",
    show_default=True,
    metavar="TEMPLATE",
    help="File names; may contain {id}, {index}, {model}, {seed}.",
)
@click.option("--retry-failed", is_flag=True, help="Also retry images that were refused for good.")
@click.option("--retry-ambiguous", is_flag=True, help="Also retry images that may have been charged; may pay again.")
@click.option("--start-over", is_flag=True, help="Start a new ledger if it is missing or damaged; may pay again.")
@click.option("--skip-invalid", is_flag=True, help="Skip invalid rows.")
@click.option("--dedupe", is_flag=True, help="Skip duplicate rows.")
@click.option("--drop-params", is_flag=True, help="Drop OpenAI parameters that the model does not support.")
@click.option("--report/--no-report", default=True, help="Write report.html at the end.  [default: yes]")
@click.option("--api-base", metavar="URL", help="Another address for the provider.")
@click.option("--emulator", is_flag=True, help="Call the built-in emulator: no key, no cost.")
@plugin_options
@as_json
@click.pass_context
def run(ctx: click.Context, /, **options: Unpack[CommandOptions]) -> None:
    """Generate the images of MANIFEST. Run it again to generate the missing ones.

    MANIFEST is a file of JSON lines, {"id": ..., "model": ..., and the model's fields} or those of OpenAI's Batch API;
    a .csv or .parquet table; or - for standard input, which is stored in the folder, and used again if standard input
    is empty the next time.

    Ctrl-C waits for images in flight, a second one does not. Exit codes: 0 if every image came, 1 if images failed or
    are missing or rows were skipped, 2 if the input is invalid (nothing was sent), 130 if a signal interrupted it.
    """
    from .cli.run import run_command  # the client: only for those who call

    ctx.exit(run_command(options))


@command.command("status", short_help="Report the state of a batch, running or not.")
@click.argument("folder", metavar="DIR")
@click.option("--s3-endpoint", metavar="URL", help="With s3://: an S3 that is not Amazon's.")
@as_json
@click.pass_context
def status(ctx: click.Context, folder: str, s3_endpoint: str | None, as_json: bool) -> None:
    """Report the status of the batch in DIR, also while it runs, and name images that are missing.

    For s3://bucket/prefix it is read from the local folder of that batch or, if several hosts share the batch, from the
    bucket. Ends with 1 if images are missing, or if none is pending and some failed or rows were skipped.
    """
    from .cli.reporters import format_status, retry_hint
    from .cli.status import find_status
    from .option_names import options_as

    with options_as({"--out": "DIR"}):
        found, missing_images = find_status(folder, s3_endpoint)
    for missing in missing_images:
        echo(f"Warning: {missing}", err=True)
    if as_json:
        import json

        import attrs

        echo(json.dumps(attrs.asdict(found), indent=2))
    else:
        echo(format_status(found))
        if (hint := retry_hint(found)) is not None:
            echo(hint, err=True)
    is_over = found.state != "running" and found.pending <= 0
    ctx.exit(1 if found.missing or (is_over and not found.is_whole) else 0)


@command.command("report", short_help="Write a batch's contact sheet.")
@_folder
@click.option("--all", "every", is_flag=True, help="All images, on several pages, instead of the first 500.")
def report(folder: Path, every: bool) -> None:
    """Write report.html in DIR again and print the names of its pages.

    It shows thumbnails, prompts, seeds, costs and failures, opens from disk, and loads nothing from the network.
    """
    from .ledger.evidence import check_links
    from .ledger.workspace import WorkspacePaths
    from .output.report import write_report
    from .output.status import read_status

    layout = WorkspacePaths(folder)
    check_links(layout)
    status, history = read_status(layout)
    for path in write_report(layout, history.images, status, every=every):
        echo(path)


@command.command("export", short_help="Write a training set from a batch.")
@_folder
@click.option("--out", "-o", required=True, callback=_local, metavar="DIR", help="A new folder for the shards.")
@click.option(
    "--form",
    type=click.Choice(["parquet", "webdataset"]),
    default="parquet",
    show_default=True,
    help="Parquet, or tar files for WebDataset.",
)
@click.option(
    "--shard", type=number_type(int, 1, 1_000_000), default=1_000, show_default=True, help="Images in each shard."
)
@click.pass_context
def export(ctx: click.Context, folder: Path, out: Path, form: str, shard: int) -> None:
    """Write the images of the batch in DIR into shards and print their names.

    Each image has its prompt, seed and request. Parquet needs impasto[batch].
    """
    from .ledger.workspace import WorkspacePaths
    from .output.export import export
    from .output.status import missing_images, read_status

    _, history = read_status(WorkspacePaths(folder))
    for missing in missing_images(history):
        echo(f"Warning: left out: {missing}", err=True)
    for path in export(history, out, "parquet" if form == "parquet" else "webdataset", shard=shard):
        echo(path)
    ctx.exit(1 if history.missing else 0)
