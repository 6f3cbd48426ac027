"""Calls with an idempotency key: made once, however often and from however many processes they are repeated."""

from .runner import run_idempotent

__all__ = ["run_idempotent"]
