"""Runs by example: what the core says in situations that a reader may want to know.

Each test plays one short scene in a `World` of the test kit, which also keeps books of its own;
`scene.end` drives the run to its end and compares them.
"""

from __future__ import annotations

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.fleet import MAX_FAILED_STARTS, MAX_IDLE_DEATHS
from okanjo_conductor._core.jobs import Jobs
from okanjo_conductor._core.state import LEAVE_GRACE, Phase
from okanjo_conductor._types import Cause, JobState, Retry
from okanjo_conductor.errors import (
    IllegalEventError,
    JobCancelledError,
    WorkerCrashError,
    WorkerStartError,
)
from okanjo_conductor.testing._world import GRACE, World


class Scene(World):
    """A world that takes the shortest way to a situation."""

    def worker(self, number):
        return self.workers[number]

    def get_ready(self, *numbers):
        for number in numbers:
            self.ready(self.worker(number))

    def executing(self, number):
        """Let a worker start its next job."""
        worker = self.worker(number)
        worker.claim()
        return worker

    def end(self):
        self.check()
        self.drive_to_the_end()
        self.check_end()
        return self.ends[0]


def of(kind, commands):
    return [command for command in commands if isinstance(command, kind)]


def running(jobs, *, slots=1, retry=None):
    """A run with jobs in which every worker that was started is ready."""
    scene = Scene(slots=slots, retry=retry)
    scene.start(jobs)
    scene.get_ready(*scene.workers)
    return scene


def ids(jobs):
    return [job.id for job in jobs]


# The course of a run


def test_a_run_without_jobs_ends_as_soon_as_the_source_says_so():
    scene = Scene()
    assert scene.start() == [do.ReadJobs(count=4)]
    assert scene.answer_intake() == [do.EndRun(error=None)]
    scene.check_end()


def test_nothing_is_read_and_nobody_started_before_the_run():
    scene = Scene()
    assert scene.state.next_deadline() is None
    scene.add_by_hand(1)
    assert scene.pause() == []
    assert scene.resume() == []
    commands = scene.send(ev.RunStarted())
    assert [type(command) for command in commands] == [do.StartWorker, do.ReadJobs]
    scene.end()
    assert scene.states == {0: JobState.DONE}


def test_workers_are_started_for_waiting_jobs_only():
    scene = Scene(slots=4)
    assert len(of(do.StartWorker, scene.start(2))) == 2


def test_one_job_is_read_handed_out_done_and_delivered():
    scene = Scene(slots=1)
    scene.start(1)
    (hand_out,) = of(do.HandOut, scene.ready(scene.worker(1)))
    assert (hand_out.worker_id, hand_out.first, ids(hand_out.jobs)) == (1, 1, [0])
    assert hand_out.histories == {}
    worker = scene.executing(1)
    worker.finish(nanoseconds=7)
    scene.hear(worker)
    record = scene.finals[0]
    assert (record.worker_id, record.slot, record.nanoseconds) == (1, 0, [7])
    assert record.histories == {}
    assert scene.end().error is None


def test_workers_are_asked_to_leave_when_every_job_is_finished():
    scene = running(1)
    scene.work(scene.worker(1))
    assert scene.answer_intake() == [do.StopWorker(worker_id=1)]
    assert scene.phase is Phase.ENDING
    exit_, end = scene.leave(scene.worker(1))
    assert (exit_.end.code, exit_.end.cause, exit_.end.key) == (0, None, None)
    assert end == do.EndRun(error=None)
    scene.check_end()


def test_the_state_says_where_it_stands():
    scene = running(1)
    assert repr(scene.state) == (
        "<RUNNING, intake ASKED, <Ledger 0 queued, 0 delayed, 0 aside, 1 held>, "
        "<Fleet of 1: 1@0 READY>>"
    )


def test_a_refused_job_is_accepted_and_failed():
    scene = Scene()
    scene.start()
    scene.source.append("unpicklable")
    scene.answer_intake(refused=1)
    record = scene.finals[0]
    assert (record.state, record.cause) == (JobState.FAILED, Cause.UNSERIALISABLE)
    assert (record.worker_id, record.slot, record.history) == (None, None, ())
    scene.end()


# Reading


