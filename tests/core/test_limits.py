"""Runs by example: time and memory limits, cancelling, recycling, resizing, draining."""

from __future__ import annotations

from itertools import count

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.endings import STACK_TIME
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.policy import MIN_SAMPLE, Policy
from okanjo_conductor._core.state import LEAVE_GRACE, ConductorState
from okanjo_conductor._types import Cause, JobState, Recycle, Retry
from okanjo_conductor.errors import JobMemoryError, JobTimeoutError, WorkerStartError

GRACE = 2.0


class Run:
    """A state, and short ways to tell it things; every method returns the commands."""

    def __init__(self, jobs=1, *, slots=1, timeout=None, is_dry=True, is_ready=True, **policy):
        policy = {"timeout_grace": GRACE, "abort_grace": GRACE, **policy}
        self.state = ConductorState(slots=slots, policy=Policy(**policy))
        self.now = 0.0
        self.records = []
        self.ids = count()
        self.tell(ev.RunStarted())
        self.add(jobs, timeout=timeout, is_answer=True)
        if is_dry:
            self.dry()
        for number in range(1, slots + 1):
            if is_ready and number in self.fleet:
                self.ready(number)
        if is_dry:
            self.dry()

    @property
    def fleet(self):
        return {worker.id: worker for worker in self.state._fleet}

    def tell(self, event):
        step = self.state.handle(event, self.now)
        self.records += step.records
        return step.commands

    def add(self, jobs, *, timeout=None, is_answer=False):
        ids = [next(self.ids) for _ in range(jobs)]
        made = Jobs.of(Job(i, f"key {i}", i, i, timeout) for i in ids)
        return self.tell(ev.JobsAccepted(jobs=made, is_answer=is_answer))

    def dry(self):
        if self.state._intake.name == "ASKED":
            return self.tell(ev.IntakeEnded())
        return []

    def ready(self, worker):
        return self.tell(ev.WorkerReady(worker_id=worker))

    def wait(self, seconds):
        self.now += seconds
        return self.tell(ev.TimePassed())

    def wait_until_due(self):
        self.now = max(self.now, self.state.next_deadline())
        return self.tell(ev.TimePassed())

    def see(self, worker, ordinal=1, since=0.0, first=None):
        return self.tell(
            ev.JobsSeen(worker_id=worker, first=first or ordinal, last=ordinal, since=since)
        )

    def done(self, worker, *ordinals):
        return self.tell(
            ev.AttemptsDone(
                worker_id=worker,
                ordinals=list(ordinals),
                values=list(ordinals),
                nanoseconds=[10_000_000] * len(ordinals),
            )
        )

    def fail(self, worker, ordinal, cause=Cause.ERROR, error=None):
        return self.tell(
            ev.AttemptFailed(
                worker_id=worker,
                ordinal=ordinal,
                cause=cause,
                error=error or ValueError("no"),
                place="",
                nanoseconds=10_000_000,
            )
        )

    def recalled(self, worker, beyond):
        return self.tell(ev.JobsRecalled(worker_id=worker, beyond=beyond))

    def measure(self, worker, rss, claimed=None):
        return self.tell(ev.MemoryMeasured(worker_id=worker, rss=rss, claimed=claimed))

    def die(self, worker, claimed=None, *, code=None, signal="SIGTERM", **said):
        return self.tell(
            ev.WorkerExited(worker_id=worker, code=code, signal=signal, claimed=claimed, **said)
        )

    def leave(self, worker):
        return self.die(worker, code=0, signal=None)

    @property
    def ends(self):
        return {
            record.job.id: (record.state, record.cause)
            for record in self.records
            if isinstance(record, rec.JobFailed)
        }


def kinds(commands):
    return [type(command) for command in commands]


def of(kind, commands):
    return [command for command in commands if isinstance(command, kind)]


# Time limits


def test_at_the_limit_the_stack_is_taken_then_the_worker_is_terminated_then_killed():
    run = Run(timeout=5.0)
    run.see(1, since=1.0)
    assert run.state.next_deadline() == 6.0
    assert kinds(run.wait(6.0)) == [do.RecallJobs, do.DumpStack]
    assert run.state.next_deadline() == 6.0 + STACK_TIME
    assert kinds(run.wait_until_due()) == [do.TerminateWorker]
    assert run.state.next_deadline() == 6.0 + STACK_TIME + GRACE
    assert kinds(run.wait_until_due()) == [do.KillWorker]
    assert run.state.next_deadline() is None
    run.die(1, claimed=1, signal="SIGKILL", stack="in job()")
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}
    error = run.records[-1].error
    assert isinstance(error, JobTimeoutError)
    assert (error.limit, error.stack) == (5.0, "in job()")


