"""Batches: a hundred thousand pictures from one manifest, resumable after any stop, and never paid for twice."""
