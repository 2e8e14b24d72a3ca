"""Whatever happens in whatever order: the promises of the core as invariants.

Hypothesis plays shell, workers, source and clock; `World` of the test kit keeps the books.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from okanjo_conductor._core import events as ev
from okanjo_conductor._core.jobs import Jobs
from okanjo_conductor._core.state import Phase
from okanjo_conductor._types import Cause, Retry
from okanjo_conductor.testing._world import FaultyJobError, World

DATA = st.data()
PACES = st.sampled_from([1_000, 500_000, 4_000_000, 60_000_000])
"""Nanoseconds: jobs that travel in large, middle-sized and the smallest batches."""


def fixed_backoff(bad_ends: int) -> float:
    return 0.5 * bad_ends


class Happenings(RuleBasedStateMachine):
    """Everything that may happen to a run, in any order."""

    @initialize(
        slots=st.integers(1, 3),
        errors=st.integers(0, 2),
        crashes=st.integers(0, 2),
        backoff=st.sampled_from([None, fixed_backoff]),
        jobs=st.integers(0, 30),
        late_jobs=st.integers(0, 3),
        at_once=st.booleans(),
    )
    def begin(self, *, slots, errors, crashes, backoff, jobs, late_jobs, at_once):
        retry = Retry(errors=errors, crashes=crashes, backoff=backoff)
        self.world = World(slots=slots, retry=retry)
        self.world.late_jobs = late_jobs
        self.world.answers_recalls_at_once = at_once
        self.was_aborted = self.was_broken = False
        self.world.start(jobs)

    def pick(self, data, condition=lambda _: True):
        """Draw one of the workers for which this holds, or None."""
        workers = [w for w in self.world.workers.values() if condition(w)]
        return data.draw(st.sampled_from(workers)) if workers else None

    # Workers

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA)
    def a_worker_becomes_ready(self, data):
        if worker := self.pick(data, lambda w: not w.is_ready):
            self.world.ready(worker)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, races=st.booleans())
    def a_worker_claims_a_job(self, data, races):
        if worker := self.pick(data, lambda w: w.todo and w.executing is None):
            worker.claim(races=races and worker.is_racing)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, pace=PACES, is_heard=st.booleans())
    def a_worker_finishes_a_job(self, data, pace, is_heard):
        if worker := self.pick(data, lambda w: w.executing is not None):
            worker.finish(pace)
            if is_heard:
                self.world.hear(worker)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, pace=PACES, jobs=st.integers(1, 20))
    def a_worker_goes_through_jobs(self, data, pace, jobs):
        if worker := self.pick(data, lambda w: w.todo and w.executing is None):
            for _ in range(min(jobs, len(worker.todo))):
                worker.claim()
                if worker.executing is not None:
                    worker.finish(pace)
            self.world.hear(worker)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, cause=st.sampled_from([Cause.ERROR, Cause.UNSERIALISABLE]))
    def a_job_fails(self, data, cause):
        if worker := self.pick(data, lambda w: w.executing is not None):
            worker.fail(cause)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, frames=st.integers(1, 3))
    def a_worker_is_heard(self, data, frames):
        if worker := self.pick(data, lambda w: w.has_something_to_say):
            self.world.hear(worker, frames)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA)
    def a_recall_is_answered(self, data):
        if worker := self.pick(data, lambda w: w.is_recalled):
            self.world.answer_recall(worker)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, code=st.sampled_from([None, 0, 1]))
    def a_worker_dies(self, data, code):
        worker = self.pick(data)
        self.world.exit(worker, code=code, signal="SIGKILL" if code is None else None)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA)
    def a_worker_leaves_as_it_was_asked_to(self, data):
        if worker := self.pick(data, lambda w: w.is_stopping and w.executing is None):
            self.world.leave(worker)

    @precondition(lambda self: self.world.workers)
    @rule(data=DATA, count=st.integers(0, 5))
    def a_worker_reports_its_counters(self, data, count):
        worker = self.pick(data)
        totals = {"a": worker.totals.get("a", 0) + count, f"of {worker.slot}": count}
        self.world.report_stats(worker, **totals)

    # The source and the receiver

    @precondition(lambda self: self.world.asked is not None and not self.world.is_over)
    @rule(limit=st.integers(1, 30), refused=st.integers(0, 1))
    def the_source_is_read(self, limit, refused):
        self.world.answer_intake(limit, refused)

    @precondition(lambda self: not self.world.is_over and not self.world.is_source_broken)
    @rule(jobs=st.integers(1, 10))
    def the_source_is_filled(self, jobs):
        self.world.fill_source(jobs)

    @precondition(lambda self: self.world.asked is not None and not self.world.is_over)
    @rule(dice=st.integers(0, 9))
    def the_source_breaks(self, dice):
        if dice == 0:
            self.was_broken = True
            self.world.break_source()

    @precondition(lambda self: not self.world.is_over)
    @rule(jobs=st.integers(1, 3))
    def jobs_are_added_by_hand(self, jobs):
        made = [self.world.make_job() for _ in range(jobs)]
        self.world.send(ev.JobsAccepted(jobs=Jobs.of(made), is_answer=False))

    @precondition(lambda self: not self.world.is_over)
    @rule()
    def the_receiver_falls_behind_or_catches_up(self):
        if self.world.is_paused:
            self.world.resume()
        else:
            self.world.pause()

    # The caller and the clock

    @precondition(lambda self: not self.world.is_over)
    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 40.0]))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @precondition(lambda self: not self.world.is_over)
    @rule(dice=st.integers(0, 9))
    def the_run_is_aborted(self, dice):
        if dice == 0:
            self.was_aborted = True
            self.world.abort()

    @rule(data=DATA)
    def the_impossible_is_refused(self, data):
        self.world.refuse(data.draw(st.sampled_from(self.impossible())))

    def impossible(self):
        """Events that cannot have happened, as things stand."""
        world, nobody = self.world, 10_000
        found = [
            ev.RunStarted(),
            ev.WorkerReady(worker_id=nobody),
            ev.JobsDeclined(worker_id=nobody, first=1, last=2),
            ev.JobsRecalled(worker_id=nobody, beyond=0),
            ev.StatsReported(worker_id=nobody, totals={"a": 1}, time_span=1.0),
            ev.WorkerExited(worker_id=nobody, code=1, signal=None, claimed=None),
        ]
        if world.asked is None and world.phase is not Phase.ABORTING:
            found += [ev.IntakeEnded(), ev.JobsAccepted(jobs=Jobs.of([]))]
        if world.is_over:
            found += [ev.TimePassed(), ev.AbortRequested(), ev.JobsAccepted(jobs=Jobs.of([]))]
        for worker in world.workers.values():
            held = world.state._ledger.held(worker.id)
            found += [
                done(worker.id, [worker.last_sent + 1]),
                done(worker.id, [*held, worker.last_sent + 1]),
                done(worker.id, [*held, *held]),
                ev.AttemptFailed(
                    worker_id=worker.id,
                    ordinal=worker.last_sent + 1,
                    cause=Cause.ERROR,
                    error=FaultyJobError(),
                    place="",
                    nanoseconds=1,
                ),
            ]
            if worker.is_ready:
                found.append(ev.WorkerReady(worker_id=worker.id))
            if not worker.is_recalled:
                found.append(ev.JobsRecalled(worker_id=worker.id, beyond=0))
        return found

    # The promises

    @invariant()
    def the_books_agree(self):
        self.world.check()

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.world.drive_to_the_end()
        self.world.check_end()
        failed_to_start = self.world.ends[0].error is not None
        if not (self.was_aborted or failed_to_start or self.was_broken):
            assert {job.id for job in self.world.returned} <= self.world.in_vain
            left = len(self.world.source)
            assert left == self.world.filled_in_vain, "jobs were left in the source"


def done(worker_id, ordinals):
    columns = len(ordinals)
    return ev.AttemptsDone(
        worker_id=worker_id, ordinals=ordinals, values=[0] * columns, nanoseconds=[1] * columns
    )


TestHappenings = Happenings.TestCase
TestHappenings.settings = settings(stateful_step_count=50)
