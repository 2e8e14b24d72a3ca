"""Shared reference data, in the ways that pools offer: 1,000,000 strings by string.

Two workers read at once. What a job measures is its own loop over keys that it has made before, so
the figures are what one worker gets while another one reads as well.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders import PLAIN, WORKERS
from okanjo_conductor import Conductor, ConductorWorker, Lookup, LookupTable, Message

ENTRIES = 1_000_000
_HOT = 10_000
"""Keys that come again and again, for what workers keep."""
_SLOW, _FAST = 1_000, 100_000
"""Lookups of a job: with a message for each, and without."""
_MANY = 8
"""Workers whose memory is compared with that of one."""
_table: Mapping[str, str] = {}
"""What a worker of a Pool reads from."""


class Reader(ConductorWorker):
    """Reads one entry at a time."""

    def process_job(self, job: tuple[int, int, int]) -> float:
        """Read random keys; return the seconds that it took."""
        keys, lookup = _keys(job), self.lookup
        began = time.perf_counter()
        for key in keys:
            lookup("table", key)
        return time.perf_counter() - began


class BatchReader(ConductorWorker):
    """Reads a hundred entries at a time."""

    def process_job(self, job: tuple[int, int, int]) -> float:
        """Read random keys; return the seconds that it took."""
        keys, lookup_many = _keys(job), self.lookup_many
        began = time.perf_counter()
        for first in range(0, len(keys), 100):
            lookup_many("table", keys[first : first + 100])
        return time.perf_counter() - began


class HitReader(ConductorWorker):
    """Reads what it has kept, with keys that it has used before."""

    def setup(self) -> None:
        """Make the keys, and have their entries kept."""
        self.hot = [f"key {number}" for number in range(_HOT)]
        self.lookup_many("table", self.hot)

    def process_job(self, job: tuple[int, int, int]) -> float:
        """Read random keys; return the seconds that it took."""
        number, count, _ = job
        keys = random.Random(number).choices(self.hot, k=count)  # noqa: S311 - made-up work
        lookup = self.lookup
        began = time.perf_counter()
        for key in keys:
            lookup("table", key)
        return time.perf_counter() - began


class Holder(Reader):
    """Reads, and waits until its memory has been measured."""

    def process_job(self, job: tuple[int, int, int]) -> float:
        """Return the bytes that this process has of its own, and its share of what others have."""
        super().process_job(job)
        self.request("all here")
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        pss = next(line for line in lines if line.startswith("Pss:"))
        self.request("all measured")
        return 1024.0 * int(pss.split()[1])


def lookups(name: str, scale: float) -> dict[str, float]:
    """Measure one way."""
    exec(PLAIN)  # noqa: S102 - a constant of ours: no uvloop
    return LOOKUPS[name](scale, int(ENTRIES * scale))


def memory(name: str, scale: float) -> dict[str, float]:
    """Measure what each worker beyond the first costs in memory, where all read at random."""
    entries = int(ENTRIES * scale)
    with LookupTable.build(_items(entries)) as table:
        data: Any = table if name == "conductor-table" else {}
        del table  # its map counts for whoever holds it
        one, many = (_held(data, workers, entries) for workers in (1, _MANY))
    return {"mib_per_worker": (many - one) / (_MANY - 1) / (1 << 20)}


def reopening(_name: str, scale: float) -> dict[str, float]:
    """Measure how long it takes to open a table that is there, and to read from it; ms."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        build = multiprocessing.get_context("spawn").Process(
            target=_build, args=(str(path), int(ENTRIES * scale))
        )
        build.start()
        build.join()
        began = time.perf_counter()
        with LookupTable(path) as table:
            assert table["key 7"]  # noqa: S101 - it is measured
            return {"ms": 1e3 * (time.perf_counter() - began)}


def _build(path: str, entries: int) -> None:
    LookupTable.build(_items(entries), path).close()


