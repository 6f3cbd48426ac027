"""Watches over a check: its time, what blocks its loop, and a clock that skips."""

from .audit import blocking_calls as blocking_calls
from .hook_watch import hook_outcomes as hook_outcomes
from .log import logged_lines as logged_lines
from .loop_watch import LoopWatch as LoopWatch, check_short_blocks as check_short_blocks
from .memory import MOST_HELD as MOST_HELD, held_bytes as held_bytes
from .skipping_loop import SkippingLoop as SkippingLoop
from .time_limit import (
    Limited as Limited,
    check as check,
    process_check as process_check,
    run as run,
    run_limited as run_limited,
)