def test_no_job_is_read_while_the_receiver_is_behind():
    scene = Scene(slots=1)
    scene.pause()
    assert scene.start() == []
    assert scene.resume() == [do.ReadJobs(count=2)]


def test_a_run_whose_jobs_are_finished_does_not_wait_for_its_receiver():
    scene = running(0)
    scene.pause()
    scene.answer_intake()
    assert scene.is_over


def test_more_is_read_where_jobs_are_tiny():
    scene = running(20)
    worker = scene.executing(1)
    worker.finish(nanoseconds=1_000)
    scene.hear(worker)
    scene.answer_intake()
    assert scene.state._fleet.get(1).sizer.batch == 4
    assert 4 < scene.asked <= 8


def test_a_source_that_may_have_jobs_again_is_read_again():
    scene = running(1)
    scene.answer_intake()
    assert of(do.ReadJobs, scene.fill_source(1)) == [do.ReadJobs(count=3)]
    scene.end()
    assert scene.states == {0: JobState.DONE, 1: JobState.DONE}


def test_the_source_is_asked_once_more_after_the_last_outcome():
    scene = running(1)
    scene.answer_intake()
    assert scene.phase is Phase.RUNNING
    assert scene.asked is None
    scene.work(scene.worker(1))
    assert scene.asked is not None
    scene.end()


def test_jobs_that_the_receiver_of_the_last_outcome_adds_keep_the_run_going():
    scene = running(1)
    scene.late_jobs = 3
    scene.answer_intake()
    scene.end()
    assert list(scene.states.values()) == [JobState.DONE] * 4
    assert scene.returned == []


def test_jobs_that_are_added_after_the_end_began_are_given_back():
    scene = running(1)
    scene.work(scene.worker(1))
    scene.answer_intake()
    scene.add_by_hand(1)
    assert scene.send(ev.IntakeReopened()) == []
    scene.end()
    assert ids(scene.returned) == [1]


def test_a_broken_source_is_never_read_again_and_its_jobs_are_carried_out():
    scene = running(3)
    scene.break_source()
    assert of(do.ReadJobs, scene.send(ev.IntakeReopened())) == []
    scene.end()
    assert list(scene.states.values()) == [JobState.DONE] * 2


def test_where_the_source_is_broken_the_last_outcome_is_the_end():
    scene = running(1)
    scene.break_source()
    scene.late_jobs = 1
    scene.end()
    assert ids(scene.returned) == [1]


# Handing out and recalling


def test_a_worker_holds_one_long_job_and_one_that_waits():
    scene = running(10)
    assert scene.state._ledger.held_by(1) == 2


def test_jobs_are_shared_evenly_between_workers_that_wait():
    scene = running(6, slots=2)
    scene.check()
    assert [scene.state._ledger.held_by(n) for n in (1, 2)] == [2, 2]


def test_a_job_that_waits_behind_another_goes_to_an_idle_worker():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.executing(1)
    scene.answers_recalls_at_once = False
    assert scene.ready(scene.worker(2)) == [do.RecallJobs(worker_id=1, last=2)]
    (hand_out,) = of(do.HandOut, scene.answer_recall(scene.worker(1)))
    assert (hand_out.worker_id, ids(hand_out.jobs)) == (2, [1])
    scene.end()


def test_a_recall_that_gives_nothing_back_is_not_repeated():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.executing(1).finish()
    scene.executing(1)
    scene.get_ready(2)
    assert not scene.worker(1).is_recalled
    assert scene.pass_time(1.0) == []
    scene.end()


def test_nothing_is_recalled_for_a_worker_whose_own_recall_is_not_answered():
    scene = Scene(slots=2)
    scene.answers_recalls_at_once = False
    scene.start(2)
    scene.get_ready(1)
    first = scene.executing(1)
    scene.get_ready(2)
    first.finish()
    first.claim(races=True)
    first.finish()
    scene.hear(first)
    assert first.is_recalled
    scene.add_by_hand(2)
    assert of(do.RecallJobs, scene.answer_intake()) == []
    assert [scene.state._ledger.held_by(n) for n in (1, 2)] == [0, 2]
    assert of(do.RecallJobs, scene.answer_recall(first)) == [do.RecallJobs(worker_id=2, last=2)]
    scene.end()