def test_a_limit_that_is_set_later_counts_for_jobs_without_one_from_their_start():
    run = Run()
    run.see(1, since=1.0)
    assert run.state.next_deadline() is None
    run.tell(ev.LimitSet(seconds=5.0))
    assert run.state.next_deadline() == 6.0
    run.tell(ev.LimitSet(seconds=4.0))
    run.wait(5.0)
    run.tell(ev.LimitSet(seconds=9.0))  # too late
    assert run.state.next_deadline() == 5.0 + STACK_TIME
    run.wait_until_due()
    run.die(1, claimed=1, signal="SIGTERM")
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}
    assert run.records[-1].error.limit == 4.0


def test_a_limit_that_was_set_holds_for_later_jobs():
    run = Run()
    run.tell(ev.LimitSet(seconds=4.0))
    run.see(1, since=2.0)
    assert run.state.next_deadline() == 6.0


def test_a_limit_that_is_set_later_leaves_a_jobs_own_one_alone():
    run = Run(timeout=5.0)
    run.see(1, since=1.0)
    run.tell(ev.LimitSet(seconds=2.0))
    assert run.state.next_deadline() == 6.0


def test_a_soft_limit_interrupts_the_job_and_spares_a_worker_whose_job_ends():
    run = Run(2, timeout=5.0, soft_timeout=True)
    run.see(1)
    run.wait(5.0)
    (interruption,) = run.wait_until_due()
    assert interruption == do.InterruptJob(worker_id=1, ordinal=1, limit=5.0)
    assert run.state.next_deadline() == 5.0 + STACK_TIME + GRACE / 2
    run.recalled(1, beyond=1)
    (hand_out,) = of(do.HandOut, run.fail(1, 1, Cause.TIMEOUT, JobTimeoutError(5.0)))
    assert hand_out.worker_id == 1
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}
    assert run.state.next_deadline() is None


