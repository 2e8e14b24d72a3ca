"""The conductor's mind: `ConductorState.handle(event, now)` returns the `Step` to take.

Rules of this file:

- One handler per event, found in `_HANDLERS`; it first checks that the event is legal, then
  changes state. Nothing else changes state.
- After each handler `_settle` looks at the whole and does what follows: queue what is due, hand
  out, recall, start workers, read more jobs, end the run. No handler repeats any of it.
- Decisions depend on the tables (ledger, fleet), never on a counter of completions.

The run goes through `Phase`s in one direction only::

    NEW ──► RUNNING ──► ENDING ──► OVER
               │                     ▲
               └──────► ABORTING ────┘
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.fleet import Fleet, Worker, WorkerState
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor._core.prefetch import MAX_BATCH
from okanjo_conductor._core.retry import delay, final_state
from okanjo_conductor._core.stats import StatsBook
from okanjo_conductor._types import Attempt, Cause, JobState, Ordinal, Retry, WorkerExit
from okanjo_conductor.errors import (
    IllegalEventError,
    JobCancelledError,
    WorkerCrashError,
    WorkerStartError,
    describe_exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._core.jobs import Job

LEAVE_GRACE = 30.0
"""Seconds that a worker may take for its teardown when the run is over."""
_BATCHES_HELD = 2
"""Per worker: one at work, one waiting while word of the first travels."""


class Phase(IntEnum):
    """Where the run stands."""

    NEW = auto()
    RUNNING = auto()
    ENDING = auto()
    """Every job is finished; workers are leaving."""
    ABORTING = auto()
    OVER = auto()


class Intake(IntEnum):
    """Where the source of jobs stands."""

    OPEN = auto()
    ASKED = auto()
    """A `ReadJobs` is not answered yet."""
    DRY = auto()
    """It had nothing more, and the core has not asked again since."""
    CLOSED = auto()
    """It broke, or the run is being aborted."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from an event: facts to deliver, then commands to carry out, in order."""

    records: list[rec.Record] = field(default_factory=list)
    commands: list[do.Command] = field(default_factory=list)


