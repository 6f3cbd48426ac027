"""The terminal: output, errors, signals and previews of commands."""
