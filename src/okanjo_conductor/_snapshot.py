"""What a run looks like while it goes on: the values of a snapshot, its pace, and what is left.

Pure: times and counts come in as arguments. It is loaded when somebody asks for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp
from typing import TYPE_CHECKING

from okanjo_conductor._io.memory import rss_of
from okanjo_conductor._plain import Named
from okanjo_conductor._types import JobState, Key, RecentFailure, WorkerExit

if TYPE_CHECKING:
    from okanjo_conductor._core.survey import Sight
    from okanjo_conductor._delivery import ReportBuilder as Books
    from okanjo_conductor._delivery import WorkClock
    from okanjo_conductor._types import Report

MEMORY = 10.0
"""Seconds by which what happened has lost two thirds of its weight in the rate; more, where jobs
take longer than a few of these."""
_JOBS_REMEMBERED = 3
"""Durations of a mean job that the memory spans at least: fewer would make the rate flicker."""


class WorkerSnapshot(Named):
    """What one worker is doing, or that a slot has none."""

    slot: int
    state: str
    """``"starting"``, ``"idle"``, ``"working"``, ``"leaving"`` (it finishes its job, if it has one,
    and goes), or ``"empty"``: no worker is in this slot."""
    worker_id: int | None = None
    pid: int | None = None
    """None: its process does not exist yet."""
    key: Key | None = None
    """Of the job it executes; the oldest, where those are several."""
    seconds: float | None = None
    """How long that job has been executing, or the worker been starting, to about 0.02 s."""
    in_flight: int = 0
    """How many jobs it executes; more than one only in an async worker."""
    waiting: int = 0
    """How many jobs it has been handed besides. They can be taken back."""
    executed: int = 0
    """How many jobs it has executed to an end, good or bad."""
    rss: int | None = None
    """Bytes of memory that its process holds, what it shares with others included; None where
    that cannot be told."""


class Snapshot(Named):
    """How a run stands at one moment. See `Conductor.snapshot`."""

    phase: str
    """``"new"``, ``"running"``, ``"ending"`` (every job has its outcome), ``"draining"``,
    ``"aborting"`` or ``"over"``."""
    counts: dict[JobState, int]
    """Outcomes by state."""
    skipped: int = 0
    """Jobs that were not executed because an earlier run has done that."""
    retries: int = 0
    total: int | None = None
    """How many jobs there are in all, the skipped ones included; None: only the source knows."""
    in_flight: int = 0
    """How many jobs are being executed."""
    seconds: float = 0.0
    """Since the run began."""
    rate: float = 0.0
    """Outcomes per second, those of the last ten seconds or so."""
    eta: float | None = None
    """Seconds until the last job ends, at that rate; None where it cannot be told: the total is
    not known, too few jobs have ended, or the run is being stopped."""
    workers: tuple[WorkerSnapshot, ...] = ()
    """In the order of slots. While a worker is being replaced, a slot has two."""
    workers_started: int = 0
    workers_lost: int = 0
    """How many ended before their work was done."""
    failures: tuple[RecentFailure, ...] = ()
    """The last few jobs that ended without a value, newest last."""
    exits: tuple[WorkerExit, ...] = ()
    """The last few workers that were lost, newest last."""

    @property
    def finished(self) -> int:
        """Jobs with an outcome."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Jobs with a value."""
        return self.counts.get(JobState.DONE, 0)

    @property
    def failed(self) -> int:
        """Jobs without one that have ended, whatever the state."""
        return self.finished - self.done

    @property
    def fraction(self) -> float | None:
        """Which part of all jobs needs no more work, from 0 to 1; None: the total is unknown."""
        if not self.total:
            return None if self.total is None else 1.0
        return min((self.finished + self.skipped) / self.total, 1.0)


class Pace:
    """How many jobs end per second, the newest counting most.

    An interval's weight falls by a factor e in `memory` seconds; how often somebody looks makes no
    difference.

    Args:
        since: when the counting begins.
    """

    def __init__(self, since: float) -> None:
        self._looked_at = since
        self._finished = 0
        self._jobs = 0.0
        self._seconds = 0.0

    @property
    def rate(self) -> float:
        """Jobs per second; 0.0 before there is anything to go by."""
        return self._jobs / self._seconds if self._seconds else 0.0

    def note(self, now: float, finished: int, memory: float) -> None:
        """Take note of how many jobs have ended by now."""
        span = now - self._looked_at
        if span <= 0:
            return
        fading = exp(-span / memory)
        weight = memory * (1 - fading) / span  # the mean over the span
        self._jobs = self._jobs * fading + (finished - self._finished) * weight
        self._seconds = self._seconds * fading + span * weight
        self._looked_at, self._finished = now, finished


