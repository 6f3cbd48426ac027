"""Listening sockets that survive running out of descriptors, and work in threads that always finishes."""

from .listener import Listener as Listener, listen as listen, parse_bind_host as parse_bind_host
from .threads import open_in_thread as open_in_thread, to_thread_shielded as to_thread_shielded
