"""Batches on an engine, which starts workers. Each is a host of a shared batch, whose ledger is the truth."""

from . import ray as ray
