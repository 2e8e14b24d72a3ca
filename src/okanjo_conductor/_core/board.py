"""The board: who wants jobs, who has some to give, who has done enough, and when to look again.

Everything here follows from the fleet and the ledger. It is written down because to look at every
worker at every event would make an event the dearer the more workers there are: whatever changes a
worker *touches* it, and `refresh` looks again at those that were touched.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from okanjo_conductor._core.prefetch import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from okanjo_conductor._core.fleet import Worker
    from okanjo_conductor._core.ledger import Ledger
    from okanjo_conductor._types import Recycle, WorkerId

_SLACK = 64
"""Entries of the heap that may be out of date, besides as many as are not."""
_NOTHING = (0, 0, 0, 0)
"""What a worker adds to the sums: sharers, room, spare, coming."""


class Board:
    """What follows from the state of each worker.

    Args:
        ledger: what workers hold.
        recycle: when a worker has done enough.
    """

    def __init__(self, ledger: Ledger, recycle: Recycle) -> None:
        self._ledger = ledger
        self._recycle = recycle
        self._touched: dict[WorkerId, Worker] = {}
        self._shares: dict[WorkerId, tuple[int, ...]] = {}
        self._due_at: dict[WorkerId, float] = {}
        self._dues: list[tuple[float, WorkerId]] = []
        """A heap; entries that differ from `_due_at` are out of date."""
        self.idle: dict[WorkerId, Worker] = {}
        """Who could execute another job at once, longest first."""
        self.hungry: dict[WorkerId, Worker] = {}
        """Who has something to execute and room for more to wait behind it."""
        self.givers: dict[WorkerId, Worker] = {}
        """Who holds jobs behind another one that could be recalled."""
        self.spent: dict[WorkerId, Worker] = {}
        """Who is to be recycled."""
        self.sharers = 0
        """How many workers take jobs like any others: neither a suspect alone, nor set aside."""
        self.room = 0
        """How many jobs those that take jobs take at once when they have none."""
        self.spare = 0
        """How many jobs wait behind others in workers, less the workers that have none."""
        self.coming = 0
        """How many jobs the recalls under way may bring."""

    def summary(self) -> tuple[object, ...]:
        """Return everything written down here, as plain data."""
        places = (self.idle, self.hungry, self.givers, self.spent)
        sums = (self.sharers, self.room, self.spare, self.coming)
        return (*map(sorted, places), sums, self.next_due(), sorted(self._due_at.items()))

    def touch(self, worker: Worker) -> None:
        """Take note that something about a worker has changed."""
        self._touched[worker.id] = worker

    def refresh(self) -> None:
        """Look again at every worker that was touched."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for worker in touched.values():
                self._place(worker)

    def forget(self, worker: Worker) -> None:
        """Know nothing more of a worker that has died."""
        for places in (self._touched, self.idle, self.hungry, self.givers, self.spent):
            places.pop(worker.id, None)
        self._tally(worker.id, _NOTHING)
        self._shares.pop(worker.id, None)
        self._due_at.pop(worker.id, None)

    # What is asked of one worker

    def jobs_left(self, worker: Worker) -> int:
        """How many more jobs a worker may be handed before it is recycled."""
        most = self._recycle.jobs
        if most is None:
            return MAX_BATCH
        return most - worker.executed - self._ledger.held_by(worker.id)

    def is_alone(self, worker: Worker) -> bool:
        """Whether a worker has a suspect to itself."""
        suspect = worker.suspect
        return suspect is not None and self._ledger.peek(worker.id, suspect) is not None

    def waiting_in(self, worker: Worker) -> int:
        """How many jobs a worker holds behind others that a recall could bring back."""
        return 0 if worker.is_recalled else self._undecided(worker, self._ledger.held_by(worker.id))

    def _undecided(self, worker: Worker, held: int) -> int:
        """How many jobs a worker holds behind others that no recall has decided on."""
        behind = held - worker.concurrency
        return behind if behind > 0 and self._ledger.last_held(worker.id) > worker.kept else 0

    def _is_spent(self, worker: Worker, left: int) -> bool:
        limit = self._recycle.rss
        return left <= 0 or worker.is_old or (limit is not None and worker.rss > limit)

    # Deadlines

    def next_due(self) -> float | None:
        """When something is due with a worker, or None."""
        while self._dues and self._is_outdated(self._dues[0]):
            heapq.heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def due(self, now: float) -> Iterator[WorkerId]:
        """Yield the workers with which something is due, each once, to be touched."""
        while (time := self.next_due()) is not None and time <= now:
            worker_id = heapq.heappop(self._dues)[1]
            del self._due_at[worker_id]
            yield worker_id

    def _is_outdated(self, entry: tuple[float, WorkerId]) -> bool:
        return self._due_at.get(entry[1]) != entry[0]

    def _note_due(self, worker_id: WorkerId, time: float | None) -> None:
        if time == self._due_at.get(worker_id):
            return
        if time is None:
            del self._due_at[worker_id]
            return
        self._due_at[worker_id] = time
        heapq.heappush(self._dues, (time, worker_id))
        if len(self._dues) > 2 * len(self._due_at) + _SLACK:
            self._dues = [(time, worker_id) for worker_id, time in self._due_at.items()]
            heapq.heapify(self._dues)

    # Where a worker belongs

    def _place(self, worker: Worker) -> None:
        held, left = self._ledger.held_by(worker.id), self.jobs_left(worker)
        takes = worker.takes_jobs
        shares = takes and not (worker.is_set_aside or self.is_alone(worker))
        is_open = shares and left > 0 and not (worker.is_recalled or worker.is_blocked)
        is_idle = is_open and held < worker.concurrency
        waiting = self._undecided(worker, held)
        is_waited_in = waiting > 0 and not worker.is_recalled
        most = worker.most_at_once
        _put(self.idle, worker, is_there=is_idle)
        _put(self.hungry, worker, is_there=is_open and not is_idle and held <= most)
        _put(self.givers, worker, is_there=shares and is_waited_in)
        _put(self.spent, worker, is_there=takes and self._is_spent(worker, left))
        spare = waiting or -(left > 0 and not held)
        coming = waiting if worker.is_recalled else 0
        self._tally(worker.id, (shares, most, spare, coming) if takes else (0, 0, 0, coming))
        self._note_due(worker.id, worker.next_due(is_waited_in=is_waited_in))

    def _tally(self, worker_id: WorkerId, share: tuple[int, ...]) -> None:
        before = self._shares.get(worker_id, _NOTHING)
        if share == before:
            return
        self._shares[worker_id] = share
        self.sharers += share[0] - before[0]
        self.room += share[1] - before[1]
        self.spare += share[2] - before[2]
        self.coming += share[3] - before[3]


def _put(places: dict[WorkerId, Worker], worker: Worker, *, is_there: bool) -> None:
    if is_there:
        places.setdefault(worker.id, worker)
    else:
        places.pop(worker.id, None)
