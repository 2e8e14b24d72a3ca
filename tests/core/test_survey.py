"""What every slot is doing, seen from outside."""

from __future__ import annotations

from okanjo_conductor._core import events as ev
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._core.state import ConductorState, Phase
from okanjo_conductor._types import Retry
from okanjo_conductor.errors import SerialisationError


def started(*, slots=2, jobs=0, concurrency=1, workers=1):
    """A state whose first workers are ready and have been handed jobs."""
    state = ConductorState(slots=slots, policy=Policy(retry=Retry()))
    state.handle(ev.RunStarted(), 0.0)
    if jobs:
        state.handle(ev.JobsAccepted(jobs=some(jobs)), 0.0)
    for worker_id in range(1, workers + 1):
        ready = ev.WorkerReady(worker_id=worker_id, concurrency=concurrency, can_cancel=False)
        state.handle(ready, 1.0)
    return state


def some(count):
    ids = range(count)
    return Jobs(ids, [f"key-{i}" for i in ids], ids, ids)


def done(state, ordinals, now=2.0):
    event = ev.AttemptsDone(
        worker_id=1,
        ordinals=ordinals,
        values=[None] * len(ordinals),
        nanoseconds=[1] * len(ordinals),
    )
    state.handle(event, now)


def test_before_the_run_every_slot_is_empty():
    state = ConductorState(slots=2, policy=Policy(retry=Retry()))
    assert state.phase is Phase.NEW
    assert state.empty_slots == [0, 1]
    assert state.survey({}) == []


def test_a_slot_with_a_starting_worker_is_not_empty():
    state = started(jobs=1, workers=0)
    (sight,) = state.survey({})
    assert (sight.slot, sight.activity, sight.key, sight.in_flight) == (0, "starting", None, 0)
    assert state.empty_slots == [1]


def test_a_worker_that_has_claimed_nothing_is_idle_whatever_it_holds():
    (sight,) = started(slots=1, jobs=3).survey({1: None})
    assert (sight.activity, sight.key, sight.in_flight) == ("idle", None, 0)
    assert sight.waiting > 0


def test_a_worker_works_at_the_job_it_has_claimed():
    state = started(slots=1, jobs=8)
    first = state.survey({1: 1})[0]
    assert (first.activity, first.key, first.in_flight, first.since) == (
        "working",
        "key-0",
        1,
        None,
    )
    done(state, [1])
    second = state.survey({1: 2})[0]
    assert (second.key, second.executed, second.waiting >= 1) == ("key-1", 1, True)


def test_a_job_that_has_its_outcome_is_worked_at_no_more():
    state = started(slots=1, jobs=8)
    done(state, [1])
    (sight,) = state.survey({1: 1})
    assert (sight.activity, sight.key, sight.in_flight) == ("idle", None, 0)


def test_jobs_before_the_claimed_one_have_ended_though_nobody_has_heard_of_it():
    state = started(slots=1, jobs=8)
    done(state, [1])
    (sight,) = state.survey({1: 3})
    assert (sight.key, sight.in_flight) == ("key-2", 1)


def test_what_goes_on_for_some_time_has_a_beginning():
    state = started(slots=1, jobs=1)
    state.handle(ev.JobsSeen(worker_id=1, first=1, last=1, since=1.5), 2.0)
    assert state.survey({1: 1})[0].since == 1.5


def test_of_several_jobs_in_flight_the_oldest_is_told():
    state = started(slots=1, jobs=12, concurrency=10)
    ordinals = [1, 3]
    done(state, ordinals)
    (sight,) = state.survey({1: 7})
    assert (sight.key, sight.in_flight) == ("key-1", 5)


def test_a_worker_that_was_asked_to_stop_is_leaving_though_it_works():
    state = started(slots=1, jobs=8)
    state.handle(ev.DrainRequested(seconds=None, why="so"), 2.0)
    (sight,) = state.survey({1: 1})
    assert (sight.activity, sight.key) == ("leaving", "key-0")
    assert state.phase is Phase.DRAINING


def test_workers_come_in_the_order_of_slots():
    state = started(slots=2, jobs=30, workers=2)
    assert [(s.slot, s.worker_id) for s in state.survey({})] == [(0, 1), (1, 2)]


def test_jobs_are_accepted_once_whatever_becomes_of_them():
    state = started(slots=1, jobs=8)
    assert state.accepted == 8
    done(state, [1])
    error = SerialisationError("it does not travel")
    state.handle(ev.JobRefused(job=Job(8, 8, None, None), error=error), 2.0)
    assert state.accepted == 9


def test_jobs_that_are_given_back_are_accepted_no_more():
    state = started(slots=1, jobs=8)
    state.handle(ev.DrainRequested(seconds=None, why="so"), 2.0)
    state.handle(ev.JobsRecalled(worker_id=1, beyond=0), 2.0)
    state.handle(exited(1), 3.0)
    assert state.phase is Phase.OVER
    assert state.accepted == 0


def exited(worker_id):
    return ev.WorkerExited(
        worker_id=worker_id,
        code=0,
        signal=None,
        claimed=None,
        running=None,
        detail="",
        stderr="",
        stack="",
        is_oom=False,
    )
