"""Delivery: what outcomes become on their way to the user.

`ReportBuilder` keeps the account of a run. `OutcomeBuffer` hands outcomes to whoever iterates over
them, bounded: when it is full the core reads no further jobs until there is room again.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import outcomes_of, size_of
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._largest import WORTH_WEIGHING, Largest
from okanjo_conductor._types import (
    LOOKUP_COUNTERS,
    MAX_FAILURE_GROUPS,
    MAX_WORKER_EXITS,
    FailureGroup,
    JobState,
    LookupStats,
    RecentFailure,
    Report,
    TimeSplit,
)
from okanjo_conductor._wire.failures import qualified_name, text_of
from okanjo_conductor.errors import RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from okanjo_conductor._core.records import Record
    from okanjo_conductor._types import Outcome, WorkerExit

_KEYS_PER_GROUP = 5
_LONGEST_ERROR = 2000
"""Characters of an error's text that are kept: there may be anything in it."""
_LONGEST_TRACEBACK = 8000
_RECENT = 5
"""Failures and lost workers that a snapshot tells."""


class ReportBuilder:
    """Keeps the account of a run, in constant memory."""

    def __init__(self) -> None:
        self._report = Report(counts=dict.fromkeys(JobState, 0))
        self._groups: dict[tuple[Any, ...], FailureGroup] = {}
        self._slowest = Largest()
        self.values = Largest(WORTH_WEIGHING)
        """Bytes of values."""
        self.clock = WorkClock()
        self.recent_failures: deque[RecentFailure] = deque(maxlen=_RECENT)
        self.recent_exits: deque[WorkerExit] = deque(maxlen=_RECENT)

    def add(self, record: Record) -> None:
        """Take a record into account."""
        report = self._report
        if isinstance(record, JobsDone):
            count = len(record.jobs)
            report.counts[JobState.DONE] += count
            self.clock.note_work(count, sum(record.nanoseconds))
            self._note_slow(record)
        elif isinstance(record, JobFailed):
            report.counts[record.state] += 1
            _count(report.causes, record.cause)
            if record.history:
                self.clock.note_attempt(record.history[-1].seconds)
            self._note_failure(record)
        else:
            report.retries += 1
            _count(report.retried, record.attempt.cause)
            self.clock.note_attempt(record.attempt.seconds)

    def jobs_skipped(self, count: int) -> None:
        """Count jobs that are not executed."""
        self._report.skipped += count

    def worker_started(self) -> None:
        """Count a worker."""
        self._report.workers_started += 1

    def worker_lost(self, end: WorkerExit) -> None:
        """Count a worker that ended before its work was done."""
        self._report.workers_lost += 1
        if end.cause is not None:
            _count(self._report.lost_causes, end.cause)
        self.recent_exits.append(end)
        if len(self._report.worker_exits) < MAX_WORKER_EXITS:
            self._report.worker_exits.append(end)

    @property
    def so_far(self) -> Report:
        """The account, which is being kept: to be read, not to be given away."""
        return self._report

    def build(
        self,
        seconds: float,
        unstarted: int,
        last_stats: dict[str, Any],
        *,
        payloads: Largest,
        now: float,
    ) -> Report:
        """Return the account.

        Args:
            payloads: bytes of the payloads.
            now: when the run ended.
        """
        report = self._report
        report.seconds = seconds
        report.unstarted = unstarted
        report.last_stats = last_stats
        report.lookups = _lookup_stats(last_stats)
        report.failures = sorted(self._groups.values(), key=lambda g: -g.count)
        report.slowest = [(ns / 1e9, key) for ns, key in self._slowest.listed()]
        report.biggest_payloads = payloads.listed()
        report.biggest_values = self.values.listed()
        report.time = self.clock.split(now)
        return report

    def _note_slow(self, record: JobsDone) -> None:
        slowest, jobs = self._slowest, record.jobs
        if max(record.nanoseconds) > slowest.floor:
            for entry in zip(record.nanoseconds, jobs.ids, jobs.keys, strict=True):
                slowest.note(*entry)

    def _note_failure(self, record: JobFailed) -> None:
        name = getattr(record.error, "type_name", None) or qualified_name(type(record.error))
        error = f"{name}: {text_of(record.error)[:_LONGEST_ERROR]}"
        key, place = record.job.key, record.place
        self.recent_failures.append(RecentFailure(key, record.state, record.cause, error))
        group = (record.state, record.cause, name, place)
        known = self._groups.get(group)
        if known is not None:
            keys = (*known.keys, key) if len(known.keys) < _KEYS_PER_GROUP else known.keys
            self._groups[group] = known._replace(count=known.count + 1, keys=keys)
        elif len(self._groups) >= MAX_FAILURE_GROUPS:
            self._report.failures_not_shown += 1
        else:
            trace = _traceback_of(record.error)
            self._groups[group] = FailureGroup(
                record.state, record.cause, error, place, 1, (key,), trace
            )