def test_a_job_that_raced_with_its_recall_is_executed_where_it_is():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.answers_recalls_at_once = False
    scene.get_ready(2)
    scene.worker(1).claim(races=True)
    scene.answer_recall(scene.worker(1))
    assert scene.state._ledger.first_held(1) == 1
    scene.end()


def test_a_job_behind_another_one_is_reason_enough_to_fill_an_empty_slot():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.executing(1)
    (start,) = of(do.StartWorker, scene.exit(scene.worker(2)))
    assert start.slot == 1
    recall, *_ = of(do.RecallJobs, scene.ready(scene.worker(3)))
    assert recall.worker_id == 1
    scene.end()


def test_a_job_that_no_recall_can_move_is_no_reason_to_fill_a_slot():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1, 2)
    scene.executing(1)
    scene.executing(2)
    assert of(do.StartWorker, scene.exit(scene.worker(2))) != [], "its job waits"
    scene.end()


def test_a_slot_that_comes_back_has_its_worker_still():
    scene = running(2, slots=2)
    scene.executing(2)
    scene.slots = 1
    scene.send(ev.ResizeRequested(slots=1))
    scene.slots = 2
    scene.add_by_hand(2)
    assert not of(do.StartWorker, scene.send(ev.ResizeRequested(slots=2)))
    worker = scene.worker(2)
    worker.finish()
    (start,) = of(do.StartWorker, scene.leave(worker))
    assert start.slot == 1
    scene.end()


def test_a_job_that_is_declined_after_its_recall_comes_back():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.answers_recalls_at_once = False
    scene.get_ready(2)
    scene.worker(1).claim()
    scene.answer_recall(scene.worker(1))
    assert scene.places()["held by 1"] == [0]
    scene.hear(scene.worker(1))
    scene.check()
    scene.end()
    assert scene.charges == {}


# Bad ends


@pytest.mark.parametrize(
    ("errors", "state", "attempts"), [(0, JobState.FAILED, 1), (2, JobState.FAILED, 3)]
)
def test_a_job_that_keeps_raising_fails_when_its_budget_is_spent(errors, state, attempts):
    scene = running(1, retry=Retry(errors=errors))
    for number in range(1, attempts + 1):
        worker = scene.executing(1)
        worker.fail()
        for hand_out in of(do.HandOut, scene.hear(worker)):
            assert len(hand_out.histories[0]) == number
    record = scene.finals[0]
    assert (record.state, record.cause, record.place) == (state, Cause.ERROR, "jobs.py:1 in job")
    assert [attempt.number for attempt in record.history] == list(range(1, attempts + 1))
    assert [attempt.seconds for attempt in record.history] == [0.001] * attempts
    scene.end()


def test_a_job_that_succeeds_at_last_keeps_the_history_of_its_attempts():
    scene = running(1, retry=Retry(errors=1))
    worker = scene.executing(1)
    worker.fail()
    scene.hear(worker)
    scene.end()
    ((bad,),) = scene.finals[0].histories.values()
    assert (bad.number, bad.cause, bad.worker_id) == (1, Cause.ERROR, 1)


def test_a_job_that_keeps_killing_its_workers_is_quarantined():
    scene = running(1, retry=Retry(crashes=2))
    for number in (1, 2, 3):
        worker = scene.executing(number)
        commands = scene.exit(worker, signal="SIGSEGV")
        assert commands[0].end.key == "key 0"
        assert commands[0].end.cause is Cause.CRASH
        if number < 3:
            assert of(do.StartWorker, commands), "a death at work is followed by no wait"
            scene.get_ready(number + 1)
    record = scene.finals[0]
    assert (record.state, record.cause) == (JobState.QUARANTINED, Cause.CRASH)
    assert isinstance(record.error, WorkerCrashError)
    assert (record.error.worker_id, record.error.signal) == (3, "SIGSEGV")
    assert [attempt.worker_id for attempt in record.history] == [1, 2, 3]
    scene.end()


def test_jobs_that_wait_in_a_dead_worker_go_back_uncharged():
    scene = running(2, retry=Retry(crashes=0))
    scene.exit(scene.executing(1))
    assert scene.states == {0: JobState.QUARANTINED}
    assert scene.places() == {
        "queue": [1],
        "delayed": [],
        "aside": [],
        "alone": [],
        "held by 2": [],
    }
    scene.end()
    assert scene.charges == {0: [Cause.CRASH]}


