"""The fleet: which slot holds which worker, and what an exit means.

A slot outlives its workers. A worker is STARTING, READY or STOPPING, or gone; `_MOVES` lists every
legal step and `_move` is the only code that takes one::

    StartWorker ──► STARTING ──WorkerReady──► READY
                        │                       │
                        └──────── stop ─────────┴──► STOPPING ──► (exit)

A worker that does not leave is terminated after its grace, then killed. A slot whose workers die
`MAX_FAILED_STARTS` times running before they are ready closes the run: starting a fourth would
only hide the cause.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from okanjo_conductor._core.prefetch import MAX_BATCH, BatchSizer
from okanjo_conductor._types import Ordinal, Slot, WorkerId
from okanjo_conductor.errors import IllegalEventError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FAILED_STARTS = 3
MAX_IDLE_DEATHS = 10
"""Deaths in a row of workers that were ready and did nothing. Higher, because a worker may be
killed from outside at any time; finite, because a worker that dies of being ready never ends."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


class WorkerState(Enum):
    """Where a worker stands in its life."""

    STARTING = auto()
    READY = auto()
    STOPPING = auto()


_MOVES = {
    (WorkerState.STARTING, WorkerState.READY),
    (WorkerState.STARTING, WorkerState.STOPPING),
    (WorkerState.READY, WorkerState.STOPPING),
}


@dataclass(slots=True, eq=False)
class Worker:
    """A live worker. Its held jobs are in the ledger."""

    id: WorkerId
    slot: SlotState
    sizer: BatchSizer = field(default_factory=BatchSizer)
    state: WorkerState = WorkerState.STARTING
    was_ready: bool = False
    next_ordinal: int = 1
    is_recalled: bool = False
    """A recall is under way: its answer has not come yet."""
    kept: int = 0
    """The last ordinal that a recall has decided on: what it left with the worker is executed,
    in a race or finished already, so asking again would change nothing."""
    deadline: float | None = None
    """When to send the next harsher signal; None: never."""
    was_terminated: bool = False
    """We sent SIGTERM, so its death is our doing."""

    def take_ordinals(self, count: int) -> Ordinal:
        """Use up so many ordinals; return the first."""
        first = self.next_ordinal
        self.next_ordinal += count
        return Ordinal(first)

    def note_recall(self) -> None:
        """Take note that the recall under way was answered."""
        self.is_recalled = False
        self.kept = self.next_ordinal - 1


@dataclass(slots=True, eq=False)
class SlotState:
    """A place for one worker at a time."""

    number: Slot
    worker: Worker | None = None
    failed_starts: int = 0
    """In a row: workers that died before they were ready."""
    idle_deaths: int = 0
    """In a row: workers that died ready, without having executed anything."""
    not_before: float = 0.0
    """No worker is started earlier: the delay after a failed start grows."""

    @property
    def is_failing(self) -> bool:
        """Whether another start would only hide the cause."""
        return self.failed_starts >= MAX_FAILED_STARTS or self.idle_deaths >= MAX_IDLE_DEATHS

    def note_death(self, *, was_ready: bool, now: float) -> None:
        """Take note that a worker died without having executed anything."""
        if was_ready:
            self.failed_starts = 0
            self.idle_deaths += 1
        else:
            self.failed_starts += 1
        deaths = self.failed_starts + self.idle_deaths
        if deaths > 1:
            self.not_before = now + min(_FIRST_DELAY * 2 ** (deaths - 2), _LONGEST_DELAY)

    def note_work(self) -> None:
        """Take note that a worker of this slot executed a job."""
        self.failed_starts = self.idle_deaths = 0
        self.not_before = 0.0


class Fleet:
    """Every slot and every live worker."""

    def __init__(self, slots: int, largest_batch: int = MAX_BATCH) -> None:
        self._largest_batch = largest_batch
        self.slots = [SlotState(Slot(number)) for number in range(slots)]
        self._workers: dict[WorkerId, Worker] = {}
        self._started = 0

    def __repr__(self) -> str:
        states = ", ".join(f"{w.id}@{w.slot.number} {w.state.name}" for w in self)
        return f"<Fleet of {len(self.slots)}: {states or 'nobody'}>"

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, worker_id: WorkerId) -> Worker:
        """Find a live worker, or raise `IllegalEventError`."""
        worker = self._workers.get(worker_id)
        if worker is None:
            message = f"worker {worker_id} is not among the living: {self}"
            raise IllegalEventError(message)
        return worker

    def ready(self) -> list[Worker]:
        """Return the workers that take jobs."""
        return [w for w in self._workers.values() if w.state is WorkerState.READY]

    def starting(self) -> int:
        """Count the workers that will soon take jobs."""
        return sum(w.state is WorkerState.STARTING for w in self._workers.values())

    def fill(self, slot: SlotState) -> Worker:
        """Put a new worker into an empty slot."""
        self._started += 1
        worker = Worker(WorkerId(self._started), slot, BatchSizer(self._largest_batch))
        slot.worker = self._workers[worker.id] = worker
        return worker

    def make_ready(self, worker: Worker) -> None:
        """Let a worker take jobs, unless it was asked to stop while it started."""
        if worker.was_ready or worker.state is not WorkerState.STOPPING:
            self._move(worker, WorkerState.READY)
        worker.was_ready = True

    def stop(self, worker: Worker, deadline: float | None) -> None:
        """Let a worker take no more jobs; send it a signal at `deadline`."""
        self._move(worker, WorkerState.STOPPING)
        worker.deadline = deadline

    def bury(self, worker: Worker) -> None:
        """Empty a worker's slot."""
        del self._workers[worker.id]
        worker.slot.worker = None

    @staticmethod
    def _move(worker: Worker, state: WorkerState) -> None:
        if (worker.state, state) not in _MOVES:
            message = f"worker {worker.id} cannot become {state.name}: it is {worker.state.name}"
            raise IllegalEventError(message)
        worker.state = state
