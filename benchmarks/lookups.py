"""Shared reference data, in the ways that pools offer. Each way gives lookups per second.

A job makes 1,000 lookups of random keys; the clock runs while two workers do so.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from benchmarks.contenders import PLAIN, WORKERS
from okanjo_conductor import Conductor, ConductorWorker

_ENTRIES = 100_000
_PER_JOB = 1_000
_WARM_UP = 4
_table: Mapping[str, str] = {}
"""What a worker of a Pool reads from."""


class Reader(ConductorWorker):
    """Reads one entry at a time."""

    def process_job(self, job: int) -> None:
        """Read the keys of a job."""
        for key in _keys(job):
            self.lookup("table", key)


class BatchReader(ConductorWorker):
    """Reads a hundred entries at a time."""

    def process_job(self, job: int) -> None:
        """Read the keys of a job."""
        keys = _keys(job)
        for first in range(0, _PER_JOB, 100):
            self.lookup_many("table", keys[first : first + 100])


def _conductor(worker: type[ConductorWorker], jobs: int) -> float:
    exec(PLAIN)  # noqa: S102 - a constant of ours: no uvloop
    conductor = Conductor(
        worker,
        worker_limit=WORKERS,
        jobs_queue=range(jobs + _WARM_UP),
        lookups={"table": _make_table()},
        logging=False,
    )
    return _rate(iter(conductor.outcomes()), jobs)


def _pool(table: Mapping[str, str], jobs: int) -> float:
    with multiprocessing.Pool(WORKERS, _adopt, (table,)) as pool:
        return _rate(pool.imap_unordered(_read, range(jobs + _WARM_UP)), jobs)


def _manager(jobs: int) -> float:
    with multiprocessing.Manager() as manager:
        return _pool(manager.dict(_make_table()), jobs)


def _rate(values: Iterator[Any], jobs: int) -> float:
    for _ in islice(values, _WARM_UP):
        pass
    began = time.perf_counter()
    for _ in values:
        pass
    return jobs * _PER_JOB / (time.perf_counter() - began)


def _adopt(table: Mapping[str, str]) -> None:
    global _table  # noqa: PLW0603 - that is how a Pool's initializer is used
    _table = table


def _read(job: int) -> None:
    for key in _keys(job):
        _table[key]


def _make_table() -> dict[str, str]:
    return {f"key {number}": f"value {number}" for number in range(_ENTRIES)}


def _keys(job: int) -> list[str]:
    draw = random.Random(job)  # noqa: S311 - made-up work, the same each time
    return [f"key {draw.randrange(_ENTRIES)}" for _ in range(_PER_JOB)]


LOOKUPS: dict[str, Callable[[int], float]] = {
    "conductor": lambda jobs: _conductor(Reader, jobs),
    "conductor-many": lambda jobs: _conductor(BatchReader, jobs),
    "pool-manager": _manager,
    "pool-copy": lambda jobs: _pool(_make_table(), jobs),
}
