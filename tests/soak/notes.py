"""What each execution writes down, in memory that outlives its process.

One file, mapped by the conductor and by every worker. Two counters per job, starts and ends, and
one cell per worker, or one for each job that it may have in flight: the job that is executed, as
``number + 1``, negative once the job has come to its end. A worker that is killed cannot take back
what it wrote, nor write what it did not do.
"""

from __future__ import annotations

import asyncio
import mmap
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from okanjo_conductor import AsyncConductorWorker, ConductorWorker

_CELL = 8
_BUSY = 10
"""Every so manieth job computes; the others sleep, so that a small machine can run many."""


class Notes:
    """The side-effect log of a run."""

    def __init__(self, path: Path | str, jobs: int, workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        size = _CELL * (2 * jobs + workers)
        path = Path(path)
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(size)
        with path.open("r+b") as file:
            cells = memoryview(mmap.mmap(file.fileno(), size)).cast("q")
        self.starts = cells[:jobs]
        self.ends = cells[jobs : 2 * jobs]
        self.at_work = cells[2 * jobs :]

    def close(self) -> None:
        """Let go of the memory and its descriptor."""
        for part in (self.starts, self.ends, self.at_work):
            part.release()


def length(seed: int, number: int, longest: int) -> float:
    """Return how many seconds a job takes; `longest` is in microseconds."""
    return ((number + 1) * 2_654_435_761 + seed * 40_503) % (longest + 1) / 1e6


class NotingWorker(ConductorWorker):
    """Notes the start and the end of every execution."""

    def __init__(self, *, path: str, jobs: int, workers: int, seed: int, longest: int) -> None:
        super().__init__(logging=False)
        self.notes = Notes(path, jobs, workers)
        self.seed, self.longest = seed, longest

    def process_job(self, job: Any) -> int:
        notes, me = self.notes, self.worker_id
        notes.at_work[me] = job + 1
        notes.starts[job] += 1
        seconds = length(self.seed, job, self.longest)
        if job % _BUSY:
            sleep(seconds)
        else:
            end = perf_counter() + seconds
            while perf_counter() < end:
                pass
        notes.ends[job] += 1
        notes.at_work[me] = -job - 1
        return int(job) * 7


class AsyncNotingWorker(AsyncConductorWorker):
    """The same with many executions at a time."""

    def __init__(self, *, path: str, jobs: int, workers: int, seed: int, longest: int) -> None:
        super().__init__(logging=False)
        self.notes = Notes(path, jobs, workers)
        self.seed, self.longest = seed, longest

    async def setup(self) -> None:
        first = self.worker_id * self.concurrency
        self.free = list(range(first, first + self.concurrency))

    async def process_job(self, job: Any) -> int:
        notes, cell = self.notes, self.free.pop()
        notes.at_work[cell] = job + 1
        notes.starts[job] += 1
        seconds = length(self.seed, job, self.longest)
        if job % _BUSY:
            await asyncio.sleep(seconds)
        else:
            end = perf_counter() + seconds / _BUSY  # the others in flight wait for that
            while perf_counter() < end:  # noqa: ASYNC110 - it is meant to be busy
                await asyncio.sleep(0)
        notes.ends[job] += 1
        notes.at_work[cell] = -job - 1
        self.free.append(cell)
        return int(job) * 7
