"""`python -m impasto_plugins.cli`."""

from .entry import main

main(prog_name="impasto")
