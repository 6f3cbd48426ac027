"""Manifests: read, validate and plan the rows of a batch."""
