"""``impasto serve``: the gateway."""

from __future__ import annotations

import click

_NEEDED = {"yaml", "pybase64"}


@click.command("serve")
@click.option("--config", "path", required=True, metavar="FILE", help="The configuration, as YAML.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(0, 65_535), help="0 takes any.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option("--check", is_flag=True, help="Only say whether the configuration is sound.")
@click.option("--no-auth", is_flag=True, help="Serve without keys, on loopback only.")
@click.pass_context
def command(ctx: click.Context, *, path: str, host: str, port: int, workers: int, check: bool, no_auth: bool) -> None:
    """Serve image models to any OpenAI client: one place for keys, limits and prices.

    SIGHUP reads the configuration again; SIGTERM ends it when the calls that run have ended.
    """
    try:
        from . import serve
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        from impasto import MissingExtra

        raise MissingExtra(f"impasto serve needs {error.name}: pip install 'impasto[gateway]'") from None
    if check:
        click.echo(serve.check(path, host=host, no_auth=no_auth))
    else:
        ctx.exit(serve.serve(path, host=host, port=port, workers=workers, no_auth=no_auth))
