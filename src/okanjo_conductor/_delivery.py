"""Delivery: what outcomes become on their way to the user.

`ReportBuilder` keeps the account of a run. `OutcomeBuffer` hands outcomes to whoever iterates over
them, bounded: when it is full the core reads no further jobs until there is room again.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import outcomes_of, size_of
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._types import (
    LOOKUP_COUNTERS,
    MAX_FAILURE_GROUPS,
    MAX_WORKER_EXITS,
    FailureGroup,
    JobState,
    LookupStats,
    Report,
)
from okanjo_conductor._wire.failures import qualified_name, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from okanjo_conductor._core.records import Record
    from okanjo_conductor._types import Key, Outcome, WorkerExit

_KEYS_PER_GROUP = 5
_SLOWEST = 10


class ReportBuilder:
    """Keeps the account of a run, in constant memory."""

    def __init__(self) -> None:
        self._report = Report(counts=dict.fromkeys(JobState, 0))
        self._groups: dict[tuple[Any, ...], FailureGroup] = {}
        self._slowest: list[tuple[int, int, Key]] = []
        """A heap of nanoseconds, job id and key."""

    def add(self, record: Record) -> None:
        """Take a record into account."""
        report = self._report
        if isinstance(record, JobsDone):
            report.counts[JobState.DONE] += len(record.jobs)
            self._note_slow(record)
        elif isinstance(record, JobFailed):
            report.counts[record.state] += 1
            self._note_failure(record)
        else:
            report.retries += 1

    def worker_started(self) -> None:
        """Count a worker."""
        self._report.workers_started += 1

    def worker_lost(self, end: WorkerExit) -> None:
        """Count a worker that ended before its work was done."""
        self._report.workers_lost += 1
        if len(self._report.worker_exits) < MAX_WORKER_EXITS:
            self._report.worker_exits.append(end)

    def build(self, seconds: float, unstarted: int, last_stats: dict[str, Any]) -> Report:
        """Return the account."""
        report = self._report
        report.seconds = seconds
        report.unstarted = unstarted
        report.last_stats = last_stats
        report.lookups = _lookup_stats(last_stats)
        report.failures = sorted(self._groups.values(), key=lambda g: -g.count)
        report.slowest = [(ns / 1e9, key) for ns, _, key in sorted(self._slowest, reverse=True)]
        return report

    def _note_slow(self, record: JobsDone) -> None:
        heap = self._slowest
        if len(heap) == _SLOWEST and max(record.nanoseconds) <= heap[0][0]:
            return
        jobs = record.jobs
        for entry in zip(record.nanoseconds, jobs.ids, jobs.keys, strict=True):
            if len(heap) < _SLOWEST:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)

    def _note_failure(self, record: JobFailed) -> None:
        name = getattr(record.error, "type_name", None) or qualified_name(type(record.error))
        group = (record.state, record.cause, name, record.place)
        known = self._groups.get(group)
        if known is None and len(self._groups) >= MAX_FAILURE_GROUPS:
            self._report.failures_not_shown += 1
            return
        count = 0
        keys: tuple[Key, ...] = ()
        error = f"{name}: {text_of(record.error)}"
        if known is not None:
            count, keys, error = known.count, known.keys, known.error
        if len(keys) < _KEYS_PER_GROUP:
            keys = (*keys, record.job.key)
        self._groups[group] = FailureGroup(
            record.state, record.cause, error, record.place, count + 1, keys
        )


def _lookup_stats(totals: dict[str, Any]) -> dict[str, LookupStats]:
    """Find what the workers' counters say about lookups; names of lookups may hold dots."""
    found: dict[str, dict[str, Any]] = {}
    for counter, count in totals.items():
        if counter.startswith(LOOKUP_COUNTERS):
            name, _, what = counter.removeprefix(LOOKUP_COUNTERS).rpartition(".")
            if what in LookupStats.names:
                found.setdefault(name, {})[what] = count
    return {name: LookupStats(**counts) for name, counts in found.items()}


class OutcomeBuffer:
    """Records between the run and its consumer, who may be in another thread.

    Args:
        notify: called when there is something to take, in the thread of the run.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._records: deque[JobsDone | JobFailed] = deque()
        self._size = 0
        self._is_paused = False
        self.limit = 1
        """Outcomes from which the core is told to pause; the run sets it."""
        self.on_resume: Callable[[], None] = lambda: None
        self.is_over = False

    def put(self, records: list[Record]) -> bool:
        """Add records; return whether the consumer has fallen behind just now."""
        added = [r for r in records if not isinstance(r, JobRetried)]
        if not added:
            return False
        with self._lock:
            self._records.extend(added)
            self._size += sum(map(size_of, added))
            is_new_pause = self._size >= self.limit and not self._is_paused
            self._is_paused |= is_new_pause
        self._notify()
        return is_new_pause

    def end(self) -> None:
        """Say that nothing will be added."""
        self.is_over = True
        self._notify()

    def take(self) -> list[JobsDone | JobFailed]:
        """Remove and return everything there is. Their room is free only after `release`."""
        with self._lock:
            taken = list(self._records)
            self._records.clear()
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._records

    def discard(self) -> None:
        """Let the run go on: nobody will take anything any more."""
        self.limit = 1 << 62
        with self._lock:
            self._is_paused = False
        self.on_resume()

    def release(self, count: int) -> None:
        """Say that the consumer is done with so many outcomes."""
        with self._lock:
            self._size -= count
            resumes = self._is_paused and self._size <= self.limit // 2
            if resumes:
                self._is_paused = False
        if resumes:
            self.on_resume()


class Reorderer:
    """Puts outcomes into the order in which their jobs were accepted."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, Outcome] = {}

    def add(self, record: JobsDone | JobFailed) -> Iterator[Outcome]:
        """Yield what may follow now."""
        ids = record.jobs.ids if isinstance(record, JobsDone) else [record.job.id]
        for job_id, outcome in zip(ids, outcomes_of(record), strict=True):
            self._waiting[job_id] = outcome
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1

    def rest(self) -> list[Outcome]:
        """Return what is left at the end: beyond jobs that were given back."""
        return [outcome for _, outcome in sorted(self._waiting.items(), key=lambda item: item[0])]
