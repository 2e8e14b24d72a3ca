"""How many jobs to hand a worker at a time.

About `TARGET` seconds of work, so that the cost of a message is shared by many small jobs while
a long job travels alone. The estimate follows the busy time that workers report (the conductor's
own clock would mix its delays in); a batch may grow fourfold at most, so one lucky batch of tiny
jobs does not commit a thousand long ones, and shrinks at once.

It is more work where a worker is far away, because a batch that waits must last until the next one
has come, and where there are many workers, because each batch takes some of the conductor's time.

A worker holds up to two batches: it goes on with the second while word of the first travels. One
that executes several jobs at a time holds those besides; its pace is that of all of them together.
"""

from __future__ import annotations

TARGET = 0.01
"""Seconds of work per batch. Measured with jobs of 1 ms on two cores: a wake-up costs the conductor
200 to 300 µs, its caches being cold, which at 5 ms were 5 % of the machine."""
MAX_BATCH = 4096
PER_WORKER = 500e-6
"""Seconds of work per batch, for each worker of the fleet. A batch takes the conductor some 250 µs:
two messages, two or three events, and caches that are cold. So it has half of its time left."""
CROWD = 2**19
"""Jobs in all batches together, at most, so that many workers do not make the conductor read ahead
without bound. A batch of a few hundred jobs costs no more per job than one of thousands."""
_GROWTH = 4
_WEIGHT = 0.4
"""Of the newest batch in the moving average."""


class BatchSizer:
    """Watches one worker's pace."""

    __slots__ = ("_seconds_per_job", "batch", "largest", "round_trip")

    def __init__(self, largest: int = MAX_BATCH) -> None:
        self.largest = largest
        """Never hand out more at a time."""
        self.round_trip = 0.0
        """Seconds that a message to the worker and its answer travel."""
        self._seconds_per_job: float | None = None
        self.batch = 1

    @property
    def seconds_per_job(self) -> float:
        """The pace of the worker; 0 before anything is known."""
        return self._seconds_per_job or 0.0

    def observe(self, jobs: int, nanoseconds: int, workers: int = 1) -> None:
        """Take note that the worker, one of so many, needed that long for so many jobs."""
        newest = nanoseconds / 1e9 / jobs
        average = self._seconds_per_job
        if average is not None and newest < average:
            newest = average + _WEIGHT * (newest - average)
        self._seconds_per_job = max(newest, 1e-9)
        target = max(TARGET, 2 * self.round_trip, PER_WORKER * workers)
        fitting = int(target / self._seconds_per_job)
        most = min(self.largest, CROWD // workers)
        self.batch = max(1, min(fitting, self.batch * _GROWTH, most))
