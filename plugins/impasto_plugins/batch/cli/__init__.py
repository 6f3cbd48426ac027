"""The batch commands' work: run a batch and report its progress."""