def test_a_job_that_ends_while_its_stack_is_taken_is_done_and_its_worker_goes_on():
    run = Run(timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.recalled(1, beyond=1)
    assert do.StopWorker in kinds(run.done(1, 1) + run.dry())
    assert run.ends == {}
    assert run.state.next_deadline() == run.now + LEAVE_GRACE


def test_a_job_that_ends_before_the_signal_arrives_is_done_and_nobody_is_blamed():
    run = Run(2, timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.recalled(1, beyond=1)
    run.wait_until_due()
    run.done(1, 1)
    assert do.StartWorker in kinds(run.die(1, claimed=1))
    assert run.ends == {}


def test_what_another_job_does_when_the_signal_arrives_is_not_charged():
    """Only where a recall cannot be waited for: the next job may have been started."""
    run = Run(2, timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.wait_until_due()
    run.done(1, 1)
    run.die(1, claimed=2)
    assert run.ends == {}
    (retried,) = of(rec.JobRetried, run.records)
    assert (retried.job.id, retried.attempt.cause) == (1, Cause.PREEMPTED)


def test_a_timeout_is_tried_again_within_its_own_budget():
    run = Run(timeout=5.0, retry=Retry(timeouts=1))
    for worker in (1, 2):
        run.see(worker, since=run.now)
        run.wait(5.0)
        run.wait_until_due()
        run.die(worker, claimed=1)
        if worker == 1:
            run.ready(2)
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}
    assert [attempt.number for attempt in run.records[-1].history] == [1, 2]


def test_jobs_without_a_limit_are_never_ended():
    run = Run()
    run.see(1)
    assert run.state.next_deadline() is None


def test_what_is_seen_too_late_or_twice_changes_nothing():
    run = Run(timeout=5.0)
    run.see(1, ordinal=9)
    assert run.state.next_deadline() is None
    run.see(1, since=1.0)
    run.see(1, since=3.0)
    assert run.state.next_deadline() == 6.0


def test_a_job_that_was_declined_after_it_was_seen_ends_nobody():
    run = Run(2, timeout=5.0)
    run.see(1, ordinal=2)
    run.tell(ev.CancelRequested(job_id=0))
    run.tell(ev.JobsDeclined(worker_id=1, first=2, last=2))
    assert run.wait(5.0) == []
    assert run.state.next_deadline() is None


def test_a_worker_that_was_to_be_ended_for_a_job_that_it_declines_is_spared():
    run = Run(2, timeout=5.0)
    run.see(1, ordinal=2)
    assert kinds(run.wait(5.0)) == [do.RecallJobs, do.DumpStack]
    run.done(1, 1)
    run.tell(ev.JobsDeclined(worker_id=1, first=2, last=2))
    assert run.state.next_deadline() is None
    (hand_out,) = run.recalled(1, beyond=2)
    assert hand_out.worker_id == 1


def test_an_outcome_ends_the_watch():
    run = Run(2, timeout=5.0)
    run.see(1)
    run.done(1, 1)
    assert run.state.next_deadline() is None


def test_a_worker_that_is_being_terminated_is_not_terminated_for_a_time_limit_too():
    run = Run(timeout=5.0)
    run.see(1)
    run.tell(ev.AbortRequested())
    run.recalled(1, beyond=1)
    assert kinds(run.wait(GRACE)) == [do.TerminateWorker]
    assert run.state.next_deadline() == 2 * GRACE
    assert kinds(run.wait(GRACE)) == [do.KillWorker]
    run.wait(10.0)
    run.die(1, claimed=1)
    assert run.ends == {0: (JobState.CANCELLED, Cause.PREEMPTED)}


def test_a_worker_at_its_limit_keeps_its_own_grace_when_the_run_is_aborted():
    run = Run(timeout=1.0)
    run.see(1)
    run.wait(1.0)
    run.tell(ev.AbortRequested())
    assert run.state.next_deadline() == 1.0 + STACK_TIME
    run.wait_until_due()
    run.die(1, claimed=1)
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}


def test_a_worker_that_is_spared_in_an_abort_must_still_leave_in_time():
    run = Run(timeout=1.0)
    run.see(1)
    run.wait(1.0)
    run.tell(ev.AbortRequested())
    run.recalled(1, beyond=1)
    run.done(1, 1)
    assert run.state.next_deadline() == 1.0 + GRACE


def test_a_job_that_takes_long_is_reported_once():
    run = Run(stuck_after=3.0)
    run.see(1)
    assert run.state.next_deadline() == 3.0
    (report,) = run.wait(3.5)
    assert report == do.ReportStuck(worker_id=1, slot=0, key="key 0", seconds=3.5)
    assert run.state.next_deadline() is None
    assert run.wait(10.0) == []


def test_what_is_due_at_the_same_time_is_done_at_the_same_time():
    run = Run(timeout=3.0, stuck_after=3.0)
    run.see(1)
    assert kinds(run.wait(3.0)) == [do.RecallJobs, do.DumpStack, do.ReportStuck]
    assert run.state.next_deadline() == 3.0 + STACK_TIME


def test_a_job_past_its_limit_is_reported_stuck_although_its_worker_is_being_terminated():
    run = Run(timeout=GRACE + 0.5, stuck_after=GRACE + 1.0)
    run.see(1)
    run.tell(ev.AbortRequested())
    assert kinds(run.wait(GRACE)) == [do.TerminateWorker]
    assert kinds(run.wait(1.0)) == [do.ReportStuck]
    assert run.state.next_deadline() == 2 * GRACE


# Memory


def test_a_worker_beyond_its_memory_is_killed_and_its_job_tried_once_more():
    run = Run(max_rss=100)
    run.measure(1, 100, claimed=1)
    commands = run.measure(1, 101, claimed=1)
    assert kinds(commands) == [do.RecallJobs, do.KillWorker]
    assert run.measure(1, 200, claimed=1) == []
    run.recalled(1, beyond=1)
    run.die(1, claimed=1, signal="SIGKILL")
    run.ready(2)
    run.measure(2, 101, claimed=1)
    run.die(2, claimed=1, signal="SIGKILL", stderr="ouch")
    assert run.ends == {0: (JobState.FAILED, Cause.MEMORY)}
    error = run.records[-1].error
    assert isinstance(error, JobMemoryError)
    assert (error.rss, error.limit, error.stderr) == (101, 100, "ouch")


@pytest.mark.parametrize("claimed", [None, 7])
def test_memory_is_nobodys_fault_between_jobs(claimed):
    run = Run(max_rss=100)
    assert run.measure(1, 101, claimed=claimed) == []


def test_what_the_kernel_ends_for_want_of_memory_is_charged_as_that():
    run = Run(retry=Retry(memory=0))
    run.die(1, claimed=1, signal="SIGKILL", is_oom=True)
    assert run.ends == {0: (JobState.FAILED, Cause.MEMORY)}
    assert "kernel" in str(run.records[-1].error)


# Cancelling


def test_a_job_that_waits_is_cancelled_at_once():
    run = Run(3)
    run.tell(ev.CancelRequested(job_id=run.state.find("key 2")))
    assert run.ends == {2: (JobState.CANCELLED, Cause.PREEMPTED)}
    assert run.records[-1].history == ()


def test_a_job_that_waits_in_a_worker_is_taken_back_and_cancelled():
    run = Run(2)
    commands = run.tell(ev.CancelRequested(job_id=1))
    assert kinds(commands) == [do.RecallJobs]
    run.recalled(1, beyond=1)
    assert run.ends == {1: (JobState.CANCELLED, Cause.PREEMPTED)}
    assert run.state.next_deadline() is None


def test_a_job_in_execution_is_cancelled_with_its_worker():
    run = Run(1)
    run.tell(ev.CancelRequested(job_id=0))
    assert kinds(run.recalled(1, beyond=1)) == [do.RecallJobs, do.TerminateWorker]
    assert run.state.next_deadline() == GRACE
    run.die(1, claimed=1)
    assert run.ends == {0: (JobState.CANCELLED, Cause.PREEMPTED)}


def test_a_job_that_ends_before_it_is_cancelled_has_the_outcome_it_has():
    run = Run(2)
    run.tell(ev.CancelRequested(job_id=0))
    run.done(1, 1)
    run.recalled(1, beyond=1)
    assert run.ends == {}
    assert run.state.next_deadline() is None


def test_nobody_is_ended_for_a_cancelled_job_that_has_ended_unheard():
    run = Run(2)
    run.tell(ev.CancelRequested(job_id=0))
    assert run.recalled(1, beyond=2) == []
    run.done(1, 1)
    assert run.ends == {}
    assert run.state.next_deadline() is None


def test_a_cancelled_job_that_crashes_is_not_executed_again():
    run = Run(1)
    run.tell(ev.CancelRequested(job_id=0))
    run.die(1, claimed=1, signal="SIGSEGV")
    assert run.ends == {0: (JobState.CANCELLED, Cause.PREEMPTED)}


def test_a_job_that_waits_for_its_backoff_is_cancelled():
    run = Run(1, retry=Retry(errors=1, backoff=lambda n: 60.0))
    run.fail(1, 1)
    job_id = run.state.find("key 0")
    run.tell(ev.CancelRequested(job_id=job_id))
    assert run.ends == {0: (JobState.CANCELLED, Cause.PREEMPTED)}
    assert [attempt.cause for attempt in run.records[-1].history] == [Cause.ERROR]


def test_a_job_that_is_finished_is_not_found():
    run = Run(2)
    assert run.state.job_of(1, 1).key == "key 0"
    run.done(1, 1)
    assert run.state.job_of(1, 1) is None
    assert run.state.find("key 0") is None
    run.tell(ev.CancelRequested(job_id=0))
    assert run.ends == {}


def test_a_job_that_is_to_be_ended_anyway_is_cancelled_too():
    run = Run(1, timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.tell(ev.CancelRequested(job_id=0))
    assert run.recalled(1, beyond=1) == []
    run.wait_until_due()
    run.die(1, claimed=1)
    assert run.ends == {0: (JobState.FAILED, Cause.TIMEOUT)}


def test_a_job_is_cancelled_although_its_worker_was_to_be_ended_for_an_earlier_one():
    run = Run(2, timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.recalled(1, beyond=2)
    run.tell(ev.CancelRequested(job_id=1))
    assert kinds(run.recalled(1, beyond=2)) == [do.RecallJobs, do.TerminateWorker]
    run.done(1, 1)
    run.die(1, claimed=2)
    assert run.ends == {1: (JobState.CANCELLED, Cause.PREEMPTED)}


# Recycling


def test_a_worker_is_replaced_when_its_successor_is_ready():
    run = Run(3, recycle=Recycle(jobs=2))
    assert run.state._ledger.held_by(1) == 2
    run.done(1, 1)
    assert run.state._ledger.held_by(1) == 1
    assert [w.slot.number for w in run.fleet.values()] == [0, 0]
    commands = run.ready(2)
    assert kinds(commands) == [do.RecallJobs, do.StopWorker, do.HandOut]
    assert commands[-1].worker_id == 2
    run.done(1, 2)
    (exit_,) = of(do.AnnounceExit, run.leave(1))
    assert exit_.end.cause is None
    assert run.ends == {}


def test_a_slot_never_has_three_workers():
    run = Run(9, is_dry=False, recycle=Recycle(jobs=1))
    assert set(run.fleet) == {1, 2}
    assert kinds(run.ready(2)) == [do.RecallJobs, do.StopWorker, do.HandOut]
    assert set(run.fleet) == {1, 2}
    assert run.state.next_deadline() is None
    run.recalled(1, beyond=1)
    run.done(1, 1)
    assert [start.worker_id for start in of(do.StartWorker, run.leave(1))] == [3]


def test_no_successor_is_started_while_no_job_waits():
    run = Run(2, recycle=Recycle(jobs=2))
    assert len(run.fleet) == 1
    run.done(1, 1, 2)
    run.dry()
    assert do.EndRun in kinds(run.leave(1))


def test_a_worker_that_is_used_up_is_replaced_for_a_job_behind_a_long_one():
    run = Run(2, slots=2, recycle=Recycle(jobs=2))
    run.recalled(1, beyond=1)
    run.add(2)
    assert [run.state._ledger.held_by(worker) for worker in (1, 2)] == [2, 2]
    (start,) = of(do.StartWorker, run.done(2, 1, 2))
    assert (start.worker_id, start.slot) == (3, 1)
    commands = run.ready(3)
    assert do.StopWorker(worker_id=2) in commands
    assert do.RecallJobs(worker_id=1, last=3) in commands
    assert kinds(run.recalled(1, beyond=1))[0] is do.HandOut


def test_a_worker_is_recycled_for_its_age_and_for_its_memory():
    run = Run(8, is_dry=False, recycle=Recycle(seconds=60.0))
    assert run.state.next_deadline() == 60.0
    assert kinds(run.wait(60.0)) == [do.StartWorker]
    run = Run(8, is_dry=False, recycle=Recycle(rss=100))
    run.measure(1, 100)
    assert kinds(run.measure(1, 101)) == [do.StartWorker]
    assert run.measure(1, 102) == []


def test_a_successor_that_cannot_start_ends_the_run_although_the_old_one_works():
    run = Run(50, is_dry=False, recycle=Recycle(seconds=60.0))
    run.wait(60.0)
    for worker in (2, 3, 4):
        run.done(1, worker - 1)
        commands = run.die(worker, code=1, signal=None, detail="no")
        if run.state.next_deadline():
            run.wait_until_due()
    assert do.StopWorker in kinds(commands)
    (end,) = of(do.EndRun, run.leave(1))
    assert isinstance(end.error, WorkerStartError)


def test_the_work_of_the_old_one_does_not_excuse_successors_that_cannot_start():
    run = Run(50, is_dry=False, recycle=Recycle(seconds=60.0))
    run.wait(60.0)
    waits = []
    for worker in (2, 3, 4):
        run.die(worker, code=1, signal=None, detail="no")
        run.done(1, worker - 1)
        if worker + 1 not in run.fleet and run.state._phase.name == "RUNNING":
            waits.append(run.state.next_deadline() - run.now)
            run.wait_until_due()
    assert waits == pytest.approx([0.1])
    (end,) = of(do.EndRun, run.leave(1))
    assert isinstance(end.error, WorkerStartError)


def test_when_the_old_one_dies_first_its_successor_takes_its_place():
    run = Run(8, is_dry=False, recycle=Recycle(seconds=60.0))
    run.wait(60.0)
    run.die(1, claimed=1, signal="SIGSEGV")
    assert do.StopWorker not in kinds(run.ready(2))
    assert run.state._fleet.slots[0].worker is run.fleet[2]


def test_a_successor_that_was_asked_to_stop_replaces_nobody():
    run = Run(8, is_dry=False, recycle=Recycle(seconds=60.0))
    run.wait(60.0)
    run.tell(ev.AbortRequested())
    assert run.ready(2) == []


# Resizing


def test_more_workers_are_started_at_once():
    run = Run(4)
    assert [c.slot for c in of(do.StartWorker, run.tell(ev.ResizeRequested(slots=3)))] == [1, 2]


def test_surplus_workers_finish_their_job_and_leave():
    run = Run(4, slots=2)
    commands = run.tell(ev.ResizeRequested(slots=1))
    assert [type(c) for c in commands if getattr(c, "worker_id", 2) == 2] == [
        do.RecallJobs,
        do.StopWorker,
    ]
    run.recalled(2, beyond=1)
    run.done(2, 1)
    (exit_,) = of(do.AnnounceExit, run.leave(2))
    assert exit_.end.cause is None
    assert do.StartWorker not in kinds(run.done(1, 1))
    assert run.ends == {}


def test_a_slot_that_is_wanted_again_is_filled_again_when_its_worker_has_left():
    run = Run(6, slots=2)
    run.tell(ev.ResizeRequested(slots=1))
    assert do.StartWorker not in kinds(run.tell(ev.ResizeRequested(slots=2)))
    run.recalled(2, beyond=1)
    run.done(2, 1)
    (start,) = of(do.StartWorker, run.leave(2))
    assert (start.worker_id, start.slot) == (3, 1)
    run.tell(ev.ResizeRequested(slots=1))
    assert run.tell(ev.ResizeRequested(slots=1)) == []


def test_workers_that_leave_anyway_are_not_asked_again():
    run = Run(2, slots=2)
    run.recalled(1, beyond=1)
    run.done(1, 1)
    run.done(2, 1)
    run.dry()
    assert run.tell(ev.ResizeRequested(slots=1)) == []


# Draining


def test_a_drain_finishes_what_is_executed_and_gives_back_the_rest():
    run = Run(4, is_dry=False)
    commands = run.tell(ev.DrainRequested(why="drain() was called"))
    assert kinds(commands) == [do.RecallJobs, do.StopWorker]
    assert run.state.next_deadline() is None
    run.recalled(1, beyond=1)
    run.done(1, 1)
    _, returned, end = run.leave(1)
    assert [job.id for job in returned.jobs] == [1, 2, 3]
    assert (end.error, end.stopped) == (None, "drain() was called")
    assert run.ends == {}


def test_after_the_deadline_of_a_drain_workers_are_ended_as_by_an_abort():
    run = Run(1)
    run.tell(ev.DrainRequested(seconds=10.0))
    assert kinds(run.wait(10.0)) == [do.TerminateWorker]
    assert kinds(run.wait(GRACE)) == [do.KillWorker]
    run.die(1, claimed=1)
    assert run.ends == {0: (JobState.CANCELLED, Cause.PREEMPTED)}


def test_an_abort_overtakes_a_drain():
    run = Run(1)
    run.tell(ev.DrainRequested(why="SIGINT received"))
    assert kinds(run.tell(ev.AbortRequested(why="SIGINT received again"))) == []
    assert run.state.next_deadline() == GRACE
    run.wait(GRACE)
    (end,) = of(do.EndRun, run.die(1, claimed=1))
    assert end.stopped == "SIGINT received; SIGINT received again"


def test_a_job_that_crashes_in_a_drain_is_charged_and_given_back():
    run = Run(1)
    run.tell(ev.DrainRequested())
    _, returned, _ = run.die(1, claimed=1, signal="SIGSEGV")
    assert [job.id for job in returned.jobs] == [0]
    assert run.ends == {}


def test_a_job_whose_worker_is_ended_in_a_drain_for_another_one_is_given_back():
    run = Run(2, timeout=5.0)
    run.see(1)
    run.wait(5.0)
    run.wait_until_due()
    run.tell(ev.DrainRequested())
    run.recalled(1, beyond=2)
    run.done(1, 1)
    (returned,) = of(do.ReturnJobs, run.die(1, claimed=2))
    assert [job.id for job in returned.jobs] == [1]
    assert run.ends == {}


def test_a_drain_of_a_run_that_ends_anyway_is_ignored():
    run = Run(1)
    run.done(1, 1)
    run.dry()
    assert run.tell(ev.DrainRequested()) == []


# Too many failures


def test_more_failures_than_allowed_stop_the_run_softly():
    run = Run(5, max_failures=1)
    assert do.StopWorker not in kinds(run.fail(1, 1))
    assert do.StopWorker in kinds(run.fail(1, 2))
    run.recalled(1, beyond=2)
    (end,) = of(do.EndRun, run.leave(1))
    assert end.is_over_budget
    assert end.stopped == "2 of 2 jobs failed; max_failures=1"


def test_a_share_of_failures_needs_a_sample():
    run = Run(100, max_failures=0.5, is_dry=False)
    for ordinal in range(1, MIN_SAMPLE):
        run.fail(1, ordinal)
        assert run.state._phase.name == "RUNNING"
    run.fail(1, MIN_SAMPLE)
    assert run.state._phase.name == "DRAINING"


def test_cancelled_jobs_are_no_failures():
    run = Run(3, max_failures=0)
    run.tell(ev.CancelRequested(job_id=2))
    assert run.state._phase.name == "RUNNING"


# Crash loops


def test_a_slot_whose_jobs_keep_killing_its_workers_waits_longer_and_longer():
    run = Run(20, is_dry=False, retry=Retry(crashes=0))
    waits = []
    for worker in range(1, 11):
        run.die(worker, claimed=1, signal="SIGSEGV")
        due = run.state.next_deadline()
        waits.append(0.0 if due is None else due - run.now)
        if due is not None:
            run.wait_until_due()
        run.ready(worker + 1)
    assert waits == pytest.approx([0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    run.done(11, 1)
    assert run.state._fleet.slots[0].crashes == 0


def test_a_held_job_is_known_by_its_ordinal():
    run = Run(1)
    assert run.state.job_of(1, 1).key == "key 0"
    assert run.state.job_of(1, 2) is None


def test_the_source_is_dry_when_it_had_nothing_more():
    assert Run(1).state.is_dry
    assert not Run(1, is_dry=False).state.is_dry


@pytest.mark.parametrize(
    ("policy", "measures"),
    [({}, False), ({"max_rss": 1}, True), ({"recycle": Recycle(rss=1)}, True)],
)
def test_memory_is_measured_where_a_limit_depends_on_it(policy, measures):
    assert Policy(**policy).measures_memory is measures


# Starts that take long


def starting(**policy):
    """A run whose only worker is not set up yet."""
    return Run(1, is_dry=False, is_ready=False, **policy)


def test_a_start_that_takes_long_is_told_and_the_worker_left_alone():
    run = starting(stuck_after=5.0)
    assert run.wait(4.9) == []
    assert run.wait_until_due() == [do.ReportStuck(worker_id=1, slot=0, key=None, seconds=5.0)]
    assert run.state.next_deadline() is None
    assert do.HandOut in map(type, run.ready(1))


def test_who_is_set_up_in_time_is_not_ended_for_its_start():
    run = starting(stuck_after=5.0, start_timeout=9.0)
    run.ready(1)
    assert run.state.next_deadline() is None


def test_a_start_beyond_its_time_is_ended_after_its_stack_was_taken():
    run = starting(stuck_after=9.0, start_timeout=3.0)
    assert run.state.next_deadline() == 3.0
    assert run.wait_until_due() == [do.DumpStack(worker_id=1)]
    assert run.wait(STACK_TIME) == [do.KillWorker(worker_id=1)]
    (told, _again) = run.die(1, claimed=None, signal="SIGKILL")
    assert told.end.cause is Cause.TIMEOUT


def test_three_starts_beyond_their_time_end_the_run_with_the_stack_of_the_last():
    run = starting(start_timeout=3.0)
    for worker in (1, 2, 3):
        while worker not in run.fleet:
            run.wait_until_due()
        run.wait_until_due()
        run.wait_until_due()
        commands = run.die(worker, claimed=None, signal="SIGKILL", stack="in setup")
    (end,) = (c for c in commands if isinstance(c, do.EndRun))
    assert isinstance(end.error, WorkerStartError)
    assert end.error.starts == 3
    assert end.error.detail == "it was not set up in 3.0 s (start_timeout). in setup"


def test_who_has_left_the_run_no_time_to_start_is_not_charged_with_it():
    run = starting(start_timeout=3.0)
    run.wait_until_due()
    run.tell(ev.DrainRequested(seconds=None, why="enough"))
    assert run.wait_until_due() == [do.KillWorker(worker_id=1)]
    run.die(1, claimed=None, signal="SIGKILL")
    assert run.state._error is None
