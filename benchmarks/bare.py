"""Two plain processes that do nothing but work: the ideal that efficiency is measured against.

Two busy CPUs of one machine are slower than one alone, and slower at some times than at others.
So the ideal is not computed but measured, right before and right after the contender.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.jobs import spin


class Bare:
    """The pair of processes, waiting for orders. They take no CPU time meanwhile."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def seconds(self, jobs: int, loops: int) -> float:
        """Measure how long both take for that many jobs of so many loops."""
        halves = [jobs // 2, jobs - jobs // 2]
        began = time.perf_counter()
        for process, half in zip(self._processes, halves, strict=True):
            print(half, loops, file=process.stdin, flush=True)
        for process in self._processes:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("a bare process has died")
        return time.perf_counter() - began


@contextmanager
def bare() -> Iterator[Bare]:
    """Start the pair and end it."""
    command = [sys.executable, "-m", __name__]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        pair = Bare(processes)
        pair.seconds(2, 1)  # both have started
        yield pair
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _main() -> None:
    for line in sys.stdin:
        jobs, loops = map(int, line.split())
        for _ in range(jobs):
            spin(loops)
        print("done", flush=True)


if __name__ == "__main__":
    _main()