class ConductorState:
    """Everything a conductor knows about its run.

    Args:
        slots: how many workers at most.
        retry: budgets of further attempts.
        grace: seconds between asking a worker to stop in an abort, SIGTERM and SIGKILL.
        largest_batch: how many jobs to hand out together at most.
    """

    def __init__(
        self, *, slots: int, retry: Retry, grace: float, largest_batch: int = MAX_BATCH
    ) -> None:
        self._retry: Final = retry
        self._grace: Final = grace
        self._ledger = Ledger()
        self._fleet = Fleet(slots, largest_batch)
        self._stats = StatsBook()
        self._phase = Phase.NEW
        self._intake = Intake.OPEN
        self._is_delivery_paused = False
        self._error: Exception | None = None
        self._step = Step()
        """The step under construction; replaced with each event."""

    def __repr__(self) -> str:
        return f"<{self._phase.name}, intake {self._intake.name}, {self._ledger}, {self._fleet}>"

    def handle(self, event: ev.Event, now: float) -> Step:
        """Take an event into account.

        Raises:
            IllegalEventError: it cannot have happened. Nothing was changed.
        """
        self._step = step = Step()
        if self._phase is Phase.OVER:
            message = f"the run is over: {event}"
            raise IllegalEventError(message)
        _HANDLERS[type(event)](self, event, now)
        self._settle(now)
        return step

    @property
    def is_busy(self) -> bool:
        """Whether any worker holds a job."""
        return self._ledger.has_held

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due if nothing else happens before, or None."""
        times = [w.deadline for w in self._fleet if w.deadline is not None]
        if self._phase is Phase.RUNNING:
            if (due := self._ledger.next_due) is not None:
                times.append(due)
            empty = [s.not_before for s in self._fleet.slots if s.worker is None]
            if empty and self._wants_workers():
                times += empty
        return min(times, default=None)

    # Handlers, in the order of events.py

    def _on_run_started(self, _event: ev.RunStarted, _now: float) -> None:
        if self._phase is not Phase.NEW:
            message = f"the run has started already: {self}"
            raise IllegalEventError(message)
        self._phase = Phase.RUNNING

    def _on_jobs_accepted(self, event: ev.JobsAccepted, _now: float) -> None:
        if event.is_answer:
            self._answer_intake(Intake.OPEN)
        self._ledger.accept(event.jobs)

    def _on_job_refused(self, event: ev.JobRefused, _now: float) -> None:
        self._fail(event.job, JobState.FAILED, Cause.UNSERIALISABLE, event.error)

    def _on_intake_ended(self, event: ev.IntakeEnded, _now: float) -> None:
        self._answer_intake(Intake.CLOSED if event.is_final else Intake.DRY)

    def _on_intake_reopened(self, _event: ev.IntakeReopened, _now: float) -> None:
        if self._intake is Intake.DRY:
            self._intake = Intake.OPEN

    def _on_delivery_paused(self, _event: ev.DeliveryPaused, _now: float) -> None:
        self._is_delivery_paused = True

    def _on_delivery_resumed(self, _event: ev.DeliveryResumed, _now: float) -> None:
        self._is_delivery_paused = False

    def _on_worker_ready(self, event: ev.WorkerReady, _now: float) -> None:
        self._fleet.make_ready(self._fleet.get(event.worker_id))

    def _on_attempts_done(self, event: ev.AttemptsDone, _now: float) -> None:
        worker = self._fleet.get(event.worker_id)
        self._ledger.require_held(worker.id, event.ordinals)
        jobs = self._ledger.release(worker.id, event.ordinals)
        worker.sizer.observe(len(jobs), sum(event.nanoseconds))
        worker.slot.note_work()
        self._step.records.append(
            rec.JobsDone(
                worker_id=worker.id,
                slot=worker.slot.number,
                jobs=jobs,
                values=event.values,
                nanoseconds=event.nanoseconds,
                histories=self._ledger.close_all(jobs),
            )
        )

    def _on_attempt_failed(self, event: ev.AttemptFailed, now: float) -> None:
        worker = self._fleet.get(event.worker_id)
        self._ledger.require_held(worker.id, [event.ordinal])
        (job,) = self._ledger.release(worker.id, [event.ordinal])
        worker.sizer.observe(1, event.nanoseconds)
        worker.slot.note_work()
        self._charge(
            job,
            worker,
            event.cause,
            event.error,
            now=now,
            seconds=event.nanoseconds / 1e9,
            place=event.place,
        )

    def _on_jobs_declined(self, event: ev.JobsDeclined, _now: float) -> None:
        self._fleet.get(event.worker_id)
        self._ledger.take_back(event.worker_id, event.first, event.last)

    def _on_jobs_recalled(self, event: ev.JobsRecalled, _now: float) -> None:
        worker = self._fleet.get(event.worker_id)
        if not worker.is_recalled:
            message = f"nobody recalled jobs from worker {worker.id}"
            raise IllegalEventError(message)
        worker.note_recall()
        self._ledger.take_back(worker.id, event.beyond + 1)

    def _on_worker_exited(self, event: ev.WorkerExited, now: float) -> None:
        worker = self._fleet.get(event.worker_id)
        executing = self._job_executing(worker, event.claimed)
        self._ledger.dismiss(worker.id)
        self._fleet.bury(worker)
        is_ours = worker.was_terminated or self._phase is Phase.ABORTING
        cause = Cause.PREEMPTED if is_ours else Cause.CRASH
        was_asked = worker.state is WorkerState.STOPPING
        has_left = was_asked and event.code == 0 and not worker.was_terminated
        self._announce(worker, event, None if has_left and not executing else cause, executing)
        if executing is not None:
            error = _death(worker, event, cause)
            self._charge(executing, worker, cause, error, now=now)
            worker.slot.note_work()
        elif not was_asked:
            self._note_idle_death(worker, event, now)

    def _on_stats_reported(self, event: ev.StatsReported, _now: float) -> None:
        worker = self._fleet.get(event.worker_id)
        if self._stats.has_reported(worker.id):
            self._close_stats_cycle()
        self._stats.note(worker.id, event.totals, event.time_span)
        if self._stats.is_cycle_complete(w.id for w in self._fleet if w.was_ready):
            self._close_stats_cycle()

    def _on_abort_requested(self, _event: ev.AbortRequested, now: float) -> None:
        if self._phase is not Phase.ABORTING:
            self._abort(now)

    def _on_time_passed(self, _event: ev.TimePassed, now: float) -> None:
        for worker in self._fleet:
            if worker.deadline is not None and worker.deadline <= now:
                self._escalate(worker, now)

    # What follows from the whole

    def _settle(self, now: float) -> None:
        if self._phase is Phase.RUNNING:
            self._ledger.queue_due(now)
            self._hand_out()
            self._recall()
            self._start_workers(now)
            self._read_jobs()
            if self._ledger.is_empty and self._intake in (Intake.DRY, Intake.CLOSED):
                self._end(now)
        if self._phase in (Phase.ENDING, Phase.ABORTING) and not len(self._fleet):
            self._finish()

    def _hand_out(self) -> None:
        ledger = self._ledger
        ready = [w for w in self._fleet.ready() if not w.is_recalled]
        if not (ready and ledger.queued):
            return
        for _ in range(_BATCHES_HELD):
            for worker in sorted(ready, key=lambda w: ledger.held_by(w.id)):
                share = -(-ledger.queued // len(ready))
                count = min(worker.sizer.batch, share)
                if count and ledger.held_by(worker.id) <= worker.sizer.batch:
                    self._hand_to(worker, count)

    def _hand_to(self, worker: Worker, count: int) -> None:
        first = worker.take_ordinals(count)
        jobs = self._ledger.hand_out(worker.id, first, count)
        attempts = self._ledger.later_attempts(jobs)
        self._step.commands.append(
            do.HandOut(worker_id=worker.id, first=first, jobs=jobs, attempts=attempts)
        )

    def _recall(self) -> None:
        """Let an idle worker have what another one holds and has not started."""
        held_by, ready = self._ledger.held_by, self._fleet.ready()
        is_anybody_idle = any(held_by(w.id) == 0 and not w.is_recalled for w in ready)
        if self._ledger.queued or not is_anybody_idle:
            return
        givers = [w for w in ready if self._can_give(w)]
        if givers:
            richest = max(givers, key=lambda w: held_by(w.id))
            if not richest.is_recalled:
                self._recall_from(richest)

    def _can_give(self, worker: Worker) -> bool:
        """Whether a worker holds jobs behind another one that no recall has decided on."""
        ledger = self._ledger
        return ledger.held_by(worker.id) > 1 and ledger.last_held(worker.id) > worker.kept

    def _recall_from(self, worker: Worker) -> None:
        worker.is_recalled = True
        last = Ordinal(worker.next_ordinal - 1)
        self._step.commands.append(do.RecallJobs(worker_id=worker.id, last=last))

    def _start_workers(self, now: float) -> None:
        for slot in self._fleet.slots:
            if slot.worker is None and slot.not_before <= now and self._wants_workers():
                worker = self._fleet.fill(slot)
                self._ledger.enrol(worker.id)
                self._step.commands.append(do.StartWorker(worker_id=worker.id, slot=slot.number))

    def _wants_workers(self) -> bool:
        """Whether a job waits, here or behind another one, for which nobody is on the way."""
        waiting = self._ledger.queued - self._fleet.starting()
        for worker in self._fleet.ready():
            held = self._ledger.held_by(worker.id)
            if not held:
                waiting -= 1
            elif self._can_give(worker):
                waiting += held - 1
        return waiting > 0

    def _read_jobs(self) -> None:
        """Keep as many jobs waiting here as the workers take at once, at least two a slot."""
        if self._intake is Intake.DRY and self._ledger.is_empty and self._step.records:
            self._intake = Intake.OPEN  # the last outcomes may make their receiver add jobs
        if self._intake is not Intake.OPEN or self._is_delivery_paused:
            return
        batches = sum(w.sizer.batch for w in self._fleet.ready())
        missing = max(2 * len(self._fleet.slots), batches) - self._ledger.queued
        if missing > 0:
            self._intake = Intake.ASKED
            self._step.commands.append(do.ReadJobs(count=missing))

    # Bad ends

    def _charge(
        self,
        job: Job,
        worker: Worker,
        cause: Cause,
        error: Exception,
        *,
        now: float,
        seconds: float | None = None,
        place: str = "",
    ) -> None:
        number = self._ledger.attempts_of(job) + 1
        attempt = Attempt(number, cause, error, worker.id, seconds)
        history = self._ledger.note(job, attempt)
        if cause is Cause.PREEMPTED:
            state: JobState | None = JobState.CANCELLED
        else:
            state = final_state(self._retry, history)
        if state is not None:
            self._fail(job, state, cause, error, history=history, worker=worker, place=place)
            return
        self._step.records.append(rec.JobRetried(job=job, attempt=attempt))
        if wait := delay(self._retry, history):
            self._ledger.delay(job, now + wait)
        else:
            self._ledger.requeue(job)

    def _fail(
        self,
        job: Job,
        state: JobState,
        cause: Cause,
        error: Exception,
        *,
        history: tuple[Attempt, ...] = (),
        worker: Worker | None = None,
        place: str = "",
    ) -> None:
        self._ledger.close(job)
        self._step.records.append(
            rec.JobFailed(
                worker_id=worker.id if worker else None,
                slot=worker.slot.number if worker else None,
                job=job,
                state=state,
                cause=cause,
                error=error,
                place=place,
                history=history,
            )
        )

    def _job_executing(self, worker: Worker, claimed: Ordinal | None) -> Job | None:
        """Take the job that a dead worker was executing out of the ledger, if there is one."""
        if claimed is None or self._ledger.first_held(worker.id) != claimed:
            return None
        return self._ledger.release(worker.id, [claimed])[0]

    def _note_idle_death(self, worker: Worker, event: ev.WorkerExited, now: float) -> None:
        slot = worker.slot
        slot.note_death(was_ready=worker.was_ready, now=now)
        if slot.is_failing:
            detail = event.detail or f"the worker {describe_exit(event.code, event.signal)}"
            deaths = slot.failed_starts or slot.idle_deaths
            self._error = WorkerStartError(slot.number, deaths, detail)
            self._abort(now)

    # Ends

    def _end(self, now: float) -> None:
        self._phase = Phase.ENDING
        for worker in self._fleet:
            self._stop(worker, now + LEAVE_GRACE)

    def _abort(self, now: float) -> None:
        self._phase = Phase.ABORTING
        self._intake = Intake.CLOSED
        for worker in self._fleet:
            if worker.was_ready and not worker.is_recalled:
                self._recall_from(worker)
            if worker.state is WorkerState.STOPPING:
                worker.deadline = now + self._grace
            else:
                self._stop(worker, now + self._grace)

    def _finish(self) -> None:
        self._phase = Phase.OVER
        if self._stats.is_cycle_open:
            self._close_stats_cycle()
        if jobs := self._ledger.withdraw():
            self._step.commands.append(do.ReturnJobs(jobs=jobs))
        self._step.commands.append(do.EndRun(error=self._error))

    def _stop(self, worker: Worker, deadline: float) -> None:
        self._fleet.stop(worker, deadline)
        self._step.commands.append(do.StopWorker(worker_id=worker.id))

    def _escalate(self, worker: Worker, now: float) -> None:
        if worker.was_terminated:
            worker.deadline = None
            self._step.commands.append(do.KillWorker(worker_id=worker.id))
        else:
            worker.was_terminated = True
            worker.deadline = now + self._grace
            self._step.commands.append(do.TerminateWorker(worker_id=worker.id))

    # Small things

    def _answer_intake(self, answer: Intake) -> None:
        if self._intake is Intake.ASKED:
            self._intake = answer
        elif self._phase is not Phase.ABORTING:  # an abort closes the intake under a question
            message = f"nobody asked for jobs: {self}"
            raise IllegalEventError(message)

    def _close_stats_cycle(self) -> None:
        self._step.commands.append(do.EmitStats(report=self._stats.close_cycle()))

    def _announce(
        self, worker: Worker, event: ev.WorkerExited, cause: Cause | None, executing: Job | None
    ) -> None:
        end = WorkerExit(
            type="worker_exit",
            worker_id=worker.id,
            slot=worker.slot.number,
            code=event.code,
            signal=event.signal,
            cause=cause,
            key=executing.key if executing else None,
            detail=event.detail,
        )
        self._step.commands.append(do.AnnounceExit(end=end))


def _death(worker: Worker, event: ev.WorkerExited, cause: Cause) -> Exception:
    if cause is Cause.PREEMPTED:
        return JobCancelledError("the run was aborted while this job was executing")
    return WorkerCrashError(worker.id, event.code, event.signal, event.detail)


_HANDLERS: dict[type[Any], Callable[[ConductorState, Any, float], None]] = {
    ev.RunStarted: ConductorState._on_run_started,
    ev.JobsAccepted: ConductorState._on_jobs_accepted,
    ev.JobRefused: ConductorState._on_job_refused,
    ev.IntakeEnded: ConductorState._on_intake_ended,
    ev.IntakeReopened: ConductorState._on_intake_reopened,
    ev.DeliveryPaused: ConductorState._on_delivery_paused,
    ev.DeliveryResumed: ConductorState._on_delivery_resumed,
    ev.WorkerReady: ConductorState._on_worker_ready,
    ev.AttemptsDone: ConductorState._on_attempts_done,
    ev.AttemptFailed: ConductorState._on_attempt_failed,
    ev.JobsDeclined: ConductorState._on_jobs_declined,
    ev.JobsRecalled: ConductorState._on_jobs_recalled,
    ev.WorkerExited: ConductorState._on_worker_exited,
    ev.StatsReported: ConductorState._on_stats_reported,
    ev.AbortRequested: ConductorState._on_abort_requested,
    ev.TimePassed: ConductorState._on_time_passed,
}
