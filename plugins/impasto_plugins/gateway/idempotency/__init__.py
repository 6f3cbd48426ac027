"""Idempotency: repeated requests, calls in flight, stored outcomes."""
