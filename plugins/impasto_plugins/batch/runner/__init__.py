"""The scheduler of a batch: concurrency, limits, health checks."""
