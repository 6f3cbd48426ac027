"""`impasto resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import calling, model

if TYPE_CHECKING:
    from typing import Unpack

    from .calls import Calling


@click.command("resume", short_help="Fetch the result of a job that was cut off.")
@model
@click.argument("id")
@calling
@click.pass_context
def command(ctx: click.Context, model: str, id: str, **options: Unpack[Calling]) -> None:
    """Fetches the result of a job that the provider took on, by the ID that the error told. It costs nothing more.

    It needs the key that started the job.
    """
    from impasto import InvalidRequest, Registry  # the client: only for those who call

    from .calls import finish
    from .saving import Saving

    saving = Saving(model=model, out=options["out"], force=options["force"], to_stdout=not options["as_json"])
    if problems := list(saving.problems()):
        raise InvalidRequest(problems)
    finish(ctx, saving, lambda client: client.resume(model, id), Registry(), options, jobs=lambda: [id])
