"""Jobs with a past in an earlier run: budgets go on, and suspects of a machine's death wait."""

from __future__ import annotations

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._types import Cause, JobState, Recycle, Retry
from okanjo_conductor.errors import MachineCrashError
from okanjo_conductor.testing._world import World


class Scene(World):
    """A world whose first job has a past."""

    past: tuple[Cause, ...] = ()
    is_loner = False

    def make_job(self):
        job = super().make_job()
        if job.id == 0:
            self.give_past(job, *self.past, is_loner=self.is_loner)
        return job

    def held(self, number):
        return [job.id for job in self.state._ledger.held(number).values()]

    def end(self):
        self.check()
        self.drive_to_the_end()
        self.check_end()


def running(jobs, *, past=(), is_loner=False, **options):
    scene = Scene(**options)
    scene.past, scene.is_loner = past, is_loner
    scene.start(jobs)
    answer(scene)
    for worker in [*scene.workers.values()]:
        scene.ready(worker)
    answer(scene)
    return scene


def answer(scene):
    while scene.asked:
        scene.answer_intake()


def finish(scene, number):
    worker = start(scene, number)
    worker.finish()
    scene.hear(worker)
    answer(scene)


def start(scene, number):
    worker = scene.workers[number]
    while not worker.busy:  # those that were taken back are skipped
        worker.claim()
    return worker


def test_a_budget_that_an_earlier_run_has_spent_is_spent():
    scene = running(1, past=[Cause.ERROR], slots=1, retry=Retry(errors=1))
    worker = start(scene, 1)
    worker.fail()
    scene.hear(worker)

    assert scene.states[0] is JobState.FAILED
    assert [attempt.cause for attempt in scene.finals[0].history] == [Cause.ERROR] * 2
    scene.end()


def test_the_worker_is_told_of_attempts_in_earlier_runs():
    scene = running(1, past=[Cause.CRASH, Cause.ERROR], slots=1, retry=Retry(errors=2))
    (hand_out,) = [c for c in scene.commands if isinstance(c, do.HandOut)]
    assert [attempt.cause for attempt in hand_out.histories[0]] == [Cause.CRASH, Cause.ERROR]
    scene.end()


def test_a_loner_is_executed_when_everything_else_is_done_and_others_wait_for_it():
    scene = running(3, is_loner=True, slots=2)
    assert scene.held(1) + scene.held(2) == [1, 2]
    finish(scene, 1)
    assert scene.places()["alone"] == [0]
    finish(scene, 2)
    assert scene.held(1) == [0]

    scene.add_by_hand(2)
    scene.send(ev.IntakeReopened())
    answer(scene)
    assert scene.held(1) + scene.held(2) == [0]
    finish(scene, 1)
    assert sorted(scene.held(1) + scene.held(2)) == [3, 4]
    scene.end()


def test_a_loner_that_is_to_be_executed_again_is_alone_again():
    scene = running(3, is_loner=True, slots=2, retry=Retry(errors=1))
    finish(scene, 1)
    finish(scene, 2)
    worker = start(scene, 1)
    worker.fail()
    scene.hear(worker)
    assert scene.held(1) + scene.held(2) == [0]
    scene.end()
    assert scene.states[0] is JobState.DONE


def test_a_loner_starts_a_worker_and_not_more_than_one():
    scene = Scene(slots=2)
    scene.is_loner = True
    scene.start(1)
    answer(scene)
    assert [*scene.workers] == [1]
    scene.ready(scene.workers[1])
    answer(scene)
    assert scene.held(1) == [0]
    scene.end()


@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_a_loner_that_waits_is_found(how):
    scene = running(2, is_loner=True, slots=1)
    if how == "cancel":
        scene.cancel(0)
        assert scene.states[0] is JobState.CANCELLED
    else:
        scene.abort()
    scene.end()
    assert [job.id for job in scene.returned] == ([] if how == "cancel" else [0, 1])


def test_who_is_used_up_is_replaced_for_a_loner():
    scene = running(2, is_loner=True, slots=1, recycle=Recycle(jobs=1))
    finish(scene, 1)
    scene.ready(scene.workers[2])
    answer(scene)
    assert scene.held(2) == [0]
    scene.end()


def test_a_job_that_must_not_be_executed_any_more_is_quarantined():
    scene = Scene(slots=1)
    scene.start(1)
    job = scene.make_job()
    error = MachineCrashError(3)
    scene.state.handle(
        ev.JobRefused(job=job, error=error, state=JobState.QUARANTINED, cause=Cause.CRASH), 0.0
    )
    assert "went down 3 times" in str(error)
    assert scene.state.oldest_held(1) is None
