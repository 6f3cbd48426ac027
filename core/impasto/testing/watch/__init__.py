"""Watches over a check: its time, what blocks its loop, and a clock that skips."""

from .audit import blocking_calls as blocking_calls
from .loop_watch import LoopWatch as LoopWatch
from .skipping_loop import SkippingLoop as SkippingLoop
from .time_limit import (
    PROCESS_TIMES as PROCESS_TIMES,
    Limited as Limited,
    check as check,
    process_check as process_check,
    run as run,
    run_limited as run_limited,
)
