"""The conductor's mind: `ConductorState.handle(event, now)` returns the `Step` to take.

Rules of this file:

- One handler per event, found in `_HANDLERS`; it first checks that the event is legal, then
  changes state. Nothing else changes state.
- After each handler `_settle` looks at the whole and does what follows: let the dealer hand out,
  recall and start workers, read more jobs, end the run. No handler repeats any of it.
- Decisions depend on the tables (ledger, fleet, board), never on a counter of completions.

The run goes through `Phase`s in one direction only::

    NEW ──► RUNNING ──► ENDING ────────────────────► OVER
               │           │                          ▲
               ├───────────┼──► DRAINING ─────────────┤
               │           │       │                  │
               └───────────┴───────┴──► ABORTING ─────┘
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.board import Board
from okanjo_conductor._core.dealing import Dealer
from okanjo_conductor._core.endings import Doom, Plea, Watch, error_of, force, steps_for
from okanjo_conductor._core.fleet import Fleet, Worker, WorkerState
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor._core.policy import FailureBudget, Policy
from okanjo_conductor._core.prefetch import MAX_BATCH
from okanjo_conductor._core.retry import delay, final_state
from okanjo_conductor._core.stats import StatsBook
from okanjo_conductor._core.survey import Sight, survey
from okanjo_conductor._plain import Frozen, fresh
from okanjo_conductor._types import Attempt, Cause, JobState, Ordinal, WorkerExit
from okanjo_conductor.errors import (
    IllegalEventError,
    JobCancelledError,
    WorkerStartError,
    describe_exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._types import JobId, Key, Slot, WorkerId

LEAVE_GRACE = 30.0
"""Seconds that a worker may take for its teardown when the run is over."""


class Phase(IntEnum):
    """Where the run stands."""

    NEW = auto()
    RUNNING = auto()
    ENDING = auto()
    """Every job is finished; workers are leaving."""
    DRAINING = auto()
    """Jobs in execution are finished, the others given back."""
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
    """It broke, or the run is being stopped."""


class Step(Frozen):
    """What follows from an event: facts to deliver, then commands to carry out, in order."""

    records: list[rec.Record] = fresh(factory=list)
    commands: list[do.Command] = fresh(factory=list)


class ConductorState:
    """Everything a conductor knows about its run.

    Args:
        slots: how many workers at most.
        policy: what the user has laid down.
        largest_batch: how many jobs to hand out together at most.
    """

    def __init__(self, *, slots: int, policy: Policy, largest_batch: int = MAX_BATCH) -> None:
        self._policy: Final = policy
        self._ledger = Ledger()
        self._fleet = Fleet(slots, largest_batch)
        self._board = Board(self._ledger, policy.recycle)
        self._dealer = Dealer(self._ledger, self._fleet, self._board, policy)
        self._stats = StatsBook()
        self._phase = Phase.NEW
        self._intake = Intake.OPEN
        self._is_delivery_paused = False
        self._error: Exception | None = None
        self._failures = FailureBudget(policy.max_failures)
        self._unwanted: set[JobId] = set()
        """Jobs to be cancelled as soon as no worker holds them."""
        self._why_stopped = ""
        self._limit: float | None = None
        """Seconds that jobs without a time limit of their own may take."""
        self._is_over_budget = False
        self._leave_by: float | None = None
        """When workers that were asked to leave are sent a signal; None: when they are done."""
        self._step = Step()
        """The step under construction; replaced with each event."""
        self.accepted = 0
        """How many jobs have their outcome, or will have it: none of them is counted twice."""

    def __repr__(self) -> str:
        return f"<{self._phase.name}, intake {self._intake.name}, {self._ledger}, {self._fleet}>"

    def handle(self, event: ev.Event, now: float) -> Step:
        """Take an event into account.

        Raises:
            IllegalEventError: it cannot have happened. Nothing was changed.
        """
        self._step = step = Step(records=[], commands=[])
        self._dealer.commands = step.commands
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

    @property
    def is_dry(self) -> bool:
        """Whether the source had nothing more when it was asked last."""
        return self._intake is Intake.DRY

    def find(self, key: Key) -> JobId | None:
        """Find an unfinished job by its key."""
        return self._ledger.find(key)

    def oldest_held(self, worker_id: WorkerId) -> Ordinal | None:
        """Return the first ordinal of a worker that has not ended; None: it holds nothing."""
        return self._ledger.first_held(worker_id)

    def job_of(self, worker_id: WorkerId, ordinal: Ordinal) -> Job | None:
        """Return a job that a worker holds, or None if it holds no such job."""
        return self._ledger.peek(worker_id, ordinal)

    @property
    def phase(self) -> Phase:
        """Where the run stands."""
        return self._phase

    @property
    def empty_slots(self) -> list[Slot]:
        """The slots without a worker."""
        return [slot.number for slot in self._fleet.slots if not slot.living]

    def survey(self, claims: Mapping[int, Ordinal | None]) -> list[Sight]:
        """See what every live worker is doing, given the last ordinal that each has started."""
        return list(survey(self._fleet, self._ledger, claims))

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due if nothing else happens before, or None."""
        times = [self._board.next_due()]
        if self._phase is Phase.RUNNING:
            times.append(self._dealer.next_deadline())
        return min((time for time in times if time is not None), default=None)

    # Handlers, in the order of events.py

    def _on_run_started(self, _event: ev.RunStarted, _now: float) -> None:
        if self._phase is not Phase.NEW:
            message = f"the run has started already: {self}"
            raise IllegalEventError(message)
        self._phase = Phase.RUNNING

    def _on_jobs_accepted(self, event: ev.JobsAccepted, _now: float) -> None:
        if event.is_answer:
            self._answer_intake(Intake.OPEN)
        self.accepted += len(event.jobs)
        self._ledger.accept(event.jobs, event.histories, event.loners)

    def _on_job_refused(self, event: ev.JobRefused, _now: float) -> None:
        self.accepted += 1
        self._fail(event.job, event.state, event.cause, event.error)

    def _on_intake_ended(self, event: ev.IntakeEnded, _now: float) -> None:
        self._answer_intake(Intake.CLOSED if event.is_final else Intake.DRY)

    def _on_intake_reopened(self, _event: ev.IntakeReopened, _now: float) -> None:
        if self._intake is Intake.DRY:
            self._intake = Intake.OPEN

    def _on_delivery_paused(self, _event: ev.DeliveryPaused, _now: float) -> None:
        self._is_delivery_paused = True

    def _on_delivery_resumed(self, _event: ev.DeliveryResumed, _now: float) -> None:
        self._is_delivery_paused = False

    def _on_worker_ready(self, event: ev.WorkerReady, now: float) -> None:
        worker = self._touched(event.worker_id)
        old = self._fleet.make_ready(worker, now)
        worker.concurrency, worker.can_cancel = event.concurrency, event.can_cancel
        worker.sizer.round_trip = event.round_trip
        if self._leave_by is None:
            worker.steps.clear()  # those of a start that takes too long
        self._dealer.note_ready(worker, now)
        if old is not None and old.state is WorkerState.READY:
            self._dismiss(old)

    def _on_attempts_done(self, event: ev.AttemptsDone, _now: float) -> None:
        worker = self._touched(event.worker_id)
        self._ledger.require_held(worker.id, event.ordinals)
        jobs = self._ledger.release(worker.id, event.ordinals)
        self._note_pace(worker, len(jobs), sum(event.nanoseconds))
        self._note_executed(worker, len(jobs))
        self._failures.note(done=len(jobs))
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
        worker = self._touched(event.worker_id)
        self._ledger.require_held(worker.id, [event.ordinal])
        job = self._ledger.release(worker.id, [event.ordinal])[0]
        self._note_pace(worker, 1, event.nanoseconds)
        self._note_executed(worker, 1)
        self._ledger.clear(job)
        is_own = event.cause is Cause.PREEMPTED and job.id not in self._unwanted
        self._charge(
            job,
            worker,
            Cause.ERROR if is_own else event.cause,  # nobody cancelled it but itself
            event.error,
            now=now,
            seconds=event.nanoseconds / 1e9,
            place=event.place,
            ordinal=event.ordinal,
        )

    def _on_jobs_declined(self, event: ev.JobsDeclined, _now: float) -> None:
        worker = self._touched(event.worker_id)
        self._ledger.take_back(worker.id, event.first, event.last)
        self._note_over(worker)

    def _on_jobs_recalled(self, event: ev.JobsRecalled, now: float) -> None:
        worker = self._touched(event.worker_id)
        if not worker.is_recalled:
            message = f"nobody recalled jobs from worker {worker.id}"
            raise IllegalEventError(message)
        worker.note_recall()
        self._ledger.take_back(worker.id, event.beyond + 1)
        if self._unwanted:
            for ordinal, job in self._executing(worker, event.beyond).items():
                if job.id in self._unwanted:
                    self._end_job(worker, Doom(ordinal, Cause.PREEMPTED), now)

    def _on_worker_exited(self, event: ev.WorkerExited, now: float) -> None:
        worker = self._touched(event.worker_id)
        executing = self._executing(worker, event.claimed)
        for ordinal in executing:
            self._ledger.release(worker.id, [ordinal])
        self._ledger.dismiss(worker.id)
        self._fleet.bury(worker)
        self._board.forget(worker)
        cause, verdicts = self._judge_death(worker, event, executing)
        was_asked = worker.state is WorkerState.STOPPING
        has_left = was_asked and event.code == 0 and not worker.was_terminated
        self._announce(worker, event, None if has_left and not executing else cause, executing)
        for ordinal, job in executing.items():
            verdict = verdicts.get(ordinal, Cause.PREEMPTED)
            if worker.concurrency > 1 and verdict is not Cause.PREEMPTED:
                self._ledger.suspect(job)
            error = error_of(worker, job, event, cause if verdict is Cause.SUSPECT else verdict)
            self._charge(job, worker, verdict, error, now=now)
        if executing and cause is Cause.CRASH:
            worker.slot.note_crash(now)
        if worker.is_late or not (executing or was_asked or worker.was_terminated):
            self._note_idle_death(worker, event, now)

    def _on_jobs_seen(self, event: ev.JobsSeen, _now: float) -> None:
        worker, since = self._touched(event.worker_id), event.since
        if worker.concurrency == 1 and event.first not in worker.watches:
            worker.watches.clear()  # who executes this one has ended the others
        patience = self._policy.stuck_after
        stuck_at = None if patience is None else since + patience
        seen = self._ledger.held_between(worker.id, event.first, event.last)
        for ordinal, job in seen.items():
            if ordinal in worker.watches:
                continue
            limit = self._limit if job.timeout is None else job.timeout
            expires_at = None if limit is None else since + limit
            worker.watches[ordinal] = Watch(
                job,
                ordinal,
                since,
                limit=limit,
                expires_at=expires_at,
                stuck_at=stuck_at,
                blocks_at=since + worker.patience,
            )

    def _on_limit_set(self, event: ev.LimitSet, _now: float) -> None:
        self._limit = limit = event.seconds
        for worker in self._fleet:
            for watch in worker.watches.values():
                has_expired = watch.limit is not None and watch.expires_at is None
                if watch.job.timeout is None and not has_expired:
                    watch.limit, watch.expires_at = limit, watch.since + limit
                    self._board.touch(worker)

    def _on_memory_measured(self, event: ev.MemoryMeasured, now: float) -> None:
        worker = self._touched(event.worker_id)
        worker.rss = event.rss
        limit = self._policy.max_rss
        if limit is None or event.rss <= limit:
            return
        executing = self._executing(worker, event.claimed)
        if executing:
            is_sure = len(executing) == 1
            doom = Doom(next(iter(executing)), Cause.MEMORY, limit, event.rss, is_sure=is_sure)
            self._end_for(worker, doom, now)

    def _on_stats_reported(self, event: ev.StatsReported, _now: float) -> None:
        worker = self._touched(event.worker_id)
        if self._stats.has_reported(worker.id):
            self._close_stats_cycle()
        self._stats.note(worker.id, event.totals, event.time_span)
        if self._stats.reporters < self._fleet.ready:
            return  # mostly: so that not every report looks at every worker
        if self._stats.is_cycle_complete(w.id for w in self._fleet if w.was_ready):
            self._close_stats_cycle()

    def _on_cancel_requested(self, event: ev.CancelRequested, _now: float) -> None:
        self._unwanted.add(event.job_id)
        place = self._ledger.holder_of(event.job_id)
        if place is not None:
            worker = self._touched(place[0])
            worker.kept = 0  # what was decided on before must be looked at again
            self._dealer.recall_from(worker)

    def _on_resize_requested(self, event: ev.ResizeRequested, _now: float) -> None:
        for worker in self._fleet.resize(event.slots):
            if worker.state is not WorkerState.STOPPING:
                self._dismiss(worker)

    def _on_drain_requested(self, event: ev.DrainRequested, now: float) -> None:
        if self._phase < Phase.ENDING:
            self._drain(now, event.seconds, event.why)

    def _on_abort_requested(self, event: ev.AbortRequested, now: float) -> None:
        if self._phase is not Phase.ABORTING:
            self._abort(now, event.why)

    def _on_time_passed(self, _event: ev.TimePassed, now: float) -> None:
        for worker_id in self._board.due(now):
            worker = self._touched(worker_id)
            worker.note_blocks(now)
            if worker.is_blocked:
                self._dealer.recall_waiting(worker)
            for watch in tuple(worker.watches.values()):
                self._look_at_watch(worker, watch, now)
            self._look_at_pleas(worker, now)
            self._take_steps(worker, now)

    # What follows from the whole

    def _settle(self, now: float) -> None:
        if self._unwanted:
            self._cancel()
        if self._phase is Phase.RUNNING and self._failures.is_spent:
            self._is_over_budget = True
            self._drain(now, None, self._failures.why)
        if self._phase is Phase.RUNNING:
            self._dealer.deal(now, has_more=self._intake not in _QUIET)
            self._read_jobs()
            if self._ledger.is_empty and self._intake in _QUIET:
                self._end(now)
        self._board.refresh()
        if self._phase in _LAST_PHASES and not len(self._fleet):
            self._finish()

    def _cancel(self) -> None:
        """Finish the unwanted jobs that nobody holds; forget those that have ended otherwise."""
        for job in self._ledger.pull(self._unwanted):
            error = JobCancelledError("this job was cancelled before it was executed")
            history = self._ledger.history_of(job)
            self._fail(job, JobState.CANCELLED, Cause.PREEMPTED, error, history=history)
        held = {i for i in self._unwanted if self._ledger.holder_of(i) is not None}
        self._unwanted = held

    def _read_jobs(self) -> None:
        """Keep as many jobs waiting here as the workers take at once, at least two a slot.

        So that the source is not asked at every step, that many more are read when it is.
        """
        if self._intake is Intake.DRY and self._ledger.is_empty and self._step.records:
            self._intake = Intake.OPEN  # the last outcomes may make their receiver add jobs
        if self._intake is not Intake.OPEN or self._is_delivery_paused:
            return
        batches = self._board.room
        wanted = max(2 * len(self._fleet.slots), batches)
        if self._ledger.queued < wanted:
            self._intake = Intake.ASKED
            count = wanted + batches - self._ledger.queued
            self._step.commands.append(do.ReadJobs(count=count))

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
        ordinal: Ordinal | None = None,
    ) -> None:
        number = len(self._ledger.history_of(job)) + 1
        attempt = Attempt(number, cause, error, worker.id, seconds)
        history = self._ledger.note(job, attempt)
        state = final_state(self._policy.retry, history)
        if cause is Cause.PREEMPTED and (job.id in self._unwanted or self._ends_jobs(now)):
            state = JobState.CANCELLED
        if state is not None:
            self._fail(job, state, cause, error, history=history, worker=worker, place=place)
            return
        self._step.records.append(rec.JobRetried(job=job, attempt=attempt, ordinal=ordinal))
        if wait := delay(self._policy.retry, history):
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
        self._failures.note(failed=state is not JobState.CANCELLED)
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

    def _executing(self, worker: Worker, claimed: Ordinal | None) -> dict[Ordinal, Job]:
        """Find the jobs that a worker executes: it has claimed them, and they have not ended."""
        if claimed is None:
            return {}
        if worker.concurrency == 1:  # earlier ones have ended, unheard yet
            return self._ledger.held_between(worker.id, claimed, claimed)
        return self._ledger.held_between(worker.id, 0, claimed)

    def _judge_death(
        self, worker: Worker, event: ev.WorkerExited, executing: dict[Ordinal, Job]
    ) -> tuple[Cause, dict[Ordinal, Cause]]:
        """Say why a worker died, and what that means for the jobs it was executing.

        For those that are not named it means nothing: we have ended it for another one.
        """
        doom = worker.doom
        if doom is not None and worker.was_terminated:
            if not doom.is_sure:
                return doom.cause, dict.fromkeys(executing, Cause.SUSPECT)
            late = self._late(worker, executing) if doom.cause is Cause.TIMEOUT else []
            running = event.running
            if running is None and len(late) > 1:
                return doom.cause, dict.fromkeys(late, Cause.SUSPECT)
            # All of them are late because it does not answer, the first of them by chance.
            culprit = doom.ordinal if running is None or running not in late else running
            return (doom.cause, {culprit: doom.cause}) if culprit in executing else _PREEMPTED
        if worker.is_late:
            return Cause.TIMEOUT, {}
        if worker.was_terminated or self._phase is Phase.ABORTING:
            return _PREEMPTED
        cause = Cause.MEMORY if event.is_oom else Cause.CRASH
        return cause, dict.fromkeys(executing, Cause.SUSPECT if len(executing) > 1 else cause)

    @staticmethod
    def _late(worker: Worker, executing: dict[Ordinal, Job]) -> list[Ordinal]:
        """Find the jobs that a worker was asked to end for their time, and has not."""
        pleas = worker.pleas
        return [o for o in executing if o in pleas and pleas[o].doom.cause is Cause.TIMEOUT]

    def _note_idle_death(self, worker: Worker, event: ev.WorkerExited, now: float) -> None:
        slot = worker.slot
        slot.note_death(worker.id, was_ready=worker.was_ready, now=now)
        if slot.is_failing:
            detail = event.detail or f"the worker {describe_exit(event.code, event.signal)}"
            if worker.is_late:
                limit = self._policy.start_timeout
                detail = f"it was not set up in {limit} s (start_timeout). {event.stack or detail}"
            deaths = slot.failed_starts or slot.idle_deaths
            self._error = WorkerStartError(slot.number, deaths, detail)
            self._abort(now)

    # Ends

    @property
    def _is_stopping(self) -> bool:
        return self._phase in (Phase.DRAINING, Phase.ABORTING)

    def _ends_jobs(self, now: float) -> bool:
        """Whether what is still being executed is ended for the sake of the whole run."""
        if self._phase is Phase.DRAINING:
            return self._leave_by is not None and self._leave_by <= now
        return self._phase is Phase.ABORTING

    def _end(self, now: float) -> None:
        self._phase = Phase.ENDING
        self._stop_all(now + LEAVE_GRACE)

    def _drain(self, now: float, seconds: float | None, why: str) -> None:
        self._phase = Phase.DRAINING
        self._why_stopped = why
        self._take_everything_back()
        self._stop_all(None if seconds is None else now + seconds)

    def _abort(self, now: float, why: str = "") -> None:
        self._phase = Phase.ABORTING
        self._why_stopped = "; ".join(filter(None, (self._why_stopped, why)))
        self._take_everything_back()
        self._stop_all(now + self._policy.abort_grace)

    def _take_everything_back(self) -> None:
        self._intake = Intake.CLOSED
        for worker in self._fleet:
            self._dealer.recall_from(worker)

    def _stop_all(self, deadline: float | None) -> None:
        """Ask every worker to leave, and make it leave from then on."""
        self._leave_by = deadline
        for worker in self._fleet:
            if worker.state is not WorkerState.STOPPING:
                self._stop(worker)
            if worker.doom is None and not worker.was_terminated:
                self._make_leave(worker)

    def _make_leave(self, worker: Worker) -> None:
        if (deadline := self._leave_by) is not None:
            worker.steps = deque(force(worker.id, deadline, self._policy.abort_grace))
            self._board.touch(worker)

    def _dismiss(self, worker: Worker) -> None:
        """Let a worker finish the job at hand and leave; others go on in its place."""
        self._dealer.recall_from(worker)
        self._stop(worker)

    def _finish(self) -> None:
        self._phase = Phase.OVER
        if self._stats.is_cycle_open:
            self._close_stats_cycle()
        if jobs := self._ledger.withdraw():
            self.accepted -= len(jobs)
            self._step.commands.append(do.ReturnJobs(jobs=jobs))
        self._step.commands.append(
            do.EndRun(
                error=self._error,
                stopped=self._why_stopped,
                is_over_budget=self._is_over_budget,
            )
        )

    def _stop(self, worker: Worker) -> None:
        self._fleet.stop(worker)
        self._board.touch(worker)
        self._step.commands.append(do.StopWorker(worker_id=worker.id))

    # Ending workers by force

    def _look_at_watch(self, worker: Worker, watch: Watch, now: float) -> None:
        """See whether a job that a worker executes takes too long."""
        job = watch.job
        if watch.expires_at is not None and watch.expires_at <= now and worker.doom is None:
            watch.expires_at = None
            doom = Doom(watch.ordinal, Cause.TIMEOUT, watch.limit or 0.0)
            self._end_job(worker, doom, now)
        if watch.stuck_at is not None and watch.stuck_at <= now:
            watch.stuck_at = None
            self._step.commands.append(
                do.ReportStuck(
                    worker_id=worker.id,
                    slot=worker.slot.number,
                    key=job.key,
                    seconds=now - watch.since,
                )
            )

    def _end_job(self, worker: Worker, doom: Doom, now: float) -> None:
        """End a job: ask for it where that may help, or end its worker."""
        if not worker.can_cancel:
            self._end_for(worker, doom, now)
            return
        if worker.doom or worker.was_terminated or doom.ordinal in worker.pleas:
            return
        worker.pleas[doom.ordinal] = Plea(doom, now + self._policy.timeout_grace / 2)
        limit = doom.limit if doom.cause is Cause.TIMEOUT else None
        command = do.CancelJob(worker_id=worker.id, ordinal=doom.ordinal, limit=limit)
        self._step.commands.append(command)

    def _look_at_pleas(self, worker: Worker, now: float) -> None:
        """End a worker that did not do what it was asked for: it does not answer any more."""
        for plea in worker.pleas.values():
            if plea.due <= now:
                self._end_for(worker, plea.doom, now)
                return

    def _end_for(self, worker: Worker, doom: Doom, now: float) -> None:
        """End a worker for what its job does, and take the others from it before."""
        before, is_serial = worker.doom, worker.concurrency == 1
        if worker.was_terminated or (before is not None and not is_serial):
            return
        if before is not None and before.ordinal >= doom.ordinal:
            return  # who was meant for an earlier job has ended that: it has started this one
        self._dealer.recall_from(worker)
        worker.doom = doom
        was_asked = doom.ordinal in worker.pleas
        steps = steps_for(worker.id, doom, self._policy, now, was_asked=was_asked)
        worker.steps = deque(steps)
        self._take_steps(worker, now)

    def _take_steps(self, worker: Worker, now: float) -> None:
        """Do to a worker what is due."""
        while worker.steps and worker.steps[0][0] <= now:
            _, command = worker.steps.popleft()
            self._step.commands.append(command)
            worker.was_terminated |= isinstance(command, do.TerminateWorker | do.KillWorker)

    def _note_pace(self, worker: Worker, jobs: int, nanoseconds: int) -> None:
        worker.sizer.observe(jobs, nanoseconds // worker.concurrency, len(self._fleet))

    def _note_executed(self, worker: Worker, jobs: int) -> None:
        worker.executed += jobs
        worker.slot.note_work(worker.id)
        self._note_over(worker)

    def _note_over(self, worker: Worker) -> None:
        """Spare a worker that was to be ended for a job which it does not hold any more."""
        ledger, number = self._ledger, worker.id
        if worker.note_over(lambda ordinal: ledger.peek(number, ordinal) is not None):
            self._make_leave(worker)

    # Small things

    def _touched(self, worker_id: WorkerId) -> Worker:
        """Find a worker about which something changes, or raise `IllegalEventError`."""
        worker = self._fleet.get(worker_id)
        self._board.touch(worker)
        return worker

    def _answer_intake(self, answer: Intake) -> None:
        if self._intake is Intake.ASKED:
            self._intake = answer
        elif not self._is_stopping:  # a stop closes the intake under a question
            message = f"nobody asked for jobs: {self}"
            raise IllegalEventError(message)

    def _close_stats_cycle(self) -> None:
        self._step.commands.append(do.EmitStats(report=self._stats.close_cycle()))

    def _announce(
        self,
        worker: Worker,
        event: ev.WorkerExited,
        cause: Cause | None,
        executing: dict[Ordinal, Job],
    ) -> None:
        keys = tuple(job.key for job in executing.values())
        end = WorkerExit(
            type="worker_exit",
            worker_id=worker.id,
            slot=worker.slot.number,
            code=event.code,
            signal=event.signal,
            cause=cause,
            key=keys[0] if len(keys) == 1 else None,
            keys=keys,
            detail=event.detail,
            stderr=event.stderr,
            stack=event.stack,
        )
        self._step.commands.append(do.AnnounceExit(end=end))


_PREEMPTED: tuple[Cause, dict[Ordinal, Cause]] = Cause.PREEMPTED, {}
"""The judgement on a death that was our own doing."""
_QUIET = frozenset({Intake.DRY, Intake.CLOSED})
_LAST_PHASES = frozenset({Phase.ENDING, Phase.DRAINING, Phase.ABORTING})
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
    ev.JobsSeen: ConductorState._on_jobs_seen,
    ev.MemoryMeasured: ConductorState._on_memory_measured,
    ev.StatsReported: ConductorState._on_stats_reported,
    ev.CancelRequested: ConductorState._on_cancel_requested,
    ev.LimitSet: ConductorState._on_limit_set,
    ev.ResizeRequested: ConductorState._on_resize_requested,
    ev.DrainRequested: ConductorState._on_drain_requested,
    ev.AbortRequested: ConductorState._on_abort_requested,
    ev.TimePassed: ConductorState._on_time_passed,
}
