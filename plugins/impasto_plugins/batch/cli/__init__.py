"""The work of the batch commands: run a batch and report its progress."""
