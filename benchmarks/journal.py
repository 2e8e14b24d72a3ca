"""What a journal costs: beside no journal, and beside one commit for each job."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import jobs
from benchmarks.contenders import WORKERS
from okanjo_conductor import Conductor
from okanjo_conductor.journal._store import Store

_NOOPS, _SPINS = 100_000, 1_000
_SPIN = 1e-3
"""Seconds of CPU that one of the spinning jobs takes."""
_INSERT = """
INSERT OR REPLACE INTO jobs(
    run, state, key, value, attempts, worker_id, slot, nanoseconds, finished_at
) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PAIRS = 10
"""Runs with and without a journal, in turns, so that both meet the same mood of the machine."""


class Took(NamedTuple):
    """What a run took, from the first outcome that the user sees to the last: starting aside."""

    seconds: float
    cpu: float
    """Seconds of CPU in the conductor's process, all threads."""


def rates(scale: float) -> dict[str, float]:
    """Measure no-op jobs with a journal, and a plain loop that commits each of them."""
    count = max(1_000, int(_NOOPS * scale))
    ours = count / _run(jobs.noop, range(count), has_journal=True).seconds
    plain = count / _one_by_one(count)
    return {"jobs_per_second": ours, "one_by_one": plain, "times_one_by_one": ours / plain}


def cost(scale: float, loops_per_second: float) -> dict[str, float]:
    """Measure by how much a journal slows down jobs of 1 ms.

    By CPU time: the workers keep every CPU busy, so what the conductor's process takes for itself
    is missing to them. The clock says the same on a machine that nobody else uses, and on any other
    what the others do.
    """
    loops, count = max(1, round(loops_per_second * _SPIN)), max(100, int(_SPINS * scale))
    batch = range(loops, loops + count)
    pairs: list[tuple[Took, Took]] = []
    for turn in range(_PAIRS):
        took = {
            has: _run(jobs.spin, batch, has_journal=has) for has in (turn % 2 == 0, turn % 2 == 1)
        }
        pairs.append((took[True], took[False]))
    kept, bare = (median(took.cpu for took in side) / count for side in zip(*pairs, strict=True))
    return {
        "slowed_by": (kept - bare) / (_SPIN + bare),
        "by_the_clock": median(kept.seconds / bare.seconds for kept, bare in pairs) - 1,
        "cpu_us": kept * 1e6,
        "cpu_us_without": bare * 1e6,
    }


def _run(function: Callable[[Any], Any], batch: Any, *, has_journal: bool) -> Took:
    began = ended = cpu = 0.0
    with tempfile.TemporaryDirectory() as folder:
        keeping: dict[str, Any] = {}
        if has_journal:
            keeping = {"journal": Path(folder, "run.db")}
        conductor = Conductor(
            function, jobs_queue=batch, worker_limit=WORKERS, logging=False, **keeping
        )
        for _ in conductor.outcomes():
            ended = time.perf_counter()
            if not began:
                began, cpu = ended, time.process_time()
        return Took(ended - began, time.process_time() - cpu)


def _one_by_one(count: int) -> float:
    """Commit each job by itself, into the same tables."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "run.db"))
        store.begin()
        connection = store.connect()
        began = time.perf_counter()
        for number in range(count):
            row = (store.run, "done", str(number), number, 1, 1, 0, 1000, time.time())
            connection.execute(_INSERT, row)
        took = time.perf_counter() - began
        connection.close()
        store.end("done")
        store.close()
    return took
