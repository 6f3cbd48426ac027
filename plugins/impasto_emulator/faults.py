"""thin"""
from __future__ import annotations


class Faults:
    def take(self, record):
        return None
    def reset(self): ...
