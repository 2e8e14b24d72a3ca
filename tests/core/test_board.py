"""Who wants jobs and who has some to give, and that to know costs the same with many workers."""

from __future__ import annotations

import sys

import pytest

from core.test_limits import Run, kinds, of
from okanjo_conductor._core import commands as do
from okanjo_conductor._core.board import _SLACK, Board
from okanjo_conductor._core.endings import Watch
from okanjo_conductor._core.fleet import Fleet
from okanjo_conductor._core.jobs import Job
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor._types import Recycle

MANY = 300


def board_with(workers):
    """A board of workers that are ready and hold nothing."""
    ledger, fleet = Ledger(), Fleet(workers)
    board = Board(ledger, Recycle())
    for slot in fleet.slots:
        worker = fleet.fill(slot)
        ledger.enrol(worker.id)
        fleet.make_ready(worker, 0.0)
        board.touch(worker)
    board.refresh()
    return board, [*fleet]


def watch(worker, board, expires_at):
    job = Job(1, 1, 1, 1)
    worker.watches = {1: Watch(job, 1, 0.0, 1.0, expires_at, None, None)}
    board.touch(worker)
    board.refresh()


def test_what_is_due_is_told_once_and_first_what_is_due_first():
    board, workers = board_with(3)
    for worker, time in zip(workers, (3.0, 1.0, 2.0), strict=True):
        watch(worker, board, time)
    assert board.next_due() == 1.0
    assert [*board.due(2.0)] == [2, 3]
    assert board.next_due() == 3.0


def test_what_was_due_earlier_and_is_not_any_more_is_forgotten():
    board, (worker,) = board_with(1)
    for time in range(10 * _SLACK, 0, -1):
        watch(worker, board, float(time))
        assert board.next_due() == time
        assert len(board._dues) <= _SLACK + 2
    watch(worker, board, None)
    assert board.next_due() is None


def test_of_the_dead_nothing_is_known():
    board, workers = board_with(2)
    watch(workers[0], board, 1.0)
    board.touch(workers[0])
    board.forget(workers[0])
    board.refresh()
    assert [*board.idle] == [2]
    assert (board.sharers, board.next_due()) == (1, None)


def test_a_worker_that_dies_young_is_not_recycled_later():
    run = Run(3, slots=1, recycle=Recycle(seconds=1.0))
    run.now = 0.5
    run.die(1, claimed=1, signal="SIGSEGV")
    run.ready(2)
    run.now = 1.2
    assert kinds(run.add(1)) == []
    assert run.wait_until_due() == [do.StartWorker(worker_id=3, slot=0)]
    assert run.now == 1.5


# Jobs behind one that takes long


def test_jobs_behind_one_that_takes_long_go_back_and_none_follow():
    run = Run(2, slots=1)
    run.see(1)
    assert run.state.next_deadline() == 0.1
    assert run.wait_until_due() == [do.RecallJobs(worker_id=1, last=2)]
    assert run.recalled(1, beyond=1) == []
    assert run.add(1) == []
    handed = [[*command.jobs.ids] for command in of(do.HandOut, run.done(1, 1))]
    assert handed == [[1], [2]]


def test_a_job_that_takes_long_by_itself_wakes_nobody_and_gets_no_company():
    run = Run(1, slots=1)
    run.see(1)
    assert run.state.next_deadline() is None
    run.now = 5.0
    assert run.add(1) == []
    assert run.state.next_deadline() is None
    assert kinds(run.done(1, 1)) == [do.HandOut]


def test_what_takes_long_is_measured_by_the_pace_of_the_worker():
    run = Run(3, slots=1)
    run.state._fleet.get(1).sizer.observe(1, 10**9)
    run.see(1, since=2.0)
    assert run.state.next_deadline() == 6.0


# The cost of an event


def calls(run, event):
    """Count the functions that the core calls to take an event into account."""
    count = 0

    def note(_frame, what, _arg):
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(note)
    try:
        event(run)
        run.state.next_deadline()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "event",
    [
        lambda run: run.done(1, 1),
        lambda run: run.fail(1, 1),
        lambda run: run.add(1),
        lambda run: run.see(1),
        lambda run: run.measure(1, 10**6),
        lambda run: run.wait(0.0),
    ],
    ids=["done", "failed", "added", "seen", "measured", "time"],
)
def test_an_event_costs_the_same_with_many_workers(event):
    few, many = (Run(5 * slots, slots=slots, timeout=60.0) for slots in (100, MANY))
    assert calls(many, event) <= calls(few, event) + 10


def test_with_many_idle_workers_no_more_is_recalled_than_they_need():
    run = Run(2 * MANY, slots=MANY)
    assert run.state._board.spare == MANY
    for number in range(MANY - 10, MANY):
        run.done(number, 1)
        recalls = of(do.RecallJobs, run.done(number, 2))
        assert len(recalls) == 1
