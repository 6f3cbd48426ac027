"""Listening sockets that survive running out of descriptors, work in threads that always finishes, processors."""

from .listener import Listener as Listener, listen as listen, parse_bind_host as parse_bind_host
from .processors import usable_processors as usable_processors
from .threads import open_in_thread as open_in_thread, to_thread_shielded as to_thread_shielded
