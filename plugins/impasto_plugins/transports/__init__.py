"""Transports: how a request leaves this machine. One module each."""
