"""What is measured, and where the clock starts and stops. The same for every contender.

Each function here runs in a process of its own, with one contender, once a round, and returns its
figures. Unless start-up is what is measured, a contender is open and has done some jobs before the
clock starts, and is closed after it stops.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import jobs
from benchmarks import journal as kept
from benchmarks import lookups as shared
from benchmarks.bare import bare
from benchmarks.contenders import CONTENDERS, IMPORTS, PLAIN, SCRIPTS, WORKERS, Contender
from benchmarks.memory import peak_bytes, reset_peak, resident_bytes

ROOT = Path(__file__).parents[1]
Figures = dict[str, float]
_WARM_UP = 50
"""Jobs before the clock starts."""
_HANG = 10.0
"""Seconds after which a pool that lost a worker is taken to hang."""


@dataclass(frozen=True)
class Settings:
    """What all measurements of one run share."""

    loops_per_second: float
    """Calibration of `jobs.spin`, made once a run, in the process that starts the others."""
    scale: float = 1.0
    """How much work there is; less for a first look."""


@dataclass(frozen=True)
class Workload:
    """One row of figures per contender."""

    title: str
    figure: str
    """Which figure stands for it."""
    unit: str
    is_more_better: bool
    measure: Callable[[str, Settings], Figures]
    contenders: tuple[str, ...]


def noop(name: str, settings: Settings) -> Figures:
    """No-op jobs with ints. Each contender gets as many as take it about two seconds."""
    with open_warm(name, jobs.noop) as pool:
        count = 2_000
        for seconds in (0.2 * settings.scale, 2 * settings.scale):
            rate = count / pool.seconds(range(count), count)
            count = min(max(2_000, int(rate * seconds)), 2_000_000)
        return {"jobs_per_second": count / pool.seconds(range(count), count), "jobs": count}


def efficiency(name: str, settings: Settings, job_seconds: float) -> Figures:
    """CPU-bound jobs of one length: the time of two bare processes over that of the contender."""
    loops = max(1, round(settings.loops_per_second * job_seconds))
    count = max(200, int(2 * settings.scale / job_seconds))
    with bare() as pair, open_warm(name, jobs.spin, loops) as pool:
        pool.seconds([loops] * (count // 10), count // 10)
        before = pair.seconds(count, loops)
        actual = pool.seconds([loops] * count, count)
        after = pair.seconds(count, loops)
    ideal = (before + after) / 2
    return {
        "efficiency": ideal / actual,
        "seconds": actual,
        "bare_before": before,
        "bare_after": after,
        "bare_to_calibrated": count * job_seconds / 2 / ideal,
    }


def cpu_100us(name: str, settings: Settings) -> Figures:
    """Jobs of 100 µs."""
    return efficiency(name, settings, 100e-6)


def cpu_1ms(name: str, settings: Settings) -> Figures:
    """Jobs of 1 ms."""
    return efficiency(name, settings, 1e-3)


def tail(name: str, settings: Settings) -> Figures:
    """Jobs of very different lengths: the time over its lower bound, half of their sum."""
    durations = jobs.heavy_tail(int(400 * settings.scale) + 20)
    with open_warm(name, jobs.occupy, 0.0001) as pool:
        actual = pool.seconds(durations, len(durations))
    bound = max(sum(durations) / WORKERS, *durations)
    return {"makespan_to_bound": actual / bound, "seconds": actual, "bound": bound}


def arrays(name: str, settings: Settings) -> Figures:
    """NumPy arrays of 1 MiB, in and out: MiB that crossed in both directions per second.

    Each is another array, and so is what comes back. Of one that is sent again, or sent back as it
    came, some send no more than a reference.
    """
    import numpy as np

    draw = np.random.default_rng(8)
    payloads = [draw.random(1 << 17) for _ in range(int(280 * settings.scale) + 20)]
    with open_warm(name, jobs.negate, payloads[0]) as pool:
        seconds = pool.seconds(payloads, len(payloads))
    return {"mib_per_second": 2 * len(payloads) / seconds}


def round_trip(name: str, settings: Settings) -> Figures:
    """One job at a time, nothing else going on: from asking for it to having its value.

    `p50` and `p99` are of jobs that follow each other at once; `p50_after_silence` of jobs that
    find every process, and with them the CPUs, asleep for 20 ms.
    """
    count = int(1_000 * settings.scale) + 20
    with open_warm(name, jobs.noop) as pool:
        pool.latencies(_WARM_UP, pause=0.0)
        times = sorted(pool.latencies(count, pause=0.0))
        woken = sorted(pool.latencies(count // 10, pause=0.02))
    return {
        "p50": 1e6 * times[count // 2],
        "p99": 1e6 * times[count * 99 // 100],
        "p50_after_silence": 1e6 * woken[len(woken) // 2],
    }


def script(name: str, settings: Settings) -> Figures:  # noqa: ARG001 - all measures look alike
    """A whole script of ten no-op jobs, from starting the interpreter to its end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.py"
        path.write_text(SCRIPTS[name])
        command = [sys.executable, str(path)]
        _interpreter(command)  # byte code is compiled, files are in memory
        return {"seconds": min(_interpreter(command) for _ in range(3))}


