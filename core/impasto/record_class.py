"""The decorator of the records that each call makes: classes that are frozen for type checkers, not at run time.

A class that is frozen at run time takes four times as long to create, and each call makes five: see the benchmark
``dispatch``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import frozen as record
else:
    import attrs

    record = functools.partial(attrs.define, unsafe_hash=True)

__all__ = ["record"]
