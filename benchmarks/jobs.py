"""What workers execute. Every contender is given these same functions.

Workers import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

_MARGIN = 0.0005
"""Seconds before its end at which a timed job stops sleeping: timers of the kernel come late."""


def noop(job: Any) -> Any:
    """Do nothing."""
    return job


def negate(array: Any) -> Any:
    """Make another array of one."""
    return -array


def spin(loops: int) -> int:
    """Keep a CPU busy for so many loops. No clock: a job that is held up is not cut short."""
    total = 0
    for number in range(loops):
        total += number & 7
    return total


def occupy(seconds: float) -> float:
    """Take exactly that long by the clock, so that only the order of jobs makes a difference."""
    end = time.perf_counter() + seconds
    if seconds > 2 * _MARGIN:
        time.sleep(seconds - _MARGIN)
    while time.perf_counter() < end:
        pass
    return seconds


def witness(seconds: float) -> tuple[int, float]:
    """Say who executes this since when, by a clock that all processes share."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), began


def loops_per_second() -> float:
    """Calibrate `spin` to this machine: the best of several, which is the least disturbed."""
    loops = 100_000
    return loops / min(_seconds(spin, loops) for _ in range(20))


def heavy_tail(count: int) -> list[float]:
    """Draw durations of which few make up most of the work: Pareto, 2 to 400 ms.

    The last tenth are short ones: who hands out well can reach the lower bound.
    """
    draw = random.Random(8)  # noqa: S311 - made-up work, the same each time
    seconds = sorted(min(0.002 * draw.paretovariate(1.1), 0.4) for _ in range(count))
    last, first = seconds[: count // 10], seconds[count // 10 :]
    draw.shuffle(first)
    return first + last


def _seconds(function: Any, job: Any) -> float:
    began = time.perf_counter()
    function(job)
    return time.perf_counter() - began