def memory_for(mean: float | None) -> float:
    """How many seconds the rate should look back, where a job takes `mean` seconds."""
    return max(MEMORY, _JOBS_REMEMBERED * (mean or 0.0))


def time_left(
    left: int | None, rate: float, mean: float | None, executing: Iterable[float]
) -> float | None:
    """Seconds until so many jobs have ended.

    At the given rate, but no sooner than a job takes that has just begun: the last jobs of a run
    end one by one, not at the rate of all workers.

    Args:
        left: jobs without an outcome; None: unknown.
        mean: seconds that a job takes.
        executing: for how many seconds each job that is being executed has been.
    """
    if left is None or (left and not rate):
        return None
    if not left:
        return 0.0
    latest = max(((mean or 0.0) - seconds for seconds in executing), default=0.0)
    return max(left / rate, latest)


class Observer:
    """Makes snapshots of one run."""

    def __init__(self) -> None:
        self._pace: Pace | None = None

    def look(
        self,
        *,
        now: float,
        began: float,
        phase: str,
        sights: Iterable[Sight],
        empty: Iterable[int],
        accepted: int,
        unread: int | None,
        pids: Mapping[int, int],
        books: Books,
    ) -> Snapshot:
        """Make a snapshot, without the workers' memory.

        Args:
            empty: slots without a worker.
            accepted: jobs that have their outcome, told or not yet, or will have it.
            unread: jobs that were not accepted yet; None: only the source knows.
        """
        report, clock = books.so_far, books.clock
        workers = [WorkerSnapshot(slot=slot, state="empty") for slot in empty]
        workers += [_worker(sight, now, clock.births, pids) for sight in sights]
        finished = report.jobs
        rate = self._rate(clock, now, finished)
        left = None if unread is None else unread + accepted - finished
        in_flight = sum(worker.in_flight for worker in workers)
        eta = None
        if phase in ("running", "ending") and (not left or finished >= in_flight):
            executing = [w.seconds or 0.0 for w in workers if w.in_flight]
            eta = time_left(left, rate, clock.mean, executing)
        return Snapshot(
            phase=phase,
            counts=dict(report.counts),
            skipped=report.skipped,
            retries=report.retries,
            total=None if left is None else finished + report.skipped + left,
            in_flight=in_flight,
            seconds=now - began,
            rate=rate,
            eta=eta,
            workers=tuple(sorted(workers, key=lambda worker: worker.slot)),
            workers_started=report.workers_started,
            workers_lost=report.workers_lost,
            failures=tuple(books.recent_failures),
            exits=tuple(books.recent_exits),
        )

    def _rate(self, clock: WorkClock, now: float, finished: int) -> float:
        if self._pace is None:
            if clock.ready is None:
                return 0.0
            self._pace = Pace(clock.ready)
        self._pace.note(now, finished, memory_for(clock.mean))
        return self._pace.rate


def _worker(
    sight: Sight, now: float, births: Mapping[int, float], pids: Mapping[int, int]
) -> WorkerSnapshot:
    since = sight.since
    if sight.activity == "starting":
        since = births.get(sight.worker_id)
    elif sight.in_flight and since is None:
        since = now  # it has just begun
    return WorkerSnapshot(
        slot=sight.slot,
        state=sight.activity,
        worker_id=sight.worker_id,
        pid=pids.get(sight.worker_id),
        key=sight.key,
        seconds=None if since is None else max(now - since, 0.0),
        in_flight=sight.in_flight,
        waiting=sight.waiting,
        executed=sight.executed,
    )


def with_memory(snapshot: Snapshot) -> Snapshot:
    """Return it with the memory that the workers hold now; a file of the kernel's says each."""
    return snapshot._replace(workers=tuple(map(_measured, snapshot.workers)))


def _measured(worker: WorkerSnapshot) -> WorkerSnapshot:
    if worker.pid is None:
        return worker
    return worker._replace(rss=rss_of(worker.pid))


def of_report(report: Report) -> Snapshot:
    """Make the snapshot of a run that is over."""
    return Snapshot(
        phase="over",
        counts=dict(report.counts),
        skipped=report.skipped,
        retries=report.retries,
        total=report.jobs + report.skipped + report.unstarted,
        seconds=report.seconds,
        rate=report.jobs_per_second,
        eta=0.0,
        workers_started=report.workers_started,
        workers_lost=report.workers_lost,
    )


def of_nothing() -> Snapshot:
    """Make the snapshot of a run that has not begun."""
    return Snapshot(phase="new", counts=dict.fromkeys(JobState, 0))
