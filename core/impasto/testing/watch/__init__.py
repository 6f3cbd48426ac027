"""Watches over a check: its time, what blocks its loop, and a clock that skips."""

from .audit import blocking_calls as blocking_calls
from .loop_watch import LoopWatch as LoopWatch
from .skipping_loop import SkippingLoop as SkippingLoop
from .time_limit import Limited as Limited, check as check, run as run, run_limited as run_limited
