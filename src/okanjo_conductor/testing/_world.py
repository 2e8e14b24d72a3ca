"""A small simulated world around a `ConductorState`: the shell, the workers, the source, a clock.

The world carries out commands and answers with events, as the shell does. It keeps books of its
own (who executes what, who was charged for what) and compares them with what the core says:
`deliver` judges every step, `check` the state between steps, `check_end` the whole.

A simulated worker executes what it was handed in the order of the ordinals. It *claims* an ordinal,
looks whether it was recalled, executes it and writes its outcome; what it says waits, as in a real
one, in a result pipe and on a job link until the world lets the core hear it. The cells of a worker
are read and written by the package's own `cells`.

A broken promise is a `BrokenPromiseError`.
"""

from __future__ import annotations

from collections import Counter, deque
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.board import Board
from okanjo_conductor._core.fleet import MAX_FAILED_STARTS, WorkerState
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.policy import MIN_SAMPLE, Policy
from okanjo_conductor._core.state import ConductorState, Phase
from okanjo_conductor._io import cells
from okanjo_conductor._types import (
    Attempt,
    Cause,
    JobId,
    JobState,
    Ordinal,
    Recycle,
    Retry,
    WorkerId,
)
from okanjo_conductor.errors import (
    IllegalEventError,
    JobCancelledError,
    JobMemoryError,
    JobTimeoutError,
    WorkerCrashError,
    WorkerStartError,
)
from okanjo_conductor.testing._force import Force, ForceBook
from okanjo_conductor.testing._promises import BrokenPromiseError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._core.fleet import Worker

GRACE = 2.0
_MANY = 10_000
"""Events in one go: more than that is a loop without end."""
_NANOSECONDS = 1_000_000
_TWO = 2


class FaultyJobError(Exception):
    """What a simulated job raises."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in the result pipe for a job that has no value."""

    cause: Cause


def _page() -> memoryview[int]:
    return memoryview(bytearray(8 * (cells.HIGH + 1))).cast("Q")


@dataclass(eq=False)
class SimWorker:
    """A worker, as the world knows it."""

    id: WorkerId
    slot: int
    started_at: float = 0.0
    is_ready: bool = False
    handed: dict[int, Job] = field(default_factory=dict)
    """Everything it was ever handed."""
    last_sent: int = 0
    freed: set[int] = field(default_factory=set)
    """Ordinals that a recall has taken back."""
    todo: deque[int] = field(default_factory=deque)
    """Ordinals that have arrived and that it has not looked at."""
    cells: memoryview[int] = field(default_factory=_page)
    concurrency: int = 1
    """How many jobs it executes at a time."""
    can_cancel: bool = False
    undecided: int | None = None
    """The ordinal it has claimed and not yet compared with the revoked range."""
    busy: list[int] = field(default_factory=list)
    """The ordinals it is executing, in the order of their starts."""
    ending: int | None = None
    """The one of them that is ended next; None: the first."""
    running: int | None = None
    """Whose code it is in, if it says so."""
    is_recalled: bool = False
    pipe: deque[tuple[int, Any, int]] = field(default_factory=deque)
    """Outcomes nobody has read: ordinal, value or `Failure`, nanoseconds."""
    link: deque[tuple[int, ev.Event]] = field(default_factory=deque)
    """Frames nobody has read: the number of outcomes written before, and what is said."""
    written: int = 0
    applied: int = 0
    """How many outcomes were written, and how many of them the core has heard of."""
    skipped: tuple[int, int] | None = None
    """A run of declined ordinals that is not reported yet."""
    totals: dict[str, int] = field(default_factory=dict)
    executions: int = 0
    has_worked: bool = False
    is_stopping: bool = False
    force: Force = field(init=False)

    def __post_init__(self) -> None:
        self.force = Force(self)

    @property
    def executing(self) -> int | None:
        """The ordinal it is executing, the first if there are several."""
        return self.busy[0] if self.busy else None

    @property
    def can_start(self) -> bool:
        """Whether it may claim another ordinal."""
        return self.undecided is None and len(self.busy) < self.concurrency

    @property
    def claimed(self) -> int:
        """The ordinal it has claimed last, or 0."""
        return self.cells[cells.CLAIM]

    @property
    def last_kept(self) -> int:
        """The last ordinal it may still execute."""
        return cells.last_kept(self.cells)

    @property
    def is_racing(self) -> bool:
        """Whether the next ordinal may be executed though it is revoked."""
        is_next = bool(self.todo) and self.todo[0] == self.cells[cells.LOW] + 1
        return self.is_recalled and is_next

    @property
    def has_something_to_say(self) -> bool:
        """Whether anything of it was not heard."""
        return bool(self.pipe or self.link)

    # Its steps

    def store_claim(self) -> None:
        """Claim the next ordinal."""
        self.undecided = self.cells[cells.CLAIM] = self.todo.popleft()

    def decide(self, *, races: bool = False, is_leaving: bool = False) -> None:
        """Execute what it has claimed, or skip it if it was revoked."""
        ordinal, self.undecided = self.undecided or 0, None
        is_revoked = self.cells[cells.LOW] < ordinal <= self.cells[cells.HIGH]
        if is_leaving or (is_revoked and not races):
            self._skip(ordinal)
        else:
            self.busy.append(ordinal)
            self.executions += 1

    def claim(self, *, races: bool = False) -> None:
        """Start the next ordinal, or skip it if it was revoked."""
        self.store_claim()
        self.decide(races=races)
        self.report_skipped()

    def finish(self, nanoseconds: int = _NANOSECONDS, *, is_large: bool = False) -> None:
        """End an executing job with a value."""
        ordinal = self._end()
        value = self.handed[ordinal].payload
        if is_large:
            self.say(_done(self.id, [(ordinal, value, nanoseconds)]))
        else:
            self._write(ordinal, value, nanoseconds)

    def fail(self, cause: Cause = Cause.ERROR, nanoseconds: int = _NANOSECONDS) -> None:
        """End an executing job without a value."""
        self._write(self._end(), Failure(cause), nanoseconds)

    def _end(self) -> int:
        ordinal = self.busy[0] if self.ending is None else self.ending
        self.ending = None
        self.busy.remove(ordinal)
        return ordinal

    def say(self, event: ev.Event) -> None:
        """Send a frame."""
        self.link.append((self.written, event))

    def report_skipped(self) -> None:
        """Say which ordinals were skipped."""
        if self.skipped:
            first, last = map(Ordinal, self.skipped)
            self.say(ev.JobsDeclined(worker_id=self.id, first=first, last=last))
            self.skipped = None

    def _skip(self, ordinal: int) -> None:
        if self.skipped and self.skipped[1] == ordinal - 1:
            self.skipped = self.skipped[0], ordinal
        else:
            self.report_skipped()
            self.skipped = ordinal, ordinal
        cells.decline(self.cells, ordinal)

    def _write(self, ordinal: int, result: Any, nanoseconds: int) -> None:
        self.pipe.append((ordinal, result, nanoseconds))
        self.written += 1

    def ready_event(self) -> ev.WorkerReady:
        """Say that it is set up."""
        return ev.WorkerReady(
            worker_id=self.id, concurrency=self.concurrency, can_cancel=self.can_cancel
        )

    # What its death means

    @property
    def hit(self) -> list[int]:
        """The ordinals that its death at this moment would mean something to.

        Between the claim and the look at the revoked range it executes nothing yet, but has
        announced to: who claims, executes.
        """
        is_announced = self.undecided is not None and self.undecided not in self.freed
        return [*self.busy, self.undecided or 0] if is_announced else list(self.busy)