def _held(data: Any, workers: int, entries: int) -> float:
    """Add up the memory of so many workers that have read from a lookup."""
    jobs = [(job, _FAST, entries) for job in range(workers)]
    conductor = Conductor(
        Holder, worker_limit=workers, jobs_queue=jobs, lookups={"table": data}, logging=False
    )
    for command in ("all here", "all measured"):
        conductor.command(command)(_meeting(workers))
    return sum((outcome.result() for outcome in conductor.outcomes()), 0.0)


def _meeting(workers: int) -> Callable[[Message], Any]:
    """Make a handler that replies when as many have asked."""
    here: list[Message] = []
    event = asyncio.Event()

    async def meet(message: Message) -> None:
        here.append(message)
        if len(here) == workers:
            event.set()
        await event.wait()

    return meet


def _conductor(
    worker: type[ConductorWorker], data: Any, jobs: int, per_job: int, keys: int
) -> dict[str, float]:
    conductor = Conductor(
        worker,
        worker_limit=WORKERS,
        jobs_queue=_jobs(jobs, per_job, keys),
        lookups={"table": data},
        logging=False,
    )
    return _rate((outcome.result() for outcome in conductor.outcomes()), per_job)


def _table_of(scale: float, entries: int) -> dict[str, float]:
    with LookupTable.build(_items(entries)) as table:
        return _conductor(Reader, table, int(20 * scale) + 6, _FAST, entries)


def _pool(table: Mapping[str, str], jobs: int, per_job: int, entries: int) -> dict[str, float]:
    with multiprocessing.Pool(WORKERS, _adopt, (table,)) as pool:
        return _rate(pool.imap_unordered(_read, _jobs(jobs, per_job, entries)), per_job)


def _manager(scale: float, entries: int) -> dict[str, float]:
    with multiprocessing.Manager() as manager:
        return _pool(manager.dict(dict(_items(entries))), int(60 * scale) + 10, _SLOW, entries)


def _copy(scale: float, entries: int) -> dict[str, float]:
    return _pool(dict(_items(entries)), int(40 * scale) + 6, _FAST, entries)


def _jobs(jobs: int, per_job: int, keys: int) -> Iterator[tuple[int, int, int]]:
    """Make jobs, a tenth of them and at least four to warm up with."""
    warm_up = max(4, jobs // 10)
    return ((job, per_job, keys) for job in range(warm_up + jobs))


def _rate(seconds: Iterator[float], per_job: int) -> dict[str, float]:
    """Divide the lookups of a worker by their time, without the jobs that warmed up."""
    taken = list(seconds)
    taken = taken[max(4, len(taken) // 11) :]
    return {"lookups_per_second": per_job * len(taken) / sum(taken)}


def _adopt(table: Mapping[str, str]) -> None:
    global _table  # noqa: PLW0603 - that is how a Pool's initializer is used
    _table = table


def _read(job: tuple[int, int, int]) -> float:
    keys, table = _keys(job), _table
    began = time.perf_counter()
    for key in keys:
        table[key]
    return time.perf_counter() - began


def _items(entries: int) -> Iterable[tuple[str, str]]:
    return ((f"key {number}", f"{number:>50}") for number in range(entries))


def _keys(job: tuple[int, int, int]) -> list[str]:
    number, count, entries = job
    draw = random.Random(number)  # noqa: S311 - made-up work, the same each time
    return [f"key {draw.randrange(entries)}" for _ in range(count)]


LOOKUPS: dict[str, Callable[[float, int], dict[str, float]]] = {
    "conductor": lambda scale, entries: _conductor(
        Reader, dict(_items(entries)), int(60 * scale) + 10, _SLOW, entries
    ),
    "conductor-many": lambda scale, entries: _conductor(
        BatchReader, dict(_items(entries)), int(300 * scale) + 10, _SLOW, entries
    ),
    "conductor-cached": lambda scale, entries: _conductor(
        HitReader, Lookup(dict(_items(entries)), cached=True), int(40 * scale) + 6, _FAST, _HOT
    ),
    "conductor-table": _table_of,
    "pool-manager": _manager,
    "pool-copy": _copy,
}
