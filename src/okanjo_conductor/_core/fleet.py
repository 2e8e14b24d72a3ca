"""The fleet: which slot holds which worker, and what an exit means.

A slot outlives its workers. A worker is STARTING, READY or STOPPING, or gone; `_MOVES` lists every
legal step and `_move` is the only code that takes one::

    StartWorker ──► STARTING ──WorkerReady──► READY
                        │                       │
                        └──────── stop ─────────┴──► STOPPING ──► (exit)

A worker executes `concurrency` jobs at a time, most of them one. Each that goes on for some time
has a *watch*. One that can end a job and live on is asked to, by a *plea*, before it is harmed.

A worker that is to end has *steps* before it: a command each, at a time each, the next one harsher
than the last. A worker is *doomed* when we are about to end it for what its job does; the job is
named, so that its death is blamed on that job and on no other.

A slot whose workers die `MAX_FAILED_STARTS` times running before they are ready closes the run:
starting a fourth would only hide the cause. A slot has a second worker, a *successor*, while the
first is being recycled: it is set up before the other one leaves.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

from okanjo_conductor._core.endings import Doom, Plea, Watch
from okanjo_conductor._core.prefetch import MAX_BATCH, BatchSizer
from okanjo_conductor._plain import Plain, fresh
from okanjo_conductor._types import Ordinal, Slot, WorkerId
from okanjo_conductor.errors import IllegalEventError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from okanjo_conductor._core.commands import Command

MAX_FAILED_STARTS = 3
MAX_IDLE_DEATHS = 10
"""Deaths in a row of workers that were ready and did nothing. Higher, because a worker may be
killed from outside at any time; finite, because a worker that dies of being ready never ends."""
_PATIENCE = 0.1
"""Seconds that jobs wait behind another one, at least. Then they go back to the queue, and the
worker is handed nothing until that one has ended: it idles for a round trip, which is little."""
_PATIENCE_JOBS = 4
"""In jobs of the pace that the worker had."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
_FREE_CRASHES = 3
"""Deaths in a row under jobs before a slot pauses: the third is what quarantines a job."""
_LONGEST_CRASH_DELAY = 1.0
"""Shorter: each such death brings a job nearer to its end."""


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


