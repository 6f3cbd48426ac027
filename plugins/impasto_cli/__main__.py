"""`python -m impasto_cli`."""

from .main import main

main(prog_name="impasto")
