"""Workers that execute several jobs at a time, by example: who is blamed, who is handed what."""

from __future__ import annotations

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core.endings import STACK_TIME
from okanjo_conductor._types import Cause, JobState, Recycle, Retry
from okanjo_conductor.errors import JobMemoryError, WorkerCrashError
from okanjo_conductor.testing._world import GRACE, SimWorker, World

AT_ONCE = 3


class Scene(World):
    """A world of workers that execute three jobs at a time, and can cancel each."""

    def _make_worker(self, command):
        return SimWorker(command.worker_id, command.slot, concurrency=AT_ONCE, can_cancel=True)

    def starting(self, number):
        """Let a worker start what it may."""
        worker = self.workers[number]
        while worker.todo and worker.can_start:
            worker.claim()
        return worker

    def finishing(self, number, *ordinals):
        worker = self.workers[number]
        for ordinal in ordinals:
            worker.ending = ordinal
            worker.finish()
        return self.hear(worker)

    def held(self, number):
        return [job.id for job in self.state._ledger.held(number).values()]

    def causes(self, job_id):
        return self.charges.get(job_id, [])

    def end(self):
        self.check()
        self.drive_to_the_end()
        self.check_end()


def running(jobs, *, slots=1, retry=None, **limits):
    scene = Scene(slots=slots, retry=retry, **limits)
    scene.start(jobs)
    while scene.asked:
        scene.answer_intake()
    for worker in [*scene.workers.values()]:
        scene.ready(worker)
    while scene.asked:
        scene.answer_intake()
    return scene


def of(kind, commands):
    return [command for command in commands if isinstance(command, kind)]


# Handing out


def test_a_worker_is_handed_what_it_executes_at_a_time_and_a_batch_to_go_on_with():
    scene = running(10)
    assert scene.held(1) == [0, 1, 2, 3]
    assert scene.starting(1).busy == [1, 2, 3]


def test_outcomes_come_in_any_order():
    scene = running(5)
    scene.starting(1)
    scene.finishing(1, 3, 2)
    assert scene.held(1) == [0, 3, 4]
    assert scene.starting(1).busy == [1, 4, 5]
    scene.end()
    assert len(scene.finals) == 5


def test_what_waits_behind_others_is_for_a_worker_that_can_execute_it_at_once():
    scene = Scene(slots=2)
    scene.start(4)
    scene.ready(scene.workers[1])
    assert scene.held(1) == [0, 1, 2, 3]
    scene.starting(1)
    commands = scene.ready(scene.workers[2])
    assert [command.worker_id for command in of(do.RecallJobs, commands)] == [1]
    assert (scene.held(1), scene.held(2)) == ([0, 1, 2], [3])
    scene.end()


def test_of_those_that_can_execute_more_each_gets_its_share():
    scene = running(4, slots=2)
    assert (scene.held(1), scene.held(2)) == ([0, 1], [2, 3])
    scene.end()


def test_where_there_are_fewer_jobs_than_workers_could_take_some_go_without():
    scene = running(3, slots=3)
    scene.starting(1)
    scene.add_by_hand(4)
    scene.send(scene._events.popleft())
    assert [scene.held(number) for number in (1, 2, 3)] == [[0, 1, 2], [3, 4], [5, 6]]
    scene.finishing(1, 1, 2)
    scene.add_by_hand(2)
    scene.send(scene._events.popleft())
    assert [len(scene.held(number)) for number in (1, 2, 3)] == [2, 3, 2]
    scene.end()


# Suspects


def test_of_several_that_a_dead_worker_was_executing_nobody_is_charged():
    scene = running(5, retry=Retry(crashes=0))
    scene.exit(scene.starting(1))
    assert scene.finals == {}
    assert [scene.causes(job) for job in range(5)] == [[Cause.SUSPECT]] * 3 + [[]] * 2
    assert scene.places()["aside"] == [0, 1, 2]
    assert scene.places()["queue"] == [3, 4]


def test_the_exit_names_all_that_it_was_executing():
    scene = running(5)
    scene.exit(scene.starting(1))
    end = scene.exits[0].end
    assert (end.cause, end.key, end.keys) == (Cause.CRASH, None, ("key 0", "key 1", "key 2"))
    assert "executed 3 jobs, 'key 0' the first of them" in str(end)


