"""Middleware around every exchange: the one owner of retries, and the one of rates."""
