"""Calls of impasto, recorded once and replayed."""
