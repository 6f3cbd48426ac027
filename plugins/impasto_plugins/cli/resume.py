"""`impasto resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import call_options, model, number_type, registry_of
from .terminal.output import protect_output

if TYPE_CHECKING:
    from typing import Unpack

    from impasto import Client, Result

    from .calls.call import CallCommandOptions


@click.command("resume", short_help="Fetch the result of an interrupted job.")
@model
@click.argument("id")
@click.option(
    "-n", "n", type=number_type(int), default=1, show_default=True, help="Number of the job's outputs, 1 to 10."
)
@call_options
@click.pass_context
def command(ctx: click.Context, model: str, id: str, n: int, **options: Unpack[CallCommandOptions]) -> None:
    """Fetch the result of a job that the provider accepted, by the ID in the error. It costs nothing more.

    It needs the key that started the job. Some models make several outputs in one job: -n is in the error too, and an
    output that is missing is then reported.
    """
    from impasto import InvalidRequest  # the client: only for those who call

    from .calls.artifact_files import ArtifactSaver
    from .calls.call import finish, wrong_n

    protect_output()
    saving = ArtifactSaver(
        model=model, out=options["out"], n=n, force=options["force"], to_stdout=not options["as_json"]
    )
    if problems := wrong_n(n) or list(saving.problems()):
        raise InvalidRequest(problems)
    registry = registry_of(ctx)

    async def fetch(client: Client) -> Result:
        result, price = await client.resume(model, id, n=n), registry.operation(model).flat_cost
        return (
            result if result.cost is not None or price is None else result.priced(price)
        )  # the job's: fetching it is free

    finish(ctx, saving, fetch, registry, options, jobs=lambda: {id: n})