def test_a_worker_that_dies_between_two_jobs_charges_nobody():
    scene = running(2)
    scene.executing(1).finish()
    scene.exit(scene.worker(1))
    assert scene.charges == {}
    assert scene.states == {0: JobState.DONE}
    scene.end()


def test_a_worker_that_dies_after_it_declined_a_job_charges_nobody():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.answers_recalls_at_once = False
    scene.get_ready(2)
    scene.worker(1).claim()
    scene.exit(scene.worker(1))
    assert scene.charges == {}
    scene.end()


def test_a_retry_waits_for_its_backoff_and_blocks_nobody():
    scene = running(2, retry=Retry(errors=1, backoff=lambda _: 3.0))
    worker = scene.executing(1)
    worker.fail()
    scene.hear(worker)
    assert scene.state.next_deadline() == 3.0
    scene.work(worker)
    assert scene.states == {1: JobState.DONE}
    assert of(do.HandOut, scene.pass_time(2.9)) == []
    assert of(do.HandOut, scene.pass_time(0.1)) != []
    scene.end()


# Workers that do no work


def test_a_slot_that_cannot_be_filled_ends_the_run_and_the_wait_between_starts_grows():
    scene = Scene(slots=1)
    scene.start(1)
    waits = []
    for number in range(1, MAX_FAILED_STARTS):
        scene.exit(scene.worker(number), code=1, signal=None, detail="ImportError: no such thing")
        waits.append((scene.state.next_deadline() or scene.now) - scene.now)
        scene.pass_time(1.0)
    scene.exit(scene.worker(3), code=1, signal=None, detail="ImportError: no such thing")
    assert waits == pytest.approx([0.0, 0.1])
    error = scene.end().error
    assert isinstance(error, WorkerStartError)
    assert (error.slot, error.starts, error.detail) == (0, 3, "ImportError: no such thing")
    assert ids(scene.returned) == [0]


def test_a_worker_that_dies_without_a_word_is_described():
    scene = Scene(slots=1)
    scene.start(1)
    for number in range(1, MAX_FAILED_STARTS + 1):
        scene.exit(scene.worker(number), code=3, signal=None)
        scene.pass_time(1.0)
    assert "the worker exited with code 3" in str(scene.ends[0].error)


def test_a_slot_that_cannot_be_filled_ends_the_run_of_the_others_too():
    scene = Scene(slots=2)
    scene.start(5)
    scene.get_ready(1)
    scene.executing(1)
    for number in (2, 3, 4):
        commands = scene.exit(scene.worker(number))
        commands += scene.pass_time(0.5)
    assert of(do.StopWorker, commands) == [do.StopWorker(worker_id=1)]
    scene.exit(scene.worker(1))
    assert scene.states == {0: JobState.CANCELLED}
    assert isinstance(scene.ends[0].error, WorkerStartError)
    scene.check_end()


def test_workers_that_keep_dying_idle_end_the_run():
    scene = Scene(slots=1)
    scene.start(1)
    for number in range(1, MAX_IDLE_DEATHS + 1):
        assert not scene.is_over
        scene.get_ready(number)
        scene.exit(scene.worker(number))
        scene.pass_time(5.0)
    error = scene.ends[0].error
    assert isinstance(error, WorkerStartError)
    assert error.starts == MAX_IDLE_DEATHS
    assert scene.charges == {}
    scene.check_end()


def test_a_worker_that_nobody_asked_to_leave_died_even_with_code_0():
    scene = running(1)
    (announced, *_) = scene.leave(scene.worker(1))
    assert announced.end.cause is Cause.CRASH
    scene.end()


# Ends


def test_a_worker_that_does_not_leave_at_the_end_is_terminated_and_killed():
    scene = running(1)
    scene.work(scene.worker(1))
    scene.answer_intake()
    assert scene.state.next_deadline() == LEAVE_GRACE
    assert scene.pass_time(LEAVE_GRACE - 0.1) == []
    assert scene.pass_time(0.1) == [do.TerminateWorker(worker_id=1)]
    assert scene.pass_time(GRACE) == [do.KillWorker(worker_id=1)]
    assert scene.state.next_deadline() is None
    (announced, _) = scene.exit(scene.worker(1))
    assert announced.end.cause is Cause.PREEMPTED
    scene.check_end()