def _count(counts: dict[Any, int], what: Any) -> None:
    counts[what] = counts.get(what, 0) + 1


def _traceback_of(error: Exception) -> str:
    """Return the traceback that has travelled with an error; its end says most."""
    cause = error.__cause__
    trace = cause.text if isinstance(cause, RemoteTraceback) else ""
    if len(trace) <= _LONGEST_TRACEBACK:
        return trace
    half = _LONGEST_TRACEBACK // 2
    return f"{trace[:half]}\n… {len(trace) - 2 * half:,} characters …\n{trace[-half:]}"


class WorkClock:
    """Adds up what workers do with their time, in seconds of the loop's clock."""

    def __init__(self) -> None:
        self.births: dict[int, float] = {}
        """By live worker, when it was ordered."""
        self.ready: float | None = None
        """When the first worker was set up."""
        self._starting: set[int] = set()
        """Live workers that are not set up."""
        self._lived = self._start = self._lost = 0.0
        self._nanoseconds = 0
        """In jobs, by the workers' clocks."""
        self._attempts = 0
        self._is_parallel = False

    @property
    def mean(self) -> float | None:
        """Seconds that an attempt took on average, or None."""
        return self._nanoseconds / 1e9 / self._attempts if self._attempts else None

    def ordered(self, worker_id: int, now: float) -> None:
        """A worker is to start."""
        self.births[worker_id] = now
        self._starting.add(worker_id)

    def set_up(self, worker_id: int, now: float, *, is_parallel: bool) -> None:
        """A worker is ready for jobs."""
        if self.ready is None:
            self.ready = now
        self._is_parallel |= is_parallel
        if worker_id in self._starting:
            self._starting.discard(worker_id)
            self._start += now - self.births[worker_id]

    def gone(self, worker_id: int, now: float, executing: float) -> None:
        """A worker has ended.

        Args:
            executing: for how many seconds it had been executing what ended with it.
        """
        lived = now - self.births.pop(worker_id, now)
        self._lived += lived
        if worker_id in self._starting:
            self._starting.discard(worker_id)
            self._start += lived
        self._lost += executing

    def note_work(self, attempts: int, nanoseconds: int) -> None:
        """Attempts have ended, and their workers live."""
        self._attempts += attempts
        self._nanoseconds += nanoseconds

    def note_attempt(self, seconds: float | None) -> None:
        """An attempt has ended badly; None: with its worker."""
        if seconds is not None:
            self.note_work(1, round(seconds * 1e9))

    def split(self, now: float) -> TimeSplit:
        """Return the sums."""
        for worker_id in tuple(self.births):  # of a run that was given up
            self.gone(worker_id, now, 0.0)
        work = self._nanoseconds / 1e9
        rest = max(self._lived - self._start - work - self._lost, 0.0)
        wait = None if self._is_parallel else rest
        return TimeSplit(self._lived, self._start, work, self._lost, wait)


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
        self._has_news = False
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
            self._has_news = True
        return is_new_pause

    def announce(self) -> None:
        """Tell the consumer that records were added, if any were since it was told last.

        When the run has done what follows from them: a consumer in another thread would otherwise
        be woken only to wait for this one.
        """
        if self._has_news:
            self._has_news = False
            self._notify()

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