def test_suspects_are_executed_alone_and_who_kills_again_is_charged():
    scene = running(5, retry=Retry(crashes=1))
    scene.exit(scene.starting(1))
    scene.ready(scene.workers[2])
    assert scene.held(2) == [0]
    scene.starting(2)
    scene.finishing(2, 1)
    assert scene.held(2) == [1]
    scene.exit(scene.starting(2))
    scene.ready(scene.workers[3])
    assert scene.held(3) == [2]
    scene.starting(3)
    scene.finishing(3, 1)
    assert scene.held(3) == [1]
    scene.exit(scene.starting(3))
    history = scene.finals[1].history
    assert scene.states[1] is JobState.QUARANTINED
    assert [a.cause for a in history] == [Cause.SUSPECT, Cause.CRASH, Cause.CRASH]
    assert all(isinstance(a.error, WorkerCrashError) for a in history)
    scene.ready(scene.workers[4])
    assert scene.held(4) == [3, 4]
    scene.end()
    assert sorted(scene.finals) == [0, 1, 2, 3, 4]
    assert [scene.causes(i) for i in (0, 2, 3, 4)] == [[Cause.SUSPECT]] * 2 + [[]] * 2


def test_the_only_one_that_was_executing_is_charged_at_once_and_then_executed_alone():
    scene = running(1, retry=Retry(crashes=1))
    scene.exit(scene.starting(1))
    assert scene.causes(0) == [Cause.CRASH]
    scene.add_by_hand(2)
    scene.send(scene._events.popleft())
    scene.ready(scene.workers[2])
    assert scene.held(2) == [0]
    scene.end()


def test_a_suspect_that_raises_was_not_the_killer_and_has_company_again():
    scene = running(3, retry=Retry(errors=1))
    scene.exit(scene.starting(1))
    scene.ready(scene.workers[2])
    worker = scene.starting(2)
    worker.fail()
    scene.hear(worker)
    assert scene.places()["queue"] == [0]
    assert scene.held(2) == [1]
    scene.end()


def test_while_others_wait_suspects_are_for_half_of_the_workers():
    scene = running(9, slots=2)
    scene.starting(2)
    scene.exit(scene.starting(1))
    assert len(scene.places()["aside"]) == 3
    suspects = scene.places()["aside"]
    scene.ready(scene.workers[3])
    assert scene.held(3) == suspects[:1]
    assert suspects[1:] == scene.places()["aside"]
    assert len(scene.held(2)) == AT_ONCE + 1  # it has company, and one to go on with
    scene.end()


def test_a_worker_that_is_to_have_suspects_finishes_what_it_has_and_gives_back_the_rest():
    scene = running(12, slots=2)
    scene.starting(2)
    commands = scene.exit(scene.starting(1))
    assert [command.worker_id for command in of(do.RecallJobs, commands)] == [2]
    assert len(scene.held(2)) == AT_ONCE
    scene.finishing(2, 1, 2, 3)
    assert scene.held(2) == [0]
    scene.end()


def test_a_worker_that_was_to_have_suspects_takes_others_when_those_are_cancelled():
    scene = running(12, slots=2)
    scene.starting(2)
    scene.exit(scene.starting(1))
    before = scene.held(2)
    for suspect in scene.places()["aside"]:
        scene.cancel(suspect)
    assert len(scene.held(2)) > len(before)
    scene.end()


def test_of_two_idle_workers_one_gets_a_suspect_and_one_what_else_waits():
    scene = Scene(slots=3)
    scene.answers_recalls_at_once = False
    scene.start(4)
    scene.ready(scene.workers[1])
    victim = scene.starting(1)
    scene.ready(scene.workers[2])
    scene.ready(scene.workers[3])
    assert (scene.held(1), scene.held(2), scene.held(3)) == ([0, 1, 2, 3], [], [])
    scene.exit(victim)
    assert (scene.held(2), scene.held(3)) == ([0], [3])
    scene.answers_recalls_at_once = True
    scene.end()