def importing(name: str, settings: Settings) -> Figures:  # noqa: ARG001
    """Importing what the script needs: beyond the start of an interpreter, ms."""
    with_it = [sys.executable, "-c", PLAIN + IMPORTS[name]]
    without = [sys.executable, "-c", PLAIN]
    _interpreter(with_it)
    pairs = [(_interpreter(with_it), _interpreter(without)) for _ in range(5)]
    return {"ms": 1e3 * (min(a for a, _ in pairs) - min(b for _, b in pairs))}


def stream(name: str, settings: Settings) -> Figures:
    """2,000,000 no-op jobs from a generator, values dropped one by one.

    Memory is that of the process that reads them, and its growth counts from before the contender
    is opened. Rivals are stopped after some seconds: their rate is clear by then, and memory would
    only grow.
    """
    count = int(2_000_000 * settings.scale)
    patience = 60.0 if name.startswith("conductor") else 6.0 * settings.scale
    progress = _Progress(resident_bytes())
    reset_peak()
    began = time.perf_counter()
    over = threading.Event()

    def finish() -> None:
        if not over.wait(patience):
            leave_with(progress.figures(time.perf_counter() - began))

    with open_contender(name, jobs.noop) as pool:
        began = time.perf_counter()
        threading.Thread(target=finish, daemon=True).start()
        for _ in pool.stream(progress.read(count), count):
            progress.received += 1
        over.set()
        if progress.received != count:
            message = f"{count} jobs, but {progress.received} values"
            raise RuntimeError(message)
        return progress.figures(time.perf_counter() - began)


def lookups(name: str, settings: Settings) -> Figures:
    """Random reads of shared reference data by two workers at once: what each of them gets."""
    return shared.lookups(name, settings.scale)


def lookup_memory(name: str, settings: Settings) -> Figures:
    """Memory that each worker beyond the first takes, where eight read a table at random."""
    return shared.memory(name, settings.scale)


def lookup_reopening(name: str, settings: Settings) -> Figures:
    """Opening a table that was built before, and reading from it: ms."""
    return shared.reopening(name, settings.scale)


def journal(name: str, settings: Settings) -> Figures:  # noqa: ARG001 - all measures look alike
    """No-op jobs with a journal, and a loop that commits each of them."""
    return kept.rates(settings.scale)


def journal_cost(name: str, settings: Settings) -> Figures:  # noqa: ARG001
    """By how much a journal slows down jobs of 1 ms."""
    return kept.cost(settings.scale, settings.loops_per_second)


class _Progress:
    """How far a stream has come."""

    def __init__(self, memory_before: int) -> None:
        self.received = 0
        self._read = 0
        self._ahead = 0
        self._memory_before = memory_before

    def read(self, count: int) -> Iterator[int]:
        for number in range(count):
            self._read = number + 1
            self._ahead = max(self._ahead, self._read - self.received)
            yield number

    def figures(self, seconds: float) -> Figures:
        return {
            "jobs_per_second": self.received / seconds,
            "jobs": self.received,
            "read_ahead": self._ahead,
            "growth_mib": (peak_bytes() - self._memory_before) / (1 << 20),
        }


def replacement(name: str, settings: Settings) -> Figures:  # noqa: ARG001
    """A worker is killed while others work: ms until a new one executes a job."""
    count = 2_000
    pool = open_contender(name, jobs.witness)
    values = pool.stream([0.001] * count, count)
    known: set[int] = set()
    for received, (pid, _) in enumerate(values):
        known.add(pid)
        if len(known) == WORKERS and received > _WARM_UP:
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            break
    else:
        raise RuntimeError("only one worker executed jobs")
    hang = {"problem": f"nothing executed {_HANG:.0f} s after the kill"}
    timer = threading.Timer(_HANG, leave_with, [hang])
    timer.daemon = True
    timer.start()
    for pid, began in values:
        if pid not in known:
            leave_with({"ms": 1e3 * (began - killed_at)})  # some never end after a kill
    raise RuntimeError("no new worker executed a job")


