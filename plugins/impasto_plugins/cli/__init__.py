"""The command line: one module per command. Modules import little, so that `impasto --help` is quick."""
