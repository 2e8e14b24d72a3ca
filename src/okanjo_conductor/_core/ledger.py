"""The ledger: where every job stands.

A job that was accepted and not yet finished is in exactly one place:

    queue     waits for a worker
    delayed   waits for its backoff to pass
    held      handed out to one worker, under an ordinal of that worker

Which of its held jobs a worker is executing is not written down here: the worker claims an ordinal
before it starts it, and only after a death does anybody need to know.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

from okanjo_conductor.errors import IllegalEventError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._types import Attempt, JobId, Key, Ordinal, WorkerId


class Ledger:
    """Every unfinished job in its place."""

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()
        self._delayed: list[tuple[float, JobId, Job]] = []
        self._held: dict[WorkerId, dict[Ordinal, Job]] = {}
        self._histories: dict[JobId, list[Attempt]] = {}
        """Bad ends of unfinished jobs; most have none and no entry."""

    def __repr__(self) -> str:
        held = sum(map(len, self._held.values()))
        return f"<Ledger {len(self._queue)} queued, {len(self._delayed)} delayed, {held} held>"

    @property
    def queued(self) -> int:
        """How many jobs wait for a worker."""
        return len(self._queue)

    @property
    def is_empty(self) -> bool:
        """Whether every accepted job is finished."""
        return not (self._queue or self._delayed or self.has_held)

    @property
    def has_held(self) -> bool:
        """Whether any worker holds a job."""
        return any(self._held.values())

    @property
    def next_due(self) -> float | None:
        """When the first delayed job may be queued again."""
        return self._delayed[0][0] if self._delayed else None

    def accept(self, jobs: Iterable[Job]) -> None:
        """Queue new jobs, behind the others."""
        self._queue.extend(jobs)

    def enrol(self, worker_id: WorkerId) -> None:
        """Let a worker hold jobs."""
        self._held[worker_id] = {}

    def held_by(self, worker_id: WorkerId) -> int:
        """How many jobs a worker holds."""
        return len(self._held[worker_id])

    def first_held(self, worker_id: WorkerId) -> Ordinal | None:
        """The ordinal a worker executes, or will execute next."""
        return next(iter(self._held[worker_id]), None)

    def last_held(self, worker_id: WorkerId) -> Ordinal:
        """The newest ordinal of a worker that holds something."""
        return next(reversed(self._held[worker_id]))

    def peek(self, worker_id: WorkerId, ordinal: Ordinal) -> Job | None:
        """Find the job that a worker holds under an ordinal."""
        return self._held[worker_id].get(ordinal)

    def hand_out(self, worker_id: WorkerId, first: Ordinal, count: int) -> list[Job]:
        """Move the first `count` queued jobs to a worker, as ordinals from `first`."""
        queue = self._queue
        if count == len(queue):
            jobs = list(queue)
            queue.clear()
        else:
            jobs = [queue.popleft() for _ in range(count)]
        self._held[worker_id].update(zip(range(first, first + count), jobs, strict=True))  # type: ignore[arg-type]  # a range of ordinals is one of ints
        return jobs

    def require_held(self, worker_id: WorkerId, ordinals: Sequence[Ordinal]) -> None:
        """Raise `IllegalEventError` unless the worker holds all of these, each named once."""
        if not ordinals:
            message = f"worker {worker_id} reports jobs but names none"
            raise IllegalEventError(message)
        named = set(ordinals)
        if len(named) != len(ordinals) or not self._held[worker_id].keys() >= named:
            strange = sorted(named - self._held[worker_id].keys()) or "one of them twice"
            message = f"worker {worker_id} reports jobs it does not hold: {strange}"
            raise IllegalEventError(message)

    def release(self, worker_id: WorkerId, ordinals: Iterable[Ordinal]) -> list[Job]:
        """Take held jobs out of the ledger, in the order named."""
        take = self._held[worker_id].pop
        return [take(ordinal) for ordinal in ordinals]

    def take_back(self, worker_id: WorkerId, first: int, last: int | None = None) -> int:
        """Put what the worker holds from `first` to `last` back to the front of the queue.

        Returns:
            How many jobs that were.
        """
        held = self._held[worker_id]
        ordinals = [k for k in held if k >= first and (last is None or k <= last)]
        self._queue.extendleft(reversed(self.release(worker_id, ordinals)))
        return len(ordinals)

    def dismiss(self, worker_id: WorkerId) -> None:
        """Take back everything a worker holds and let it hold no more."""
        self.take_back(worker_id, 0)
        del self._held[worker_id]

    def delay(self, job: Job, until: float) -> None:
        """Set a job aside until then."""
        heapq.heappush(self._delayed, (until, job.id, job))

    def requeue(self, job: Job) -> None:
        """Put a job back to the front of the queue."""
        self._queue.appendleft(job)

    def queue_due(self, now: float) -> None:
        """Queue the delayed jobs whose time has come, in front, the longest due first."""
        due: list[Job] = []
        while self._delayed and self._delayed[0][0] <= now:
            due.append(heapq.heappop(self._delayed)[2])
        self._queue.extendleft(reversed(due))

    def holder_of(self, job_id: JobId) -> tuple[WorkerId, Ordinal] | None:
        """Find the worker that holds a job, and under which ordinal. Slow: looks at all."""
        for worker_id, held in self._held.items():
            for ordinal, job in held.items():
                if job.id == job_id:
                    return worker_id, ordinal
        return None

    def pull(self, job_ids: Collection[JobId]) -> list[Job]:
        """Take those of these jobs that no worker holds out of the ledger. Slow: looks at all."""
        waiting = [*self._queue, *(job for _, _, job in self._delayed)]
        pulled = [job for job in waiting if job.id in job_ids]
        if pulled:
            self._queue = deque(job for job in self._queue if job.id not in job_ids)
            self._delayed = [entry for entry in self._delayed if entry[1] not in job_ids]
            heapq.heapify(self._delayed)
        return pulled

    def find(self, key: Key) -> JobId | None:
        """Find an unfinished job by its key. Slow: looks at all."""
        held = (job for jobs in self._held.values() for job in jobs.values())
        delayed = (job for _, _, job in self._delayed)
        found = (job.id for job in chain(self._queue, delayed, held) if job.key == key)
        return next(found, None)

    def withdraw(self) -> list[Job]:
        """Take every job that no worker holds out of the ledger, oldest first."""
        jobs = [*self._queue, *(job for _, _, job in self._delayed)]
        self._queue.clear()
        self._delayed.clear()
        for job in jobs:
            self._histories.pop(job.id, None)
        return sorted(jobs, key=lambda job: job.id)

    def note(self, job: Job, attempt: Attempt) -> tuple[Attempt, ...]:
        """Write an attempt into a job's history; return the whole of it."""
        history = self._histories.setdefault(job.id, [])
        history.append(attempt)
        return tuple(history)

    def attempts_of(self, job: Job) -> int:
        """How many attempts of this job have ended badly."""
        return len(self._histories.get(job.id, ()))

    def close(self, job: Job) -> None:
        """Forget the history of a job that has its outcome."""
        self._histories.pop(job.id, None)

    def histories_of(self, jobs: list[Job]) -> dict[int, tuple[Attempt, ...]]:
        """By index, the bad ends of those jobs that have any."""
        if not self._histories:
            return {}
        found = ((i, self._histories.get(job.id)) for i, job in enumerate(jobs))
        return {i: tuple(history) for i, history in found if history}

    def close_all(self, jobs: list[Job]) -> dict[JobId, tuple[Attempt, ...]]:
        """Forget the histories of jobs that are done; return those there were."""
        if not self._histories:
            return {}
        found = ((job.id, self._histories.pop(job.id, None)) for job in jobs)
        return {job_id: tuple(history) for job_id, history in found if history}