class Worker(Plain):
    """A live worker. Its held jobs are in the ledger."""

    id: WorkerId
    slot: SlotState
    sizer: BatchSizer = fresh(factory=BatchSizer)
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    """When it was set up; None: it is not."""
    executed: int = 0
    """How many jobs it has executed to an end."""
    concurrency: int = 1
    """How many jobs it executes at a time."""
    can_cancel: bool = False
    """Whether it can end a job and live on."""
    suspect: Ordinal | None = None
    """The suspect that it was handed last: while it holds that one, it gets nothing else."""
    is_set_aside: bool = False
    """It is handed nothing, so that it comes to have nothing, and can be handed a suspect."""
    rss: int = 0
    """Bytes of memory it held when that was measured last."""
    is_old: bool = False
    """It has lived long enough to be recycled."""
    next_ordinal: int = 1
    is_recalled: bool = False
    """A recall is under way: its answer has not come yet."""
    kept: int = 0
    """The last ordinal that a recall has decided on: what it left with the worker is executed,
    in a race or finished already, so asking again would change nothing."""
    watches: dict[Ordinal, Watch] = fresh(factory=dict)
    pleas: dict[Ordinal, Plea] = fresh(factory=dict)
    doom: Doom | None = None
    steps: deque[tuple[float, Command]] = fresh(factory=deque)
    """When to do what to it, in order; empty: nothing."""
    was_terminated: bool = False
    """We sent SIGTERM or SIGKILL, so its death is our doing."""

    @property
    def was_ready(self) -> bool:
        """Whether it was set up."""
        return self.ready_at is not None

    @property
    def is_late(self) -> bool:
        """Whether it was killed because it did not get set up."""
        return self.state is WorkerState.STARTING and self.was_terminated

    @property
    def takes_jobs(self) -> bool:
        """Whether it may be handed jobs."""
        return self.state is WorkerState.READY and self.doom is None and not self.was_terminated

    def next_due(self, *, is_waited_in: bool) -> float | None:
        """When something is due with it, or None.

        Args:
            is_waited_in: whether jobs wait in it that could be recalled.
        """
        if not (self.steps or self.watches or self.pleas):
            return None
        times = [*self._deadlines()]
        if is_waited_in and self.concurrency == 1:
            times += [w.blocks_at for w in self.watches.values() if w.blocks_at is not None]
        return min(times, default=None)

    def _deadlines(self) -> Iterator[float]:
        if self.steps:
            yield self.steps[0][0]
        is_safe = not (self.doom or self.was_terminated)
        for watch in self.watches.values():
            if is_safe and watch.expires_at is not None:
                yield watch.expires_at
            if watch.stuck_at is not None:
                yield watch.stuck_at
        if is_safe:
            for plea in self.pleas.values():
                yield plea.due

    @property
    def patience(self) -> float:
        """Seconds that jobs wait behind another one."""
        return max(_PATIENCE, _PATIENCE_JOBS * self.sizer.seconds_per_job)

    @property
    def is_blocked(self) -> bool:
        """Whether a job takes so long that no other one shall wait behind it."""
        if self.concurrency > 1:
            return False  # others are executed beside it
        return any(watch.blocks_at is None for watch in self.watches.values())

    def note_blocks(self, now: float) -> None:
        """Take note of what has come to block it."""
        for watch in self.watches.values():
            if watch.blocks_at is not None and watch.blocks_at <= now:
                watch.blocks_at = None

    @property
    def most_at_once(self) -> int:
        """How many jobs it takes when it has none: what it executes, and a batch to go on with."""
        return self.concurrency - 1 + self.sizer.batch

    def take_ordinals(self, count: int) -> Ordinal:
        """Use up so many ordinals; return the first."""
        first = self.next_ordinal
        self.next_ordinal += count
        return Ordinal(first)

    def note_recall(self) -> None:
        """Take note that the recall under way was answered."""
        self.is_recalled = False
        self.kept = self.next_ordinal - 1

    def note_over(self, is_held: Callable[[Ordinal], object]) -> bool:
        """Watch what it does not hold any more no longer.

        Returns:
            Whether that saved the worker, which was to be ended for such a job.
        """
        for kept in (self.watches, self.pleas):
            for ordinal in [ordinal for ordinal in kept if not is_held(ordinal)]:
                del kept[ordinal]
        if self.doom is None or self.was_terminated or is_held(self.doom.ordinal):
            return False
        self.doom = None
        self.steps.clear()
        return True


class SlotState(Plain):
    """A place for one worker at a time, and for a second one while the first is recycled."""

    number: Slot
    worker: Worker | None = None
    successor: Worker | None = None
    failed_starts: int = 0
    """In a row: workers that died before they were ready."""
    idle_deaths: int = 0
    """In a row: workers that died ready, without having executed anything."""
    newest_dead: int = 0
    """The youngest worker of both rows."""
    crashes: int = 0
    """In a row: workers that died under a job, no other job having ended in between."""
    living: int = 0
    """How many workers are in it, those included that were replaced and have not left."""
    not_before: float = 0.0
    """No worker is started earlier: the delay after a death without work grows."""

    @property
    def is_failing(self) -> bool:
        """Whether another start would only hide the cause."""
        return self.failed_starts >= MAX_FAILED_STARTS or self.idle_deaths >= MAX_IDLE_DEATHS

    def note_death(self, worker_id: WorkerId, *, was_ready: bool, now: float) -> None:
        """Take note that a worker died without having executed anything."""
        self.newest_dead = max(self.newest_dead, worker_id)
        if was_ready:
            self.failed_starts = 0
            self.idle_deaths += 1
        else:
            self.failed_starts += 1
        deaths = self.failed_starts + self.idle_deaths
        if deaths > 1:
            self.not_before = now + min(_FIRST_DELAY * 2 ** (deaths - 2), _LONGEST_DELAY)

    def note_crash(self, now: float) -> None:
        """Take note that a worker died under a job."""
        self.failed_starts = self.idle_deaths = 0
        self.crashes += 1
        extra = self.crashes - _FREE_CRASHES
        if extra > 0:
            delay = min(_FIRST_DELAY * 2 ** (min(extra, 32) - 1), _LONGEST_CRASH_DELAY)
            self.not_before = now + delay

    def note_work(self, worker_id: WorkerId) -> None:
        """Take note that a job has ended and left its worker alive.

        That a worker works says nothing of those who were started after it and died.
        """
        if worker_id > self.newest_dead:
            self.failed_starts = self.idle_deaths = 0
            self.not_before = 0.0
        self.crashes = 0