def test_when_nothing_else_waits_every_idle_worker_gets_a_suspect():
    scene = running(3, slots=3)
    scene.exit(scene.starting(1))
    scene.ready(scene.workers[4])
    assert sorted(len(scene.held(number)) for number in (2, 3, 4)) == [1, 1, 1]
    scene.end()


def test_a_suspect_that_waits_can_be_cancelled():
    scene = running(3)
    scene.exit(scene.starting(1))
    scene.cancel(1)
    assert scene.states[1] is JobState.CANCELLED
    scene.end()


def test_suspects_are_given_back_by_a_run_that_is_aborted():
    scene = running(3)
    scene.exit(scene.starting(1))
    scene.abort()
    scene.end()
    assert [job.id for job in scene.returned] == [0, 1, 2]


def test_a_worker_that_is_used_up_gets_no_suspect():
    scene = running(6, slots=2, recycle=Recycle(jobs=3))
    scene.starting(2)
    scene.exit(scene.starting(1))
    scene.finishing(2, 1, 2, 3)
    assert scene.held(2) == []
    scene.end()


# Time limits


def late(jobs=3, running=None, **policy):
    """A worker, the first of whose jobs were told to be beyond their limit."""
    scene = Scene(**policy)
    made = Scene.make_job

    def make_job():
        job = made(scene)
        job.timeout = 5.0
        return job

    scene.make_job = make_job
    scene.start(jobs)
    scene.ready(scene.workers[1])
    worker = scene.starting(1)
    worker.running = running
    scene.see(worker, min(jobs, AT_ONCE), 0.0, 1)
    return scene, worker


def test_at_the_limit_the_worker_is_asked_to_cancel_the_job_and_goes_on():
    scene, worker = late(1)
    scene.now = 5.0
    assert scene.send_time() == [do.CancelJob(worker_id=1, ordinal=1, limit=5.0)]
    worker.fail(Cause.TIMEOUT)
    scene.hear(worker)
    assert scene.states == {0: JobState.FAILED}
    assert scene.causes(0) == [Cause.TIMEOUT]
    scene.end()
    assert len(scene.exits) == 1


def test_a_worker_that_does_not_answer_is_ended_and_only_the_late_job_is_charged():
    scene, worker = late(3, running=1)
    worker.ending = 2
    worker.finish()
    scene.hear(worker)
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    assert [type(c) for c in scene.send_time()] == [do.RecallJobs, do.DumpStack]
    scene.now = scene.state.next_deadline()
    assert scene.now == pytest.approx(5.0 + GRACE / 2 + STACK_TIME)
    assert [type(c) for c in scene.send_time()] == [do.TerminateWorker]
    scene.now = scene.state.next_deadline()
    assert scene.now == pytest.approx(5.0 + GRACE + STACK_TIME)
    assert [type(c) for c in scene.send_time()] == [do.KillWorker]
    scene.exit(worker)
    assert scene.causes(0) == [Cause.TIMEOUT]
    assert scene.causes(2) == [Cause.PREEMPTED]
    assert scene.state._ledger.aside == 0
    scene.end()


@pytest.mark.parametrize(("running", "culprit"), [(1, 0), (3, 2), (9, 0)])
def test_where_all_are_late_it_is_the_one_that_the_worker_is_busy_with(running, culprit):
    scene, worker = late(3, running=running)
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    scene.send_time()
    scene.now = scene.state.next_deadline()
    scene.send_time()
    scene.exit(worker)
    charged = {job for job in range(3) if scene.causes(job) == [Cause.TIMEOUT]}
    assert charged == {culprit}
    scene.end()


def test_where_all_are_late_and_the_worker_is_busy_with_none_they_are_suspects():
    scene, worker = late(3)
    worker.ending = 2
    worker.finish()
    scene.hear(worker)
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    scene.send_time()
    scene.now = scene.state.next_deadline()
    scene.send_time()
    scene.exit(worker)
    assert [scene.causes(job) for job in (0, 2)] == [[Cause.SUSPECT]] * 2
    assert scene.places()["aside"] == [0, 2]
    scene.end()


