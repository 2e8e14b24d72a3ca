"""The ledger: where every job stands.

A job that was accepted and not yet finished is in exactly one place:

    queue     waits for a worker
    delayed   waits for its backoff to pass
    aside     a *suspect*: waits for a worker that it will have to itself
    held      handed out to one worker, under an ordinal of that worker

The queue and what a worker holds are rows of *runs*: jobs in columns, cut where that is needed.
Which of its held jobs a worker is executing is not written down here: the worker claims an ordinal
before it starts it, and only after a death does anybody need to know.

A suspect may have killed a worker that was executing others too. It stays one until it has its
outcome or was executed to an end that left its worker alive (`clear`).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from okanjo_conductor._core.jobs import Jobs, joined
from okanjo_conductor._types import Ordinal
from okanjo_conductor.errors import IllegalEventError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._types import Attempt, JobId, Key, WorkerId


_NONE: Mapping[JobId, tuple[Attempt, ...]] = MappingProxyType({})


class _Run:
    """Jobs that a worker holds under consecutive ordinals, from `low` up to but without `high`."""

    __slots__ = ("first", "high", "jobs", "low")

    def __init__(self, first: int, jobs: Jobs, low: int, high: int) -> None:
        self.first = first
        """The ordinal of the job at index 0 of `jobs`."""
        self.jobs = jobs
        self.low = low
        self.high = high

    def cut(self, low: int, high: int) -> Jobs:
        """Return the jobs of these ordinals."""
        return self.jobs.cut(low - self.first, high - self.first)

    def without(self, low: int, high: int) -> Iterator[_Run]:
        """Yield what is left when the jobs of these ordinals are taken out."""
        if self.low < low:
            yield _Run(self.first, self.jobs, self.low, low)
        if high < self.high:
            yield _Run(self.first, self.jobs, high, self.high)


_low = attrgetter("low")


class _Part:
    """Jobs of the queue that came together."""

    __slots__ = ("begin", "jobs")

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.begin = 0
        """Those before this index are not in the queue any more."""

    def __len__(self) -> int:
        return len(self.jobs) - self.begin

    def take(self, count: int) -> Jobs:
        """Take the first `count` jobs. The rest is not touched: there may be millions."""
        begin, self.begin = self.begin, self.begin + count
        return self.jobs.cut(begin, self.begin)

    def left(self) -> Jobs:
        """Return those that are in the queue."""
        return self.jobs.cut(self.begin, len(self.jobs))


class Ledger:
    """Every unfinished job in its place."""

    def __init__(self) -> None:
        self._queue: deque[_Part] = deque()
        self._delayed: list[tuple[float, JobId, Job]] = []
        self._held: dict[WorkerId, list[_Run]] = {}
        """By worker, in the order of ordinals; no run is empty."""
        self._counts: dict[WorkerId, int] = {}
        """By worker, how many jobs it holds."""
        self._suspects: set[JobId] = set()
        self._aside: deque[Job] = deque()
        self._loners: set[JobId] = set()
        self._alone: deque[Job] = deque()
        self._histories: dict[JobId, list[Attempt]] = {}
        """Bad ends of unfinished jobs; most have none and no entry."""
        self.queued = 0
        """How many jobs wait for a worker."""
        self._all_held = 0

    def __repr__(self) -> str:
        aside = len(self._aside) + len(self._alone)
        places = f"{self.queued} queued, {len(self._delayed)} delayed, {aside} aside"
        return f"<Ledger {places}, {self._all_held} held>"

    @property
    def is_empty(self) -> bool:
        """Whether every accepted job is finished."""
        return not (self.queued or self._delayed or self._aside or self._alone or self.has_held)

    @property
    def has_held(self) -> bool:
        """Whether any worker holds a job."""
        return self._all_held > 0

    @property
    def aside(self) -> int:
        """How many suspects wait for a worker of their own."""
        return len(self._aside)

    @property
    def alone(self) -> int:
        """How many loners wait until nothing else is executed."""
        return len(self._alone)

    @property
    def next_due(self) -> float | None:
        """When the first delayed job may be queued again."""
        return self._delayed[0][0] if self._delayed else None

    # The queue

    def accept(
        self,
        jobs: Jobs,
        histories: Mapping[JobId, tuple[Attempt, ...]] = _NONE,
        loners: Collection[JobId] = (),
    ) -> None:
        """Queue new jobs, behind the others; the loners among them wait apart."""
        for job_id, history in histories.items():
            self._histories[job_id] = list(history)
        if loners:
            self._loners.update(loners)
            self._alone.extend(job for job in jobs if job.id in loners)
            jobs = Jobs.of(job for job in jobs if job.id not in loners)
        if jobs:
            self._queue.append(_Part(jobs))
            self.queued += len(jobs)

    def requeue(self, job: Job) -> None:
        """Put a job back to the front of the queue."""
        self._put_in_front(Jobs.of([job]))

    def delay(self, job: Job, until: float) -> None:
        """Set a job aside until then."""
        heapq.heappush(self._delayed, (until, job.id, job))

    def queue_due(self, now: float) -> None:
        """Queue the delayed jobs whose time has come, in front, the longest due first."""
        due: list[Job] = []
        while self._delayed and self._delayed[0][0] <= now:
            due.append(heapq.heappop(self._delayed)[2])
        if due:
            self._put_in_front(Jobs.of(due))

    def _put_in_front(self, jobs: Jobs) -> None:
        if self._loners and not self._loners.isdisjoint(jobs.ids):
            self._alone.extendleft(job for job in jobs if job.id in self._loners)
            jobs = Jobs.of(job for job in jobs if job.id not in self._loners)
        if self._suspects and not self._suspects.isdisjoint(jobs.ids):
            self._aside.extend(job for job in jobs if job.id in self._suspects)
            jobs = Jobs.of(job for job in jobs if job.id not in self._suspects)
        if jobs:
            self._queue.appendleft(_Part(jobs))
            self.queued += len(jobs)

    # Suspects

    def suspect(self, job: Job) -> None:
        """Have a job executed alone from now on."""
        self._suspects.add(job.id)

    def clear(self, job: Job) -> None:
        """Suspect a job no more."""
        self._suspects.discard(job.id)

    def _take_queued(self, count: int) -> Jobs:
        """Take the first `count` jobs from the queue."""
        parts: list[Jobs] = []
        self.queued -= count
        while count:
            part = self._queue[0]
            parts.append(part.take(min(count, len(part))))
            count -= len(parts[-1])
            if not part:
                self._queue.popleft()
        return joined(parts)

    # What workers hold

    def enrol(self, worker_id: WorkerId) -> None:
        """Let a worker hold jobs."""
        self._held[worker_id] = []
        self._counts[worker_id] = 0

    def held_by(self, worker_id: WorkerId) -> int:
        """How many jobs a worker holds."""
        return self._counts[worker_id]

    def first_held(self, worker_id: WorkerId) -> Ordinal | None:
        """The first ordinal of a worker that has not ended."""
        runs = self._held[worker_id]
        return Ordinal(runs[0].low) if runs else None

    def last_held(self, worker_id: WorkerId) -> Ordinal:
        """The newest ordinal of a worker that holds something."""
        return Ordinal(self._held[worker_id][-1].high - 1)

    def peek(self, worker_id: WorkerId, ordinal: Ordinal) -> Job | None:
        """Find the job that a worker holds under an ordinal."""
        run = self._run_at(worker_id, ordinal)
        return None if run is None else run.jobs[ordinal - run.first]

    def held_between(self, worker_id: WorkerId, low: int, high: int) -> dict[Ordinal, Job]:
        """Return what a worker holds under ordinals from `low` to `high`, both included."""
        runs = self._held[worker_id]
        first = max(bisect_right(runs, low, key=_low) - 1, 0)
        last = bisect_right(runs, high, key=_low)
        return {
            Ordinal(ordinal): run.jobs[ordinal - run.first]
            for run in runs[first:last]
            for ordinal in range(max(run.low, low), min(run.high, high + 1))
        }

    def count_between(self, worker_id: WorkerId, low: int, high: int) -> int:
        """Count what `held_between` would return."""
        runs = self._held[worker_id]
        return sum(max(0, min(run.high, high + 1) - max(run.low, low)) for run in runs)

    def first_between(self, worker_id: WorkerId, low: int, high: int) -> Ordinal | None:
        """The first ordinal that `held_between` would return."""
        for run in self._held[worker_id]:
            if (first := max(run.low, low)) <= min(run.high - 1, high):
                return Ordinal(first)
        return None

    def hand_out(self, worker_id: WorkerId, first: Ordinal, count: int) -> Jobs:
        """Move the first `count` queued jobs to a worker, as ordinals from `first`."""
        return self._give(worker_id, first, self._take_queued(count))

    def hand_out_suspect(self, worker_id: WorkerId, first: Ordinal) -> Jobs:
        """Move the first suspect to a worker."""
        return self._give(worker_id, first, Jobs.of([self._aside.popleft()]))

    def hand_out_loner(self, worker_id: WorkerId, first: Ordinal) -> Jobs:
        """Move the first loner to a worker."""
        return self._give(worker_id, first, Jobs.of([self._alone.popleft()]))

    def _give(self, worker_id: WorkerId, first: Ordinal, jobs: Jobs) -> Jobs:
        self._held[worker_id].append(_Run(first, jobs, first, first + len(jobs)))
        self._count(worker_id, len(jobs))
        return jobs

    def _count(self, worker_id: WorkerId, jobs: int) -> None:
        self._counts[worker_id] += jobs
        self._all_held += jobs

    def require_held(self, worker_id: WorkerId, ordinals: Sequence[Ordinal]) -> None:
        """Raise `IllegalEventError` unless the worker holds all of these, each named once."""
        if not ordinals:
            message = f"worker {worker_id} reports jobs but names none"
            raise IllegalEventError(message)
        if self._run_of(worker_id, ordinals) is not None:
            return
        named = set(ordinals)
        strange: object = sorted(k for k in named if self._run_at(worker_id, k) is None)
        if len(named) != len(ordinals) or strange:
            strange = strange or "one of them twice"
            message = f"worker {worker_id} reports jobs it does not hold: {strange}"
            raise IllegalEventError(message)

    def release(self, worker_id: WorkerId, ordinals: Sequence[Ordinal]) -> Jobs:
        """Take held jobs out of the ledger, in the order named."""
        run = self._run_of(worker_id, ordinals)
        if run is None:
            return joined([self.release(worker_id, [ordinal]) for ordinal in ordinals])
        low, high = ordinals[0], ordinals[-1] + 1
        jobs = run.cut(low, high)
        self._count(worker_id, -len(jobs))
        if low == run.low and high < run.high:
            run.low = high
        else:
            runs = self._held[worker_id]
            place = bisect_right(runs, run.low, key=_low) - 1
            runs[place : place + 1] = run.without(low, high)
        return jobs

    def _run_of(self, worker_id: WorkerId, ordinals: Sequence[Ordinal]) -> _Run | None:
        """Find the run that holds all of these, if they are consecutive."""
        low, high = ordinals[0], ordinals[0] + len(ordinals)
        run = self._run_at(worker_id, low)
        is_whole = run is not None and high <= run.high and ordinals == list(range(low, high))
        return run if is_whole else None

    def _run_at(self, worker_id: WorkerId, ordinal: int) -> _Run | None:
        """Find the run that holds an ordinal."""
        runs = self._held[worker_id]
        place = bisect_right(runs, ordinal, key=_low) - 1
        return runs[place] if place >= 0 and ordinal < runs[place].high else None

    def take_back(self, worker_id: WorkerId, first: int, last: int | None = None) -> int:
        """Put what the worker holds from `first` to `last` back to the front of the queue.

        Returns:
            How many jobs that were.
        """
        kept: list[_Run] = []
        taken: list[Jobs] = []
        for run in self._held[worker_id]:
            low = max(run.low, first)
            high = run.high if last is None else min(run.high, last + 1)
            if low < high:
                taken.append(run.cut(low, high))
                kept += run.without(low, high)
            else:
                kept.append(run)
        self._held[worker_id] = kept
        count = sum(map(len, taken))
        self._count(worker_id, -count)
        if taken:
            self._put_in_front(joined(taken))
        return count

    def dismiss(self, worker_id: WorkerId) -> None:
        """Take back everything a worker holds and let it hold no more."""
        self.take_back(worker_id, 0)
        del self._held[worker_id], self._counts[worker_id]

    # Looking for jobs: slow, because all are looked at

    def holder_of(self, job_id: JobId) -> tuple[WorkerId, Ordinal] | None:
        """Find the worker that holds a job, and under which ordinal."""
        for worker_id in self._held:
            for ordinal, job in self.held(worker_id).items():
                if job.id == job_id:
                    return worker_id, ordinal
        return None

    def held(self, worker_id: WorkerId) -> dict[Ordinal, Job]:
        """Return what a worker holds, by ordinal."""
        return {
            Ordinal(ordinal): run.jobs[ordinal - run.first]
            for run in self._held[worker_id]
            for ordinal in range(run.low, run.high)
        }

    def find(self, key: Key) -> JobId | None:
        """Find an unfinished job by its key."""
        held = (job for worker_id in self._held for job in self.held(worker_id).values())
        found = (job.id for job in chain(self.waiting(), held) if job.key == key)
        return next(found, None)

    def pull(self, job_ids: Collection[JobId]) -> list[Job]:
        """Take those of these jobs that no worker holds out of the ledger."""
        pulled = [job for job in self.waiting() if job.id in job_ids]
        if pulled:
            queue = [job for job in self._queued() if job.id not in job_ids]
            self._queue = deque([_Part(Jobs.of(queue))] if queue else [])
            self.queued = len(queue)
            self._delayed = [entry for entry in self._delayed if entry[1] not in job_ids]
            heapq.heapify(self._delayed)
            self._aside = deque(job for job in self._aside if job.id not in job_ids)
            self._alone = deque(job for job in self._alone if job.id not in job_ids)
        return pulled

    def withdraw(self) -> list[Job]:
        """Take every job that no worker holds out of the ledger, oldest first."""
        jobs = list(self.waiting())
        self._queue.clear()
        self._delayed.clear()
        self._aside.clear()
        self._alone.clear()
        self.queued = 0
        for job in jobs:
            self.close(job)
        return sorted(jobs, key=lambda job: job.id)

    def waiting(self) -> Iterator[Job]:
        """Yield the jobs that no worker holds: the queue in its order, then the others."""
        delayed = (job for _, _, job in self._delayed)
        return chain(self._queued(), delayed, self._aside, self._alone)

    def _queued(self) -> Iterator[Job]:
        return chain.from_iterable(part.left() for part in self._queue)

    # Histories

    def note(self, job: Job, attempt: Attempt) -> tuple[Attempt, ...]:
        """Write an attempt into a job's history; return the whole of it."""
        history = self._histories.setdefault(job.id, [])
        history.append(attempt)
        return tuple(history)

    def history_of(self, job: Job) -> tuple[Attempt, ...]:
        """Return the attempts of this job that have ended badly."""
        return tuple(self._histories.get(job.id, ()))

    def close(self, job: Job) -> None:
        """Forget the history of a job that has its outcome."""
        self._histories.pop(job.id, None)
        self._suspects.discard(job.id)
        self._loners.discard(job.id)

    def histories_of(self, jobs: Jobs) -> dict[int, tuple[Attempt, ...]]:
        """By index, the bad ends of those jobs that have any."""
        if not self._histories:
            return {}
        found = ((i, self._histories.get(job_id)) for i, job_id in enumerate(jobs.ids))
        return {i: tuple(history) for i, history in found if history}

    def close_all(self, jobs: Jobs) -> dict[JobId, tuple[Attempt, ...]]:
        """Forget the histories of jobs that are done; return those there were."""
        if self._loners:
            self._loners.difference_update(jobs.ids)
        if not self._histories:
            return {}  # and no suspects: each has one
        self._suspects.difference_update(jobs.ids)
        found = ((job_id, self._histories.pop(job_id, None)) for job_id in jobs.ids)
        return {job_id: tuple(history) for job_id, history in found if history}