class SlotBooks:
    """How often in a row workers of each slot have died unasked and had executed nothing."""

    def __init__(self) -> None:
        self.idle_deaths: Counter[int] = Counter()
        self.failed_starts: Counter[int] = Counter()
        """Those of them that were not set up."""
        self._newest: dict[int, int] = {}
        """By slot, the last worker that was counted."""
        self.longest = 0
        """The longest row of idle deaths ever."""

    def forget(self, slot: int) -> None:
        """Begin anew."""
        self.idle_deaths[slot] = self.failed_starts[slot] = 0

    def note_work(self, worker: SimWorker) -> None:
        """Take note of an outcome; it says nothing of workers that were started later."""
        if worker.id > self._newest.get(worker.slot, 0):
            self.forget(worker.slot)

    def note_death(self, worker: SimWorker) -> None:
        """Take note of a death without work."""
        slot = worker.slot
        self.idle_deaths[slot] += 1
        self.failed_starts[slot] = 0 if worker.is_ready else self.failed_starts[slot] + 1
        self._newest[slot] = max(worker.id, self._newest.get(slot, 0))
        self.longest = max(self.longest, self.idle_deaths[slot])


class World:
    """The shell and everything outside it.

    Args:
        slots: how many workers at most.
        retry: the budgets, as for a `Conductor`.
        limits: further fields of `Policy`.
    """

    def __init__(  # noqa: PLR0915 - a world has many books
        self, *, slots: int = 2, retry: Retry | None = None, **limits: Any
    ) -> None:
        self.retry = retry or Retry()
        self.slots = slots
        self.policy = policy = Policy(
            retry=self.retry, abort_grace=GRACE, timeout_grace=GRACE, **limits
        )
        self.force = ForceBook(policy)
        self.budgets = {
            Cause.ERROR: self.retry.errors,
            Cause.CRASH: self.retry.crashes,
            Cause.TIMEOUT: self.retry.timeouts,
            Cause.MEMORY: self.retry.memory,
        }
        self.state = ConductorState(slots=slots, policy=policy)
        self.now = 0.0
        self.told = 0.0
        """The time of the last event that the core was handed."""
        self.idle_times = 0
        """How often in a row the core was told the time and nothing came of it."""
        self.ids = count()
        self.source: deque[str] = deque()
        self.is_source_broken = False
        self.asked: int | None = None
        """Of the `ReadJobs` that is not answered, its count."""
        self.answers_recalls_at_once = True
        self.is_paused = False
        self.late_jobs = 0
        """How many jobs the receiver of outcomes will add yet."""
        self.workers: dict[WorkerId, SimWorker] = {}
        """Those whose exit the core has not heard of."""
        self.buried: list[SimWorker] = []
        self.slot_books = SlotBooks()
        self.accepted: dict[JobId, Job] = {}
        self.cancelled: set[JobId] = set()
        """Jobs that were cancelled before they had an outcome."""
        self.failed = 0
        self.is_over_budget = False
        """Whether more jobs have failed than may, by the books of the world."""
        self.in_vain: set[JobId] = set()
        """Jobs that were added when the run was ending."""
        self.filled_in_vain = 0
        """How many jobs the source was given when the run was ending."""
        self.charges: dict[JobId, list[Cause]] = {}
        """The bad ends of every job, by the books of the world."""
        self.suspects: set[JobId] = set()
        """Jobs that are to be executed by a worker that has nothing else."""
        self.loners: set[JobId] = set()
        """Jobs that are to be executed while nothing else is."""
        self.pasts: dict[JobId, tuple[Attempt, ...]] = {}
        """Bad ends in earlier runs."""
        self.heard_charges: dict[JobId, list[Cause]] = {}
        """The same, by the records of the core."""
        self.finals: dict[JobId, rec.JobsDone | rec.JobFailed] = {}
        self.states: dict[JobId, JobState] = {}
        self.returned: list[Job] = []
        self.ends: list[do.EndRun] = []
        self.exits: list[do.AnnounceExit] = []
        self.reports: list[do.EmitStats] = []
        self.commands: list[do.Command] = []
        """Of the last `send`."""
        self._events: deque[ev.Event] = deque()

    @property
    def phase(self) -> Phase:
        """Where the run stands."""
        return self.state._phase

    @property
    def is_over(self) -> bool:
        """Whether nothing may happen any more."""
        return bool(self.ends)

    # The shell

    def send(self, event: ev.Event) -> list[do.Command]:
        """Hand the core an event, do what it says, and hand it what comes of that at once."""
        self._events.append(event)
        self.commands = []
        for _ in range(_MANY):
            if not self._events or self.is_over:
                break
            self.deliver(self._events.popleft())
        else:
            require(False, "commands and answers follow each other without end", self.state)
        self._drop_late_jobs()
        return self.commands

    def _drop_late_jobs(self) -> None:
        """Jobs that are added in the very step that ends the run are not accepted."""
        for event in self._events:
            self.refuse(event)
            if isinstance(event, ev.JobsAccepted):
                for job in event.jobs:
                    del self.accepted[job.id]
        self._events.clear()

    def deliver(self, event: ev.Event) -> None:
        """Hand the core one event and do what it says."""
        self.told = self.now
        was_running = self.phase is Phase.RUNNING
        step = self.state.handle(event, self.now)
        self.force.note_phase(self.phase, self.now)
        for record in step.records:
            self._receive(record)
        self.is_over_budget |= was_running and self._has_failed()
        for command in step.commands:
            require(not self.is_over, "nothing is commanded after the end", command)
            self.commands.append(command)
            self._CARRY_OUT[type(command)](self, command)

    def refuse(self, event: ev.Event) -> IllegalEventError:
        """Hand the core an event that cannot have happened, and see that nothing changes."""
        before = self.snapshot()
        try:
            self.state.handle(event, self.now)
        except IllegalEventError as error:
            require(self.snapshot() == before, "an illegal event changes nothing", event)
            return error
        message = f"an illegal event is refused: {event}"
        raise BrokenPromiseError(message)

    def snapshot(self) -> object:
        """All that the core knows, as plain data."""
        ledger, fleet = self.state._ledger, self.state._fleet
        return deepcopy(
            (
                repr(self.state),
                self.state.next_deadline(),
                self.places(),
                {k: len(v) for k, v in ledger._histories.items()},
                [
                    [getattr(w, name) for name in type(w).names if name not in ("slot", "sizer")]
                    + [w.sizer.batch, w.sizer._seconds_per_job]
                    for w in fleet
                ],
                [(s.failed_starts, s.idle_deaths, s.not_before) for s in fleet.slots],
                self.state._stats._totals,
                self.state._stats._cycle,
                self.state._is_delivery_paused,
            )
        )

    def places(self) -> dict[str, list[JobId]]:
        """The ids of the jobs in each place of the ledger, in order."""
        ledger = self.state._ledger
        held = {f"held by {w}": [j.id for j in ledger.held(w).values()] for w in ledger._held}
        return {
            "queue": [job.id for job in islice(ledger.waiting(), ledger.queued)],
            "delayed": [job_id for _, job_id, _ in ledger._delayed],
            "aside": [job.id for job in ledger._aside],
            "alone": [job.id for job in ledger._alone],
            **held,
        }

    # Records

    def _receive(self, record: rec.Record) -> None:
        if isinstance(record, rec.JobRetried):
            self._receive_retry(record)
            return
        if isinstance(record, rec.JobsDone):
            columns = {len(record.jobs), len(record.values), len(record.nanoseconds)}
            require(len(columns) == 1 and record.jobs, "columns are equally long", record)
            for job, value in zip(record.jobs, record.values, strict=True):
                require(value == job.payload, "a job gets its own value", job, value)
                history = record.histories.get(job.id, ())
                self._close(job, record, JobState.DONE, [a.cause for a in history])
        else:
            causes = [attempt.cause for attempt in record.history]
            if len(causes) > len(self.heard_charges.get(record.job.id, ())):
                require(record.cause is causes[-1], "the last attempt tells the cause", record)
                self.heard_charges.setdefault(record.job.id, []).append(record.cause)
            self._judge(record, causes)
            self._close(record.job, record, record.state, causes)
        if self.late_jobs:
            self.late_jobs -= 1
            self.add_by_hand(1)

    def _receive_retry(self, record: rec.JobRetried) -> None:
        heard = self.heard_charges.setdefault(record.job.id, [])
        heard.append(record.attempt.cause)
        require(record.attempt.number == len(heard), "attempts are counted", record)
        spent, cause = Counter(heard), record.attempt.cause
        if cause not in (Cause.PREEMPTED, Cause.SUSPECT):
            require(spent[cause] <= self.budgets.get(cause, 0), "budgets are kept", record)

    def _close(
        self,
        job: Job,
        record: rec.JobsDone | rec.JobFailed,
        state: JobState,
        causes: list[Cause],
    ) -> None:
        require(job.id in self.accepted, "only accepted jobs have outcomes", job)
        require(job.id not in self.finals, "a job has one outcome", job)
        self.finals[job.id], self.states[job.id] = record, state
        self.suspects.discard(job.id)
        self.loners.discard(job.id)
        ours, heard = self.charges.get(job.id, []), self.heard_charges.get(job.id, [])
        require(causes == ours, "only who was executing is charged", job, causes, ours)
        require(causes == heard, "the history is what was heard", job, causes, heard)

    def _judge(self, record: rec.JobFailed, causes: list[Cause]) -> None:
        spent = Counter(causes)
        state, error = _BAD_ENDS[record.cause]
        require(record.state is state, "the cause decides the state", record)
        require(isinstance(record.error, error), "the error fits the cause", record)
        if record.cause in self.budgets:
            exhausted = spent[record.cause] == self.budgets[record.cause] + 1
            require(exhausted, "a job is given up when its budget is spent", record)
        if state is JobState.CANCELLED:
            is_unwanted = record.job.id in self.cancelled or self.force.is_aborted
            is_meant = is_unwanted or self.force.may_end_all(self.now)
            require(is_meant, "nothing is cancelled but what was to be", record)
        else:
            self.failed += 1

    def _has_failed(self) -> bool:
        """Whether more jobs have failed than may."""
        limit = self.policy.max_failures
        if limit is None or isinstance(limit, int):
            return limit is not None and self.failed > limit
        counted = self.failed + sum(s is JobState.DONE for s in self.states.values())
        return counted >= MIN_SAMPLE and self.failed > limit * counted

    # Commands

    def _read_jobs(self, command: do.ReadJobs) -> None:
        require(self.asked is None, "one question at a time")
        require(not self.is_paused, "nothing is read while the receiver is behind")
        require(not self.is_source_broken, "a broken source is not read")
        require(self.phase is Phase.RUNNING, "jobs are read in a run only")
        fleet = self.state._fleet
        batches = sum(w.most_at_once for w in fleet.takers())
        bound = max(2 * self.slots, batches) + batches
        wanted = self.state._ledger.queued + command.count
        require(command.count > 0 and wanted <= bound, "no more is read than fits", command)
        self.asked = command.count

    def _start_worker(self, command: do.StartWorker) -> None:
        require(0 <= command.slot < self.slots, "there is such a slot", command)
        here = [w for w in self.workers.values() if w.slot == command.slot]
        may_be_two = self.policy.recycle != Recycle()
        require(len(here) <= may_be_two, "a slot has one worker, two when one is recycled", command)
        require(self.phase is Phase.RUNNING, "workers are started in a run only", command)
        started = len(self.workers) + len(self.buried)
        require(command.worker_id == 1 + started, "ids are not used again", command)
        is_hopeless = self.slot_books.failed_starts[command.slot] >= MAX_FAILED_STARTS
        require(not is_hopeless, "a slot that cannot start is given up", command)
        self.workers[command.worker_id] = self._make_worker(command)

    def _make_worker(self, command: do.StartWorker) -> SimWorker:
        return SimWorker(command.worker_id, command.slot, self.now)

    def _live(self, worker_id: WorkerId) -> SimWorker:
        """Find whom a command is for."""
        require(worker_id in self.workers, "the dead are commanded nothing", worker_id)
        return self.workers[worker_id]

    def _hand_out(self, command: do.HandOut) -> None:
        worker = self._live(command.worker_id)
        require(worker.is_ready, "jobs are for workers that are ready", command)
        require(not worker.is_stopping, "who was asked to stop is handed nothing", command)
        is_safe = not (worker.force.is_doomed or worker.force.is_ended)
        require(is_safe, "who is to be ended is handed nothing", command)
        require(self.phase is Phase.RUNNING, "jobs are handed out in a run only", command)
        require(not worker.is_recalled, "a recall is over before the next hand-out", command)
        require(command.first == worker.last_sent + 1, "ordinals are consecutive", command)
        batch = self.state._fleet.get(worker.id).sizer.batch
        fitting = max(batch, worker.concurrency)
        require(0 < len(command.jobs) <= fitting, "a batch fits", command)
        held, most = self.state._ledger.held_by(worker.id), worker.concurrency - 1 + 2 * batch
        require(held <= most, "a worker holds two batches at most to wait", command)
        self._check_alone(worker, command)
        for place, job in enumerate(command.jobs):
            require(job.id not in self.cancelled, "what was cancelled is not handed out", job)
            attempt = len(self.charges.get(job.id, ())) + 1
            require(
                len(command.histories.get(place, ())) + 1 == attempt,
                "the worker knows the attempt",
                command,
            )
            worker.last_sent += 1
            worker.handed[worker.last_sent] = job
        self._send_jobs(worker, range(command.first, worker.last_sent + 1))

    def _check_alone(self, worker: SimWorker, command: do.HandOut) -> None:
        """Who may have killed a worker gets one to itself."""
        jobs = [*command.jobs]
        jobs += [job for o, job in worker.handed.items() if worker.force.goes_on(o)]
        is_alone = len(jobs) == 1 or self.suspects.isdisjoint(job.id for job in jobs)
        require(is_alone, "suspects are executed alone", command, jobs)
        if self.loners:
            jobs = list(command.jobs)
            for other in self.workers.values():
                jobs += [job for o, job in other.handed.items() if other.force.goes_on(o)]
            is_alone = len(jobs) == 1 or self.loners.isdisjoint(job.id for job in jobs)
            require(is_alone, "beside loners nothing is executed", command, jobs)

    def _send_jobs(self, worker: SimWorker, ordinals: range) -> None:
        worker.todo.extend(ordinals)

    def _recall_jobs(self, command: do.RecallJobs) -> None:
        worker = self._live(command.worker_id)
        require(not worker.is_recalled, "one recall at a time", command)
        require(command.last == worker.last_sent, "a recall names the last ordinal", command)
        worker.is_recalled = True
        worker.force.recalled = command.last
        cells.revoke(worker.cells, command.last)
        self._begin_recall(worker)

    def _begin_recall(self, worker: SimWorker) -> None:
        if self.answers_recalls_at_once:
            self._events.append(self.recall_answer(worker))

    def _stop_worker(self, command: do.StopWorker) -> None:
        worker = self._live(command.worker_id)
        require(not worker.is_stopping, "a worker is asked to stop once", command)
        worker.is_stopping = True

    def _dump_stack(self, command: do.DumpStack) -> None:
        self.force.dump_stack(self._live(command.worker_id).force, self.now)

    def _interrupt_job(self, command: do.InterruptJob) -> None:
        worker = self._live(command.worker_id)
        self.force.interrupt(worker.force, command, self.now)
        limits = self.force.limits_of(worker.handed[command.ordinal])
        is_known = command.limit in limits
        require(is_known, "a job is told its own limit, or one that was set", command)

    def _cancel_job(self, command: do.CancelJob) -> None:
        worker = self._live(command.worker_id)
        self.force.cancel(worker.force, command, self.cancelled, self.now)

    def _report_stuck(self, command: do.ReportStuck) -> None:
        worker = self._live(command.worker_id)
        require(command.slot == worker.slot, "the right one", command)
        self.force.report_stuck(worker.force, self.now, command)

    def _terminate_worker(self, command: do.TerminateWorker) -> None:
        worker = self._live(command.worker_id)
        asked = worker.is_stopping
        self.force.terminate(worker.force, self.cancelled, self.now, is_asked=asked)

    def _kill_worker(self, command: do.KillWorker) -> None:
        self.force.kill(self._live(command.worker_id).force, self.now)

    def _return_jobs(self, command: do.ReturnJobs) -> None:
        in_order = command.jobs == sorted(command.jobs, key=lambda job: job.id)
        require(in_order, "jobs are given back in their order", command)
        is_unwanted = any(job.id in self.cancelled for job in command.jobs)
        require(not is_unwanted, "what was cancelled is not given back", command)
        self.returned += command.jobs
        self.suspects.difference_update(job.id for job in command.jobs)

    def _announce_exit(self, command: do.AnnounceExit) -> None:
        self.exits.append(command)

    def _emit_stats(self, command: do.EmitStats) -> None:
        require(command.report.raw, "a report is by somebody", command)
        self.reports.append(command)

    def _end_run(self, command: do.EndRun) -> None:
        require(not self.workers, "the run ends when no worker is left", self.workers)
        require(command.is_over_budget == self.is_over_budget, "failures are counted", command)
        self.ends.append(command)

    _CARRY_OUT: ClassVar[dict[type[Any], Callable[[Any, Any], None]]] = {
        do.ReadJobs: lambda world, command: world._read_jobs(command),
        do.StartWorker: lambda world, command: world._start_worker(command),
        do.HandOut: lambda world, command: world._hand_out(command),
        do.RecallJobs: lambda world, command: world._recall_jobs(command),
        do.StopWorker: lambda world, command: world._stop_worker(command),
        do.DumpStack: lambda world, command: world._dump_stack(command),
        do.InterruptJob: lambda world, command: world._interrupt_job(command),
        do.CancelJob: lambda world, command: world._cancel_job(command),
        do.ReportStuck: lambda world, command: world._report_stuck(command),
        do.TerminateWorker: lambda world, command: world._terminate_worker(command),
        do.KillWorker: lambda world, command: world._kill_worker(command),
        do.ReturnJobs: lambda world, command: world._return_jobs(command),
        do.AnnounceExit: lambda world, command: world._announce_exit(command),
        do.EmitStats: lambda world, command: world._emit_stats(command),
        do.EndRun: lambda world, command: world._end_run(command),
    }

    # What may happen

    def start(self, jobs: int = 0) -> list[do.Command]:
        """Begin the run, with so many jobs in the source."""
        self.source.extend("job" for _ in range(jobs))
        commands = self.send(ev.RunStarted())
        return commands + self.answer_intake() if jobs else commands

    def make_job(self) -> Job:
        """Accept a job."""
        number = JobId(next(self.ids))
        job = Job(number, f"key {number}", number, b"")
        self.accepted[number] = job
        if self.phase is Phase.ENDING:
            self.in_vain.add(number)
        return job

    def answer_intake(self, limit: int = _MANY, refused: int = 0) -> list[do.Command]:
        """Answer `ReadJobs` from the source, with some jobs that cannot travel."""
        asked, self.asked = self.asked or 0, None
        taken = min(asked, limit, len(self.source))
        if not taken:
            return self.send(ev.IntakeEnded(is_final=self.is_source_broken))
        jobs = [self.make_job() for _ in range(taken)]
        for _ in range(taken):
            self.source.popleft()
        commands: list[do.Command] = []
        for job in jobs[:refused]:
            commands += self.refuse_job(job)
        return commands + self.send(self.acceptance(jobs[refused:]))

    def acceptance(self, jobs: list[Job], *, is_answer: bool = True) -> ev.JobsAccepted:
        """Accept jobs with their pasts."""
        numbers = [job.id for job in jobs]
        return ev.JobsAccepted(
            jobs=Jobs.of(jobs),
            is_answer=is_answer,
            histories={number: self.pasts[number] for number in numbers if number in self.pasts},
            loners=frozenset(self.loners.intersection(numbers)),
        )

    def give_past(self, job: Job, *causes: Cause, is_loner: bool = False) -> None:
        """Let a job have been executed in earlier runs."""
        attempts = [
            Attempt(number, cause, FaultyJobError("before"), WorkerId(99), None)
            for number, cause in enumerate(causes, 1)
        ]
        if attempts:
            self.pasts[job.id] = tuple(attempts)
            self.charges[job.id] = [*causes]
            self.heard_charges[job.id] = [*causes]
        if is_loner:
            self.loners.add(job.id)

    def refuse_job(self, job: Job) -> list[do.Command]:
        """Say that a job cannot travel; its past is of no matter then."""
        for book in (self.charges, self.heard_charges, self.pasts):
            book.pop(job.id, None)
        return self.send(ev.JobRefused(job=job, error=FaultyJobError("unpicklable")))

    def break_source(self) -> list[do.Command]:
        """Let the source raise; it answers the question under way."""
        self.is_source_broken, self.asked = True, None
        self.source.clear()
        return self.send(ev.IntakeEnded(is_final=True))

    def fill_source(self, jobs: int) -> list[do.Command]:
        """Let the source have jobs again."""
        self.source.extend("job" for _ in range(jobs))
        if self.phase is Phase.ENDING:
            self.filled_in_vain += jobs
        return self.send(ev.IntakeReopened())

    def add_by_hand(self, jobs: int) -> None:
        """Add jobs past the source; `send` hands them over."""
        made = [self.make_job() for _ in range(jobs)]
        self._events.append(self.acceptance(made, is_answer=False))

    def pause(self) -> list[do.Command]:
        """Let the consumer fall behind."""
        self.is_paused = True
        return self.send(ev.DeliveryPaused())

    def resume(self) -> list[do.Command]:
        """Let the consumer catch up."""
        self.is_paused = False
        return self.send(ev.DeliveryResumed())

    def abort(self) -> list[do.Command]:
        """Stop now."""
        return self.send(ev.AbortRequested())

    def drain(self, seconds: float | None = None) -> list[do.Command]:
        """Finish what is executed, and stop."""
        if self.phase < Phase.ENDING:
            self.force.drain_seconds = seconds
        return self.send(ev.DrainRequested(seconds=seconds))

    def set_limit(self, seconds: float) -> list[do.Command]:
        """Have jobs without a time limit of their own keep this one."""
        self.force.limits.append(seconds)
        return self.send(ev.LimitSet(seconds=seconds))

    def resize(self, slots: int) -> list[do.Command]:
        """Want so many workers; slots that were empty and come back have no history."""
        for slot in {*range(self.slots, slots)} - {w.slot for w in self.workers.values()}:
            self.slot_books.forget(slot)
        self.slots = slots
        return self.send(ev.ResizeRequested(slots=slots))

    def cancel(self, job_id: JobId) -> list[do.Command]:
        """Want a job no more."""
        if job_id not in self.finals:
            self.cancelled.add(job_id)
        return self.send(ev.CancelRequested(job_id=job_id))

    def see(
        self, worker: SimWorker, ordinal: int, since: float, first: int = 0
    ) -> list[do.Command]:
        """Tell the core what a worker has been executing for some time."""
        first = first or ordinal
        worker.force.see(range(first, ordinal + 1), since)
        return self.send(
            ev.JobsSeen(
                worker_id=worker.id, first=Ordinal(first), last=Ordinal(ordinal), since=since
            )
        )

    def measure(self, worker: SimWorker, rss: int) -> list[do.Command]:
        """Tell the core what memory a worker holds."""
        claimed, limit = cells.last_started(worker.cells), self.policy.max_rss
        executing = worker.force.executing(claimed)
        if limit is not None and rss > limit and executing:
            worker.force.measured = executing
        return self.send(ev.MemoryMeasured(worker_id=worker.id, rss=rss, claimed=claimed))

    def ready(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker be set up."""
        worker.is_ready = True
        return self.send(worker.ready_event())

    def hear(self, worker: SimWorker, frames: int = _MANY) -> list[do.Command]:
        """Read so many frames of a worker; where no more is left, empty its result pipe."""
        commands: list[do.Command] = []
        while worker.link and frames and not self.is_over:
            frames -= 1
            written, event = worker.link.popleft()
            commands += self._apply(worker, written)
            commands += self._hear(worker, event)
        if frames and not worker.link:
            commands += self._apply(worker, worker.written)
        return commands

    def _apply(self, worker: SimWorker, upto: int) -> list[do.Command]:
        """Pass on outcomes until `upto` of them are: runs of done jobs, failures singly."""
        commands: list[do.Command] = []
        done: list[tuple[int, Any, int]] = []
        while worker.applied < upto:
            worker.applied += 1
            ordinal, result, nanoseconds = worker.pipe.popleft()
            if not isinstance(result, Failure):
                done.append((ordinal, result, nanoseconds))
                continue
            if done:
                commands += self._hear(worker, _done(worker.id, done))
                done = []
            commands += self._hear(worker, _failed(worker.id, ordinal, result, nanoseconds))
        if done:
            commands += self._hear(worker, _done(worker.id, done))
        return commands

    def _hear(self, worker: SimWorker, event: ev.Event) -> list[do.Command]:
        if isinstance(event, ev.AttemptFailed):
            job = worker.handed[event.ordinal]
            is_own = event.cause is Cause.PREEMPTED and job.id not in self.cancelled
            cause = Cause.ERROR if is_own else event.cause
            self.charges.setdefault(job.id, []).append(cause)
            self.suspects.discard(job.id)
            self._note_work(worker, [event.ordinal])
        elif isinstance(event, ev.AttemptsDone):
            self._note_work(worker, event.ordinals)
        elif isinstance(event, ev.JobsDeclined):
            worker.force.get_over(range(event.first, event.last + 1))
        if isinstance(event, ev.WorkerReady):
            worker.is_ready = True
        return self.send(event)

    def _note_work(self, worker: SimWorker, ordinals: list[Ordinal]) -> None:
        worker.force.get_over(ordinals)
        self.slot_books.note_work(worker)

    def recall_answer(self, worker: SimWorker) -> ev.JobsRecalled:
        """Settle what was revoked: the event that says so."""
        worker.is_recalled = False
        beyond = worker.last_kept
        worker.freed.update(range(beyond + 1, worker.last_sent + 1))
        worker.force.get_over(range(beyond + 1, worker.last_sent + 1))
        worker.force.left = beyond
        return ev.JobsRecalled(worker_id=worker.id, beyond=Ordinal(beyond))

    def answer_recall(self, worker: SimWorker) -> list[do.Command]:
        """Answer `RecallJobs`."""
        return self.send(self.recall_answer(worker))

    def report_stats(self, worker: SimWorker, **totals: int) -> list[do.Command]:
        """Let a worker report its counters."""
        worker.totals = totals
        return self.send(ev.StatsReported(worker_id=worker.id, totals=totals, time_span=5.0))

    def exit(
        self,
        worker: SimWorker,
        code: int | None = None,
        signal: str | None = "SIGKILL",
        detail: str = "",
        *,
        is_oom: bool = False,
    ) -> list[do.Command]:
        """Let a worker's process be gone."""
        commands = self.hear(worker)
        if (skipped := cells.last_skipped(worker.cells)) is not None:
            first, last = skipped
            told = ev.JobsDeclined(worker_id=worker.id, first=first, last=last)
            commands += self._hear(worker, told)
        if hit := worker.hit:
            cause = self.force.cause_of_death(worker.force, hit, is_oom=is_oom)
            self._charge(worker, self.force.judge(worker.force, hit, cause))
            if cause is Cause.CRASH:
                self.slot_books.forget(worker.slot)
        elif worker.force.is_late or not (worker.is_stopping or worker.force.is_ended):
            self.slot_books.note_death(worker)
        most = self.policy.recycle.jobs
        require(most is None or worker.executions <= most, "a worn worker executes no more", worker)
        del self.workers[worker.id]
        self.buried.append(worker)
        claimed = cells.last_started(worker.cells)
        return commands + self.send(
            ev.WorkerExited(
                worker_id=worker.id,
                code=code if signal is None else None,
                signal=signal,
                claimed=claimed,
                running=None if worker.running is None else Ordinal(worker.running),
                detail=detail,
                is_oom=is_oom,
            )
        )

    def _charge(self, worker: SimWorker, verdicts: dict[int, Cause]) -> None:
        for ordinal, cause in verdicts.items():
            job = worker.handed[ordinal]
            self.charges.setdefault(job.id, []).append(cause)
            if worker.concurrency > 1 and cause is not Cause.PREEMPTED:
                self.suspects.add(job.id)

    def leave(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker end because its work is done."""
        return self.exit(worker, code=0, signal=None)

    def pass_time(self, seconds: float) -> list[do.Command]:
        """Let time pass, and tell the core whenever it wanted to be told."""
        commands: list[do.Command] = []
        end = self.now + seconds
        while not self.is_over and (due := self.state.next_deadline()) is not None and due <= end:
            require(due > self.now or not commands, "no time is asked for twice", due)
            self.now = max(self.now, due)
            commands += self.send_time()
        self.now = end
        return commands

    def send_time(self) -> list[do.Command]:
        """Tell the core that its deadline has come."""
        before = self.places()
        commands = self.send(ev.TimePassed())
        is_idle = not commands and self.places() == before
        self.idle_times = self.idle_times + 1 if is_idle else 0
        require(self.idle_times < _TWO, "nobody asks for the time in vain", self.state)
        later = self.state.next_deadline()
        require(later is None or later > self.now, "a deadline lies ahead", later)
        return commands

    # The end

    def work(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker do everything it has."""
        commands: list[do.Command] = []
        if not worker.is_ready:
            commands += self.ready(worker)
        if worker.is_recalled:
            commands += self.answer_recall(worker)
        while not self.is_over and (worker.todo or worker.executing is not None):
            while worker.todo and worker.can_start:
                worker.claim()
            if worker.executing is not None:
                worker.finish()
            commands += self.hear(worker)
        return commands + self.hear(worker)

    def drive_to_the_end(self) -> None:
        """Let everything that is under way end well."""
        if self.phase is Phase.NEW:
            self.start()
        if self.is_paused and not self.is_over:
            self.resume()
        for _ in range(1_000):
            if self.is_over:
                return
            if self.asked is not None:
                self.answer_intake()
            for worker in tuple(self.workers.values()):
                if worker.is_stopping and not worker.is_recalled:
                    self.leave_in_an_orderly_way(worker)
                else:
                    self.work(worker)
            self.pass_time(10.0)
        require(False, "a run ends", self.state)

    def leave_in_an_orderly_way(self, worker: SimWorker) -> None:
        """Finish the job at hand and leave."""
        while worker.busy:
            worker.finish()
        self.hear(worker)
        if not self.is_over:
            self.leave(worker)

    # What must hold between events

    def check(self) -> None:
        """Compare the books."""
        self.check_places()
        suspects = self.state._ledger._suspects
        require(suspects == self.suspects, "suspects are known as long as they are", suspects)
        self.check_board()
        self.check_nobody_idles()
        if self.cancelled - self.finals.keys():
            self._check_cancelled()
        for worker in self.workers.values():
            for ordinal in worker.busy:
                held = self.state._ledger.peek(worker.id, Ordinal(ordinal))
                job = worker.handed[ordinal]
                require(held == job, "no job is taken from under its worker", job)

    def _check_cancelled(self) -> None:
        """A job that was cancelled is ended, unless a recall has yet to tell how."""
        for worker in self.workers.values():
            force = worker.force
            for left in force.left_executing():
                if worker.handed[left].id in self.cancelled:
                    is_on_the_way = worker.is_recalled or force.is_ended
                    is_meant = force.is_doomed and (worker.can_cancel or force.meant[0] == left)
                    is_meant |= left in force.pleas
                    require(is_on_the_way or is_meant, "what was cancelled is ended", force)

    def check_places(self) -> None:
        """Every accepted job is in exactly one place, or finished, or returned."""
        found: list[int] = [job_id for place in self.places().values() for job_id in place]
        found += self.finals
        found += [job.id for job in self.returned]
        found.sort()
        require(found == sorted(self.accepted), "each job is in one place", found)
        histories = self.state._ledger._histories
        if histories:
            unfinished = self.accepted.keys() - self.finals.keys()
            require(histories.keys() <= unfinished, "finished jobs are forgotten", histories)

    def check_board(self) -> None:
        """What the core has written down about workers is what it would find out now."""
        state, fleet = self.state, self.state._fleet
        fresh = Board(state._ledger, self.policy.recycle)
        for worker in fleet:
            fresh.touch(worker)
        fresh.refresh()
        require(
            state._board.summary() == fresh.summary(),
            "the board is up to date",
            state._board.summary(),
            fresh.summary(),
        )
        vacant = [slot.number for slot in fleet.slots if slot.worker is None]
        require(sorted(fleet.vacant) == vacant, "vacant slots are known", fleet.vacant)
        counts = [
            sum(w.state is WorkerState.STARTING for w in fleet),
            sum(w.was_ready for w in fleet),
        ]
        require(counts == [fleet.starting, fleet.ready], "workers are counted", counts, fleet)

    def check_nobody_idles(self) -> None:
        """No job waits beside an idle worker or an empty slot, here or behind another job."""
        if self.phase is not Phase.RUNNING:
            return
        fleet, ledger = self.state._fleet, self.state._ledger
        held = {job.id for worker_id in ledger._held for job in ledger.held(worker_id).values()}
        if not self.loners.isdisjoint(held):
            return  # all others wait for it
        takers = fleet.takers()
        idle = [w for w in takers if not (w.is_recalled or self._held(w) or self._is_worn(w))]
        if idle:
            waiting = ledger.queued + ledger.aside
            require(not waiting, "no job waits beside an idle worker", self.state)
            is_quiet = not held and self.asked is None
            is_served = not (is_quiet and ledger.alone and self.state.is_dry)
            require(is_served, "a loner waits for others only", self.state)
            self._check_recall()
        elif not fleet.starting and all(self._held(w) or self._is_worn(w) for w in takers):
            self._check_starts()

    def _check_recall(self) -> None:
        """What waits behind another job is taken back for an idle worker."""
        givers = [w for w in self.state._fleet.takers() if self._free(w)]
        is_asked = not givers or any(w.is_recalled for w in self.state._fleet)
        require(is_asked, "a job behind another one is taken back", self.state)

    def _check_starts(self) -> None:
        """What waits behind another job is reason enough to start a worker."""
        fleet = self.state._fleet
        used_up = {w.slot for w in fleet.takers() if not self._held(w) and w.slot.living == 1}
        slots = (s for s in fleet.slots if s.worker is None or s in used_up)
        free = [s for s in slots if s.not_before <= self.told]
        is_served = not free or not any(map(self._free, fleet.takers()))
        require(is_served, "no job waits behind another one beside an empty slot", self.state)
        is_queued = bool(free and self.state._ledger.queued + self.state._ledger.aside)
        require(not is_queued, "no job waits beside an empty slot", self.state)

    def _is_worn(self, worker: Worker) -> bool:
        """Whether a worker has no jobs left to it."""
        most = self.policy.recycle.jobs
        return most is not None and worker.executed + self._held(worker) >= most

    def _held(self, worker: Worker) -> int:
        return self.state._ledger.held_by(worker.id)

    def _free(self, worker: Worker) -> bool:
        """Whether a worker holds what it has not claimed, beside what it has."""
        if self._held(worker) <= worker.concurrency:
            return False
        last_kept = max(self.workers[worker.id].last_kept, worker.kept)
        return self.state._ledger.last_held(worker.id) > last_kept

    def check_end(self) -> None:
        """Everything is accounted for."""
        require(len(self.ends) == 1, "a run ends once")
        require(not self.workers, "no worker is left")
        self.check_places()
        accounted = self.finals.keys() | {job.id for job in self.returned}
        require(self.cancelled <= self.finals.keys(), "what was cancelled has an outcome")
        require(self.accepted.keys() == accounted, "every job has an outcome or is given back")
        require(self.state._ledger.is_empty, "the ledger is empty")
        require(not self.state._ledger._histories, "no history is kept")
        require(self.state.next_deadline() is None, "nothing is awaited")
        self._check_error()
        self.check_stats()

    def _check_error(self) -> None:
        error = self.ends[0].error
        if error is not None:
            require(isinstance(error, WorkerStartError), "only starts end a run", error)
            deaths = self.slot_books.longest
            require(deaths >= MAX_FAILED_STARTS, "one slot cannot start", deaths)

    def check_stats(self) -> None:
        """The diffs add up to the last totals, and those to what the workers said."""
        said: Counter[str] = Counter()
        for worker in self.buried:
            said.update(worker.totals)
        diffs: Counter[str] = Counter()
        for command in self.reports:
            diffs.update(command.report.agg.diff)
        last = self.reports[-1].report.agg.last if self.reports else {}
        for name in said | diffs.keys() | last.keys():
            agree = said[name] == diffs[name] == last.get(name, 0)
            require(agree, "counters add up", name, said, diffs, last)


_BAD_ENDS = {
    Cause.ERROR: (JobState.FAILED, Exception),
    Cause.CRASH: (JobState.QUARANTINED, WorkerCrashError),
    Cause.TIMEOUT: (JobState.FAILED, JobTimeoutError),
    Cause.MEMORY: (JobState.FAILED, JobMemoryError),
    Cause.UNSERIALISABLE: (JobState.FAILED, Exception),
    Cause.PREEMPTED: (JobState.CANCELLED, JobCancelledError),
}
"""State and error of a job that is given up, by the cause of its last attempt."""


def _done(worker_id: WorkerId, outcomes: list[tuple[int, Any, int]]) -> ev.AttemptsDone:
    return ev.AttemptsDone(
        worker_id=worker_id,
        ordinals=[Ordinal(ordinal) for ordinal, _, _ in outcomes],
        values=[value for _, value, _ in outcomes],
        nanoseconds=[nanoseconds for _, _, nanoseconds in outcomes],
    )


def _failed(
    worker_id: WorkerId, ordinal: int, failure: Failure, nanoseconds: int
) -> ev.AttemptFailed:
    errors = {Cause.TIMEOUT: JobTimeoutError(1.0), Cause.PREEMPTED: JobCancelledError("asked to")}
    return ev.AttemptFailed(
        worker_id=worker_id,
        ordinal=Ordinal(ordinal),
        cause=failure.cause,
        error=errors.get(failure.cause, FaultyJobError(f"ordinal {ordinal}")),
        place="jobs.py:1 in job",
        nanoseconds=nanoseconds,
    )
