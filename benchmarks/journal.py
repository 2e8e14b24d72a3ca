"""What a journal costs: beside no journal, and beside one commit for each job."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import jobs
from benchmarks.contenders import WORKERS
from okanjo_conductor import Conductor
from okanjo_conductor.journal._store import Store

_NOOPS, _SPINS = 100_000, 2_000
_INSERT = """
INSERT OR REPLACE INTO jobs(
    run, state, key, value, attempts, worker_id, slot, nanoseconds, finished_at
) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PAIRS = 5
"""Runs with and without a journal, in turns, so that both meet the same mood of the machine."""


def rates(scale: float) -> dict[str, float]:
    """Measure no-op jobs with a journal, and a plain loop that commits each of them."""
    count = max(1_000, int(_NOOPS * scale))
    ours = count / _seconds(jobs.noop, range(count), has_journal=True)
    plain = count / _one_by_one(count)
    return {"jobs_per_second": ours, "one_by_one": plain, "times_one_by_one": ours / plain}


def cost(scale: float, loops_per_second: float) -> dict[str, float]:
    """Measure by how much a journal slows down jobs of 1 ms."""
    loops, count = max(1, round(loops_per_second / 1000)), max(100, int(_SPINS * scale))
    slowed = []
    for turn in range(_PAIRS):
        runs = {
            has: _seconds(jobs.spin, range(loops, loops + count), has_journal=has)
            for has in (turn % 2 == 0, turn % 2 == 1)
        }
        slowed.append(runs[True] / runs[False] - 1)
    return {"slowed_by": median(slowed), "least": min(slowed), "most": max(slowed)}


def _seconds(function: Callable[[Any], Any], batch: Any, *, has_journal: bool) -> float:
    """Time from the first outcome that the user sees to the end of the last: starting aside."""
    began = ended = 0.0
    with tempfile.TemporaryDirectory() as folder:
        keeping: dict[str, Any] = {}
        if has_journal:
            keeping = {"journal": Path(folder, "run.db")}
        conductor = Conductor(
            function, jobs_queue=batch, worker_limit=WORKERS, logging=False, **keeping
        )
        for _ in conductor.outcomes():
            ended = time.perf_counter()
            began = began or ended
    return ended - began


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
