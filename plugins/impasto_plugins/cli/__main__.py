"""`python -m impasto_plugins.cli`."""

from .main import main

main(prog_name="impasto")
