"""Transports: the plugins that send requests. One module each."""
