"""How many jobs to hand a worker at a time.

About `TARGET` seconds of work, so that the cost of a message is shared by many small jobs while
a long job travels alone. The estimate follows the busy time that workers report (the conductor's
own clock would mix its delays in); a batch may grow fourfold at most, so one lucky batch of tiny
jobs does not commit a thousand long ones, and shrinks at once.

A worker holds up to two batches: it goes on with the second while word of the first travels. One
that executes several jobs at a time holds those besides; its pace is that of all of them together.
"""

from __future__ import annotations

TARGET = 0.01
"""Seconds of work per batch. Measured with jobs of 1 ms on two cores: a wake-up costs the conductor
200 to 300 µs, its caches being cold, which at 5 ms were 5 % of the machine."""
MAX_BATCH = 4096
_GROWTH = 4
_WEIGHT = 0.4
"""Of the newest batch in the moving average."""


class BatchSizer:
    """Watches one worker's pace."""

    __slots__ = ("_seconds_per_job", "batch", "largest")

    def __init__(self, largest: int = MAX_BATCH) -> None:
        self.largest = largest
        """Never hand out more at a time."""
        self._seconds_per_job: float | None = None
        self.batch = 1

    def observe(self, jobs: int, nanoseconds: int) -> None:
        """Take note that the worker needed that long for so many jobs."""
        newest = nanoseconds / 1e9 / jobs
        average = self._seconds_per_job
        if average is not None and newest < average:
            newest = average + _WEIGHT * (newest - average)
        self._seconds_per_job = max(newest, 1e-9)
        fitting = int(TARGET / self._seconds_per_job)
        self.batch = max(1, min(fitting, self.batch * _GROWTH, self.largest))
