"""Snapshots made of what a run says."""

from __future__ import annotations

import pytest

from okanjo_conductor._core.survey import Sight
from okanjo_conductor._delivery import ReportBuilder
from okanjo_conductor._snapshot import Observer

from .test_report import done


def sight(worker_id, activity="working", *, since=None, in_flight=1):
    return Sight(
        worker_id=worker_id,
        slot=worker_id - 1,
        activity=activity,
        key="job" if in_flight else None,
        since=since,
        in_flight=in_flight,
        waiting=0,
        executed=3,
    )


def books(jobs=0, seconds=1.0, ready=0.0):
    """The account of a run in which so many jobs have taken that long each."""
    made = ReportBuilder()
    made.clock.ordered(1, 0.0)
    if ready is not None:
        made.clock.set_up(1, ready, is_parallel=False)
    if jobs:
        made.add(done(*[round(seconds * 1e9)] * jobs))
    return made


def look(account, *, now=10.0, observer=None, **facts):
    given = {
        "began": 0.0,
        "phase": "running",
        "sights": [],
        "empty": [],
        "accepted": account.so_far.jobs,
        "unread": 90,
        "pids": {},
        **facts,
    }
    return (observer or Observer()).look(now=now, books=account, **given)


def test_before_a_worker_is_ready_there_is_no_rate():
    snapshot = look(books(ready=None))
    assert (snapshot.rate, snapshot.eta, snapshot.total) == (0.0, None, 90)


def test_the_time_until_the_first_worker_is_ready_is_not_held_against_the_rate():
    assert look(books(10, ready=9.0)).rate == pytest.approx(10.0)


def test_the_rate_goes_on_from_look_to_look():
    observer, account = Observer(), books(10)
    assert look(account, observer=observer).rate == pytest.approx(1.0)
    assert look(account, observer=observer, now=1000.0).rate < 0.01


def test_the_time_left_follows_from_the_rate():
    snapshot = look(books(10), sights=[sight(1)])
    assert (snapshot.total, snapshot.eta) == (100, pytest.approx(90.0))


def test_nothing_is_guessed_before_as_many_jobs_have_ended_as_are_executed():
    sights = [sight(1), sight(2)]
    assert look(books(1), sights=sights).eta is None
    assert look(books(2), sights=sights).eta is not None
    assert look(books(2), sights=[sight(1, in_flight=100)]).eta is None


@pytest.mark.parametrize("phase", ["draining", "aborting"])
def test_a_run_that_is_being_stopped_has_no_time_left_to_tell(phase):
    assert look(books(10), phase=phase).eta is None


def test_without_a_total_there_is_no_time_left_to_tell():
    snapshot = look(books(10), unread=None)
    assert (snapshot.total, snapshot.fraction, snapshot.eta) == (None, None, None)


def test_a_run_whose_jobs_have_all_ended_has_no_time_left():
    snapshot = look(books(10), phase="ending", unread=0, sights=[sight(1, "leaving", in_flight=0)])
    assert (snapshot.fraction, snapshot.eta) == (1.0, 0.0)


def test_the_last_job_is_waited_for_as_long_as_a_job_takes():
    snapshot = look(books(100, 60.0), unread=0, accepted=101, sights=[sight(1, since=5.0)])
    assert snapshot.eta == pytest.approx(55.0)


def test_jobs_whose_outcome_was_not_told_yet_are_still_to_come():
    snapshot = look(books(10), unread=0, accepted=15)
    assert (snapshot.total, snapshot.finished, snapshot.eta) == (15, 10, pytest.approx(5.0))


def test_workers_and_empty_slots_come_in_order():
    sights = [sight(1, since=4.0), sight(3, "starting", in_flight=0), sight(4)]
    account = books()
    account.clock.ordered(3, 7.5)
    snapshot = look(account, sights=sights, empty=[1], pids={1: 111})
    shown = [(w.slot, w.state, w.worker_id, w.pid, w.seconds) for w in snapshot.workers]
    assert shown == [
        (0, "working", 1, 111, 6.0),
        (1, "empty", None, None, None),
        (2, "starting", 3, None, 2.5),
        (3, "working", 4, None, 0.0),
    ]
    assert snapshot.in_flight == 2


def test_a_snapshot_does_not_change_with_the_account():
    account = books(10)
    snapshot = look(account)
    account.add(done(1))
    assert snapshot.done == 10
