"""`impasto try`."""

import click


@click.command("try", short_help="See it work: no key, no cost.")
def command() -> None:
    """x"""