def test_a_worker_that_crashes_at_the_end_is_announced_and_not_replaced():
    scene = running(1)
    scene.work(scene.worker(1))
    scene.answer_intake()
    (announced, end) = scene.exit(scene.worker(1), code=1, signal=None)
    assert announced.end.cause is Cause.CRASH
    assert end == do.EndRun(error=None)


def test_an_abort_stops_then_terminates_then_kills():
    scene = running(3)
    scene.executing(1)
    assert scene.abort() == [do.RecallJobs(worker_id=1, last=2), do.StopWorker(worker_id=1)]
    assert scene.pass_time(GRACE) == [do.TerminateWorker(worker_id=1)]
    assert scene.pass_time(GRACE) == [do.KillWorker(worker_id=1)]
    assert scene.abort() == [], "the second abort adds nothing"
    assert scene.pass_time(100.0) == []
    scene.exit(scene.worker(1))
    assert scene.states == {0: JobState.CANCELLED}
    assert isinstance(scene.finals[0].error, JobCancelledError)
    assert ids(scene.returned) == [1]
    scene.check_end()


def test_an_abort_lets_the_job_at_hand_finish():
    scene = running(2)
    scene.executing(1)
    scene.abort()
    scene.leave_in_an_orderly_way(scene.worker(1))
    assert scene.states == {0: JobState.DONE}
    assert ids(scene.returned) == [1]
    assert scene.exits[0].end.cause is None
    scene.check_end()


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_whose_worker_exits_under_it_in_an_abort_is_cancelled(code):
    scene = running(1, retry=Retry(crashes=5))
    scene.executing(1)
    scene.abort()
    scene.exit(scene.worker(1), code=code, signal=None)
    assert scene.exits[0].end.cause is Cause.PREEMPTED
    assert scene.exits[0].end.key == "key 0"
    assert scene.states == {0: JobState.CANCELLED}
    scene.check_end()


def test_an_abort_before_the_start_ends_at_once():
    scene = Scene()
    scene.add_by_hand(2)
    commands = scene.abort()
    assert [type(command) for command in commands] == [do.ReturnJobs, do.EndRun]
    scene.check_end()


def test_an_abort_reaches_workers_that_are_starting_and_does_not_recall_from_them():
    scene = Scene(slots=1)
    scene.start(1)
    assert scene.abort() == [do.StopWorker(worker_id=1)]
    assert scene.ready(scene.worker(1)) == []
    scene.leave(scene.worker(1))
    assert ids(scene.returned) == [0]
    scene.check_end()


def test_an_abort_does_not_recall_twice():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    scene.answers_recalls_at_once = False
    scene.get_ready(2)
    assert of(do.RecallJobs, scene.abort()) == [do.RecallJobs(worker_id=2, last=0)]
    scene.end()


def test_an_abort_at_the_end_shortens_the_wait_for_workers():
    scene = running(1)
    scene.work(scene.worker(1))
    scene.answer_intake()
    scene.abort()
    assert scene.state.next_deadline() == GRACE
    scene.end()


def test_jobs_that_were_read_when_the_abort_came_are_given_back():
    scene = Scene(slots=1)
    scene.start(2)
    scene.ready(scene.worker(1))
    scene.source.extend(["job"] * 2)
    scene.abort()
    scene.answer_intake(limit=1)
    scene.end()
    assert ids(scene.returned) == [0, 1, 2]


def test_an_aborted_run_retries_nothing():
    scene = running(1, retry=Retry(errors=1))
    worker = scene.executing(1)
    scene.abort()
    worker.fail()
    scene.hear(worker)
    scene.leave(worker)
    assert ids(scene.returned) == [0], "its budget is not spent, so it is not failed either"
    scene.check_end()


# Counters


def test_counters_are_shown_when_every_ready_worker_has_reported():
    scene = running(2, slots=2)
    assert scene.report_stats(scene.worker(1), jobs=1) == []
    (shown,) = scene.report_stats(scene.worker(2), jobs=2)
    assert shown.report.agg.last == {"jobs": 3}
    scene.end()


