"""State of the emulated account: charges and jobs."""
