"""Checks of the installation, for `impasto doctor` and `impasto plugins`."""