def test_counters_are_shown_when_a_worker_reports_for_the_second_time():
    scene = running(2, slots=2)
    scene.report_stats(scene.worker(1), jobs=1)
    (shown,) = scene.report_stats(scene.worker(1), jobs=2)
    assert shown.report.agg.last == {"jobs": 1}
    scene.end()


def test_a_worker_that_is_starting_keeps_nobody_waiting():
    scene = Scene(slots=2)
    scene.start(2)
    scene.get_ready(1)
    assert len(scene.report_stats(scene.worker(1), jobs=1)) == 1
    scene.end()


def test_the_report_of_a_worker_that_died_does_not_stand_for_another():
    scene = running(4, slots=2)
    scene.report_stats(scene.worker(1), jobs=1)
    scene.exit(scene.worker(1))
    scene.ready(scene.worker(3))
    assert scene.report_stats(scene.worker(2), jobs=2) == []
    (shown,) = scene.report_stats(scene.worker(3), jobs=3)
    assert shown.report.agg.last == {"jobs": 6}
    scene.end()


def test_what_was_reported_last_is_shown_before_the_end():
    scene = running(2, slots=2)
    scene.report_stats(scene.worker(1), jobs=1)
    scene.end()
    assert scene.reports[-1].report.agg.last == {"jobs": 1}
    kinds = [type(command) for command in scene.commands]
    assert kinds.index(do.EmitStats) < kinds.index(do.EndRun)


# What cannot have happened


def impossible_when_new():
    return Scene(), [
        ev.IntakeEnded(),
        ev.JobsAccepted(jobs=Jobs.of([])),
        ev.WorkerReady(worker_id=1),
    ]


def impossible_when_running():
    scene = running(2)
    scene.answer_intake()
    return scene, [
        ev.RunStarted(),
        ev.IntakeEnded(),
        ev.JobsAccepted(jobs=Jobs.of([])),
        ev.WorkerReady(worker_id=1),
        ev.JobsRecalled(worker_id=1, beyond=0),
        ev.JobsDeclined(worker_id=2, first=1, last=1),
        ev.AttemptsDone(worker_id=1, ordinals=[], values=[], nanoseconds=[]),
        ev.AttemptsDone(worker_id=1, ordinals=[1, 1], values=[0, 0], nanoseconds=[1, 1]),
        ev.AttemptsDone(worker_id=1, ordinals=[1, 3], values=[0, 0], nanoseconds=[1, 1]),
        ev.StatsReported(worker_id=2, totals={}, time_span=1.0),
        ev.WorkerExited(worker_id=2, code=0, signal=None, claimed=None),
    ]


def impossible_when_ending():
    scene = running(1)
    scene.work(scene.worker(1))
    scene.answer_intake()
    return scene, [ev.IntakeEnded(), ev.WorkerReady(worker_id=1), ev.RunStarted()]


def impossible_when_over():
    scene = running(1)
    scene.end()
    return scene, [ev.TimePassed(), ev.AbortRequested(), ev.IntakeReopened(), ev.RunStarted()]


@pytest.mark.parametrize(
    "situation",
    [
        impossible_when_new,
        impossible_when_running,
        impossible_when_ending,
        impossible_when_over,
    ],
)
def test_what_cannot_have_happened_is_refused_and_changes_nothing(situation):
    scene, events = situation()
    for event in events:
        assert isinstance(scene.refuse(event), IllegalEventError)
    if not scene.is_over:
        scene.end()


def test_every_event_has_a_handler_and_every_record_a_type():
    from okanjo_conductor._core.state import _HANDLERS

    assert set(_HANDLERS) == set(ev.Event.__args__)
    assert set(World._CARRY_OUT) == set(do.Command.__args__)
    assert set(rec.Record.__args__) == {rec.JobsDone, rec.JobFailed, rec.JobRetried}


def test_a_run_is_busy_while_a_worker_holds_a_job():
    scene = running(0)
    assert not scene.state.is_busy
    scene = running(1)
    assert scene.state.is_busy


def test_jobs_that_come_when_the_workers_leave_stay_in_the_source():
    scene = running(1)
    scene.executing(1).finish()
    scene.hear(scene.worker(1))
    scene.answer_intake()
    assert scene.phase is Phase.ENDING
    assert scene.fill_source(1) == []
    scene.end()
    assert len(scene.source) == 1