class Fleet:
    """Every slot and every live worker."""

    def __init__(self, slots: int, largest_batch: int = MAX_BATCH) -> None:
        self._largest_batch = largest_batch
        self.slots = [SlotState(Slot(number)) for number in range(slots)]
        self.vacant = {slot.number: slot for slot in self.slots}
        """The slots without a worker, or with one only that was replaced and has not left."""
        self.starting = 0
        """How many workers will soon take jobs."""
        self.ready = 0
        """How many workers have been set up."""
        self._workers: dict[WorkerId, Worker] = {}
        self._started = 0

    def __repr__(self) -> str:
        states = ", ".join(f"{w.id}@{w.slot.number} {w.state.name}" for w in self)
        return f"<Fleet of {len(self.slots)}: {states or 'nobody'}>"

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, worker: Worker) -> bool:
        return worker.id in self._workers

    def get(self, worker_id: WorkerId) -> Worker:
        """Find a live worker, or raise `IllegalEventError`."""
        worker = self._workers.get(worker_id)
        if worker is None:
            message = f"worker {worker_id} is not among the living: {self}"
            raise IllegalEventError(message)
        return worker

    def takers(self) -> list[Worker]:
        """Return the workers that take jobs."""
        return [w for w in self._workers.values() if w.takes_jobs]

    def fill(self, slot: SlotState) -> Worker:
        """Put a new worker into an empty slot, or beside the one that is to leave."""
        self._started += 1
        worker = Worker(WorkerId(self._started), slot, BatchSizer(self._largest_batch))
        self._workers[worker.id] = worker
        self.starting += 1
        slot.living += 1
        if slot.worker is None:
            slot.worker = worker
            del self.vacant[slot.number]
        else:
            slot.successor = worker
        return worker

    def make_ready(self, worker: Worker, now: float) -> Worker | None:
        """Let a worker take jobs, unless it was asked to stop while it started.

        Returns:
            The worker whose place it takes, if there is one.
        """
        if worker.was_ready or worker.state is not WorkerState.STOPPING:
            self._move(worker, WorkerState.READY)
        worker.ready_at = now
        self.ready += 1
        slot = worker.slot
        if slot.successor is not worker:
            return None
        old, slot.worker, slot.successor = slot.worker, worker, None
        return old

    def stop(self, worker: Worker) -> None:
        """Let a worker take no more jobs."""
        self._move(worker, WorkerState.STOPPING)

    def bury(self, worker: Worker) -> None:
        """Take a worker out of its slot."""
        del self._workers[worker.id]
        self.starting -= worker.state is WorkerState.STARTING
        self.ready -= worker.was_ready
        slot = worker.slot
        slot.living -= 1
        if slot.successor is worker:
            slot.successor = None
        elif slot.worker is worker:
            slot.worker, slot.successor = slot.successor, None
            if slot.worker is None and slot in self.slots[slot.number : slot.number + 1]:
                self.vacant[slot.number] = slot

    def resize(self, slots: int) -> list[Worker]:
        """Add slots, or take the last ones away; return the workers that were in those.

        A slot that was taken away and comes back may have its worker still: it is the same slot.
        """
        surplus = self.slots[slots:]
        del self.slots[slots:]
        for slot in surplus:
            self.vacant.pop(slot.number, None)
        left = {worker.slot.number: worker.slot for worker in self._workers.values()}
        for number in map(Slot, range(len(self.slots), slots)):
            self.slots.append(slot := left.get(number) or SlotState(number))
            if slot.worker is None:
                self.vacant[number] = slot
        return [w for slot in surplus for w in (slot.worker, slot.successor) if w is not None]

    def _move(self, worker: Worker, state: WorkerState) -> None:
        if (worker.state, state) not in _MOVES:
            message = f"worker {worker.id} cannot become {state.name}: it is {worker.state.name}"
            raise IllegalEventError(message)
        self.starting -= worker.state is WorkerState.STARTING
        worker.state = state
