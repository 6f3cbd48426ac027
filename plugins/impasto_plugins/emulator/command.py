"""``impasto emulator``: the emulator as a server of its own."""

from __future__ import annotations

import click

from impasto_plugins.cli.options import number_type
from impasto_plugins.cli.terminal.output import echo

DEFAULT_PORT = 8008


@click.command("emulator", short_help="Serve the providers' APIs on this machine, at no cost.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=number_type(int, 0, 65_535),
    help="Port to listen on; 0 is any free one.",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --host that other machines can reach.")
@click.option("--strict", is_flag=True, help="Refuse unknown fields, which the vendor ignores.")
@click.option("--seed", type=number_type(int), help="Use the same random seeds in every run.")
@click.option("--key", "keys", multiple=True, help="Accept only this key; may be repeated. Default: any key.")
@click.option("--credits", type=number_type(float, 0), help="Credits of the account at the start.")
@click.option(
    "--scale",
    "image_scale",
    type=number_type(float, 0.01, 1),
    help="Factor for the sides of images, e.g. 0.25 to draw faster.",
)
@click.option("--answer-seconds", type=number_type(float, 0), help="Seconds that an operation takes.")
@click.option("--job-seconds", type=number_type(float, 0), help="Seconds that an asynchronous operation takes.")
@click.option("--result-seconds", type=number_type(float, 0), help="Seconds for which a job's result is available.")
@click.option("--rate-seconds", type=number_type(float, 0), help="Seconds in which 150 requests are allowed.")
@click.option(
    "--lock-seconds", type=number_type(float, 0), help="Seconds for which a key is locked after too many requests."
)
def command(host: str, port: int, allow_remote: bool, keys: tuple[str, ...], **options: object) -> None:
    """Serve the image providers' APIs on this machine: real checks, real images, no cost.

    Its own paths are /_emulator/charges, /_emulator/requests, /_emulator/faults and /_emulator/reset.
    """
    from impasto import ConfigError
    from impasto.ext import is_loopback
    from impasto_plugins.concurrency import parse_bind_host

    from .settings import EmulatorSettings

    try:
        host = parse_bind_host(host)
        if not is_loopback(host) and not allow_remote:
            raise click.UsageError(f"--host {host} can be reached by other machines: add --allow-remote to allow that")
        settings = EmulatorSettings.from_mapping({"host": host, "port": port, "keys": keys or None, **options})
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    import asyncio  # with aiohttp and Pillow: not needed for --help

    asyncio.run(_run(settings))


async def _run(settings: object) -> None:
    import asyncio
    import signal

    from impasto_plugins.cli.terminal.signals import not_ignored

    from .server.server import Emulator
    from .settings import EmulatorSettings

    assert isinstance(settings, EmulatorSettings)  # noqa: S101 - typed as object so that the module loads without aiohttp
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in not_ignored(signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    emulator = Emulator(settings)
    try:
        await emulator.__aenter__()
    except OSError as error:
        raise click.ClickException(f"can't listen on {settings.host} port {settings.port}: {error.strerror}") from None
    try:
        echo(f"impasto emulator at {emulator.url} (Ctrl-C stops it)")
        echo(f"  export STABILITY_API_BASE={emulator.url} STABILITY_API_KEY=emulator")
        echo(f"  export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={emulator.url} AWS_REGION=us-west-2")
        echo("  export AWS_ACCESS_KEY_ID=emulator AWS_SECRET_ACCESS_KEY=emulator")
        await stop.wait()
    finally:
        await emulator.__aexit__(None, None, None)
