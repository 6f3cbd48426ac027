"""``impasto serve``: the gateway."""

from __future__ import annotations

import click

from impasto_plugins.cli.options import number_type

_MAX_WORKERS = 64

_REQUIRED_MODULES = ("yaml", "pybase64", "prometheus_client")


def _worker_count(text: str) -> int:
    """Return the number of processes."""
    if text == "auto":
        from impasto_plugins.concurrency import usable_processors  # the help of all commands starts without it

        return min(usable_processors(), _MAX_WORKERS)
    try:
        return int(number_type(int, 1, _MAX_WORKERS)(text))
    except click.BadParameter as error:
        raise click.BadParameter(f"{error.message}; auto is one for each processor") from None


@click.command("serve", short_help="Serve image models to any OpenAI client.")
@click.option("--config", "path", required=True, metavar="FILE", help="The configuration, as YAML.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=4000,
    show_default=True,
    type=number_type(int, 0, 65_535),
    help="Port to listen on; 0 is any free port.",
)
@click.option(
    "--workers",
    default="1",
    show_default=True,
    type=_worker_count,
    metavar="N|auto",
    help="Number of processes; auto is one for each processor that this process may use.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Only check the configuration, its store of state and its bucket, and report every mistake.",
)
@click.option("--no-auth", is_flag=True, help="Serve without keys, on loopback only.")
@click.pass_context
def command(ctx: click.Context, *, path: str, host: str, port: int, workers: int, check: bool, no_auth: bool) -> None:
    """Serve image models to any OpenAI client: one place for keys, limits and prices.

    --check connects to general_settings.state if that is a URL, and to files.s3, and changes nothing there. If one of
    them is away, that is a warning, since the gateway starts without it.

    SIGHUP reloads the configuration; SIGTERM waits for running calls, then exits.
    """
    from importlib.util import find_spec

    for module in _REQUIRED_MODULES:
        if find_spec(module) is None:
            from impasto import MissingExtra

            raise MissingExtra(f"impasto serve needs {module}: pip install 'impasto[gateway]'")
    from impasto_plugins.cli.terminal.output import echo, protect_output

    from . import serve

    protect_output()
    if check:
        echo(serve.check(path, host=host, no_auth=no_auth))
    else:
        ctx.exit(serve.serve(path, host=host, port=port, workers=workers, no_auth=no_auth))
