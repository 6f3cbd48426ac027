"""`impasto audio`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import call_options, count, model, parameter

if TYPE_CHECKING:
    from typing import Unpack

    from .calls.call import CallCommandOptions


@click.command("audio", short_help="Generate sounds from a prompt, or from another sound.")
@model
@click.argument("prompt", nargs=-1, required=True)
@click.option("--audio", metavar="FILE", help="The sound to start from: an MP3 or WAV file.")
@parameter
@count
@call_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: str,
    prompt: tuple[str, ...],
    audio: str | None,
    fields: tuple[str, ...],
    n: int,
    **options: Unpack[CallCommandOptions],
) -> None:
    """Generate sounds from a prompt, whose words are joined, and print the names of the files.

    A PROMPT of - reads it from standard input.

    The extension of FILE selects the format. Without -o a file is named after its model and seed. Files are
    overwritten only with -f.

    \b
    impasto audio stability/stable-audio-2.5/text-to-audio rain on a tin roof -p duration=30 -o rain.wav
    impasto audio stability/stable-audio-3/audio-to-audio a choir hums it --audio tune.mp3
    """
    from .calls.call import make  # asyncio and the client: only for those who call

    make(ctx, model, n=n, prompt=" ".join(prompt), audio=audio, fields=fields, **options)
