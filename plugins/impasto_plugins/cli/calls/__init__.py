"""One call of a model by a command: its values, its result's files, its report."""