def leave_with(figures: Mapping[str, float | str]) -> NoReturn:
    """Report and leave at once, whatever the contender is doing."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


def open_contender(name: str, function: Callable[[Any], Any]) -> Contender:
    """Open a contender, without a job."""
    return CONTENDERS[name](function)


def open_warm(name: str, function: Callable[[Any], Any], job: Any = 0) -> Contender:
    """Open a contender and have all its workers started."""
    pool = open_contender(name, function)
    if type(pool).stream is not Contender.stream:
        for _ in pool.stream([job] * _WARM_UP, _WARM_UP):
            pass
    return pool


def _interpreter(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


_RIVALS = ("pool", "pool-auto", "executor", "joblib", "mpire", "pebble", "ray")
_OURS = ("conductor", "conductor-uvloop")
_UNCHUNKED = tuple(name for name in _RIVALS if name != "pool-auto")

WORKLOADS: dict[str, Workload] = {
    "noop": Workload(
        "no-op jobs, ints",
        "jobs_per_second",
        "jobs/s",
        is_more_better=True,
        measure=noop,
        contenders=(*_OURS, "conductor-run", *_RIVALS),
    ),
    "cpu100us": Workload(
        "CPU jobs of 100 µs",
        "efficiency",
        "of ideal",
        is_more_better=True,
        measure=cpu_100us,
        contenders=(*_OURS, *_RIVALS),
    ),
    "cpu1ms": Workload(
        "CPU jobs of 1 ms",
        "efficiency",
        "of ideal",
        is_more_better=True,
        measure=cpu_1ms,
        contenders=(*_OURS, *_RIVALS),
    ),
    "tail": Workload(
        "heavy-tailed durations",
        "makespan_to_bound",
        "× lower bound",
        is_more_better=False,
        measure=tail,
        contenders=("conductor", *_RIVALS),
    ),
    "arrays": Workload(
        "1 MiB arrays in and out",
        "mib_per_second",
        "MiB/s",
        is_more_better=True,
        measure=arrays,
        contenders=(*_OURS, *_UNCHUNKED),
    ),
    "roundtrip": Workload(
        "round trip of one job when idle, p50",
        "p50",
        "µs",
        is_more_better=False,
        measure=round_trip,
        contenders=(*_OURS, "conductor-async", *_UNCHUNKED),
    ),
    "script": Workload(
        "script of ten jobs",
        "seconds",
        "s",
        is_more_better=False,
        measure=script,
        contenders=tuple(SCRIPTS),
    ),
    "import": Workload(
        "import",
        "ms",
        "ms",
        is_more_better=False,
        measure=importing,
        contenders=tuple(IMPORTS),
    ),
    "stream": Workload(
        "2,000,000 no-op jobs from a generator",
        "jobs_per_second",
        "jobs/s",
        is_more_better=True,
        measure=stream,
        contenders=(*_OURS, *_UNCHUNKED),
    ),
    "lookups": Workload(
        "lookups of a worker, two at once",
        "lookups_per_second",
        "lookups/s",
        is_more_better=True,
        measure=lookups,
        contenders=tuple(shared.LOOKUPS),
    ),
    "lookup-memory": Workload(
        "memory of each further worker that reads a table",
        "mib_per_worker",
        "MiB",
        is_more_better=False,
        measure=lookup_memory,
        contenders=("conductor-table",),
    ),
    "lookup-reopening": Workload(
        "opening a table that is there",
        "ms",
        "ms",
        is_more_better=False,
        measure=lookup_reopening,
        contenders=("conductor-table",),
    ),
    "journal": Workload(
        "100,000 no-op jobs with a journal",
        "jobs_per_second",
        "jobs/s",
        is_more_better=True,
        measure=journal,
        contenders=("conductor",),
    ),
    "journal-cost": Workload(
        "what a journal costs jobs of 1 ms",
        "slowed_by",
        "of the CPU time",
        is_more_better=False,
        measure=journal_cost,
        contenders=("conductor",),
    ),
    "replacement": Workload(
        "a killed worker is replaced",
        "ms",
        "ms",
        is_more_better=False,
        measure=replacement,
        contenders=("conductor", *_UNCHUNKED),
    ),
}