def test_who_is_late_beside_a_job_that_does_not_let_itself_be_cancelled_is_no_suspect():
    scene, worker = late(3)
    scene.now = 4.9
    scene.cancel(1)
    scene.now = 5.0
    scene.send_time()
    scene.now = 4.9 + GRACE / 2
    scene.send_time()
    scene.exit(worker)
    assert scene.states == {1: JobState.CANCELLED}
    assert [scene.causes(job) for job in (0, 2)] == [[Cause.PREEMPTED]] * 2
    scene.end()


def test_a_worker_whose_late_job_ends_at_the_last_moment_is_spared():
    scene, worker = late(1)
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    scene.send_time()
    worker.finish()
    scene.hear(worker)
    assert scene.state.next_deadline() is None
    scene.end()
    assert scene.states == {0: JobState.DONE}


def test_a_job_that_is_late_again_is_executed_alone():
    scene, worker = late(2, running=1, retry=Retry(timeouts=1))
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    scene.send_time()
    scene.now = scene.state.next_deadline()
    scene.send_time()
    scene.exit(worker)
    assert scene.places()["aside"] == [0]
    scene.end()


def test_jobs_that_take_long_are_told_of_one_by_one():
    scene = running(2, stuck_after=7.0)
    worker = scene.starting(1)
    scene.see(worker, 2, 1.0, 1)
    scene.see(worker, 2, 3.0, 2)
    scene.now = 8.0
    told = scene.send_time()
    assert [(command.key, command.seconds) for command in told] == [("key 0", 7.0), ("key 1", 7.0)]
    scene.end()


# Cancelling


def test_a_job_that_is_executing_is_cancelled_and_its_neighbours_go_on():
    scene = running(3)
    worker = scene.starting(1)
    commands = scene.cancel(1)
    assert of(do.CancelJob, commands) == [do.CancelJob(worker_id=1, ordinal=2, limit=None)]
    worker.ending = 2
    worker.fail(Cause.PREEMPTED)
    scene.hear(worker)
    assert scene.states == {1: JobState.CANCELLED}
    assert worker.busy == [1, 3]
    scene.end()


def test_a_cancelled_job_that_goes_on_regardless_takes_its_worker_with_it():
    scene = running(3)
    worker = scene.starting(1)
    scene.cancel(1)
    scene.cancel(1)  # to ask twice changes nothing
    scene.now += GRACE / 2
    assert [type(c) for c in scene.send_time()][-1] is do.TerminateWorker
    scene.cancel(0)
    scene.exit(worker)
    assert scene.states == {0: JobState.CANCELLED, 1: JobState.CANCELLED}
    assert scene.causes(2) == [Cause.PREEMPTED]
    scene.end()


def test_a_job_that_raises_what_only_a_cancelled_one_does_has_failed():
    scene = running(1)
    worker = scene.starting(1)
    worker.fail(Cause.PREEMPTED)
    scene.hear(worker)
    assert scene.states == {0: JobState.FAILED}
    assert scene.causes(0) == [Cause.ERROR]
    scene.end()


# Memory


def test_of_several_in_a_worker_that_holds_too_much_all_are_suspects():
    scene = running(3, max_rss=100)
    worker = scene.starting(1)
    commands = scene.measure(worker, 101)
    assert of(do.KillWorker, commands)
    scene.exit(worker)
    assert [scene.causes(job) for job in range(3)] == [[Cause.SUSPECT]] * 3
    scene.ready(scene.workers[2])
    worker = scene.starting(2)
    scene.measure(worker, 101)
    scene.exit(worker)
    assert scene.causes(0) == [Cause.SUSPECT, Cause.MEMORY]
    scene.end()
    (history,) = scene.finals[0].histories.values()
    assert all(isinstance(attempt.error, JobMemoryError) for attempt in history)


def test_a_worker_that_is_doomed_already_is_not_doomed_again():
    scene, worker = late(2, max_rss=100)
    scene.now = 5.0
    scene.send_time()
    scene.now += GRACE / 2
    scene.send_time()
    assert scene.measure(worker, 101) == []
    scene.cancel(0)
    scene.end()
