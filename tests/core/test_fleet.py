"""Which slot holds which worker, and what an exit means."""

from __future__ import annotations

import pytest

from okanjo_conductor._core.fleet import MAX_FAILED_STARTS, MAX_IDLE_DEATHS, Fleet, WorkerState
from okanjo_conductor.errors import IllegalEventError


def fleet_with(*states, slots=3):
    """A fleet whose first slots hold workers in these states."""
    fleet = Fleet(slots)
    for slot, state in zip(fleet.slots, states, strict=False):
        worker = fleet.fill(slot)
        if state is WorkerState.READY:
            fleet.make_ready(worker, 0.0)
        elif state is WorkerState.STOPPING:
            fleet.stop(worker)
    return fleet


def test_workers_are_numbered_in_the_order_of_starts_and_never_again():
    fleet = fleet_with(WorkerState.READY)
    fleet.bury(fleet.get(1))
    assert fleet.fill(fleet.slots[0]).id == 2
    assert fleet.slots[0].worker is fleet.get(2)


def test_a_slot_outlives_its_worker():
    fleet = fleet_with(WorkerState.READY)
    fleet.bury(fleet.get(1))
    assert fleet.slots[0].worker is None
    assert len(fleet) == 0
    assert len(fleet.slots) == 3


def test_a_fleet_says_who_is_in_it():
    assert repr(Fleet(2)) == "<Fleet of 2: nobody>"
    fleet = fleet_with(WorkerState.READY, WorkerState.STARTING)
    assert repr(fleet) == "<Fleet of 3: 1@0 READY, 2@1 STARTING>"


def test_the_dead_are_not_found():
    fleet = fleet_with(WorkerState.READY)
    with pytest.raises(IllegalEventError, match="worker 7 is not among the living: <Fleet of 3"):
        fleet.get(7)


def test_only_ready_workers_take_jobs_and_only_starting_ones_will_soon():
    fleet = fleet_with(WorkerState.READY, WorkerState.STARTING, WorkerState.STOPPING)
    assert [w.id for w in fleet.takers()] == [1]
    assert fleet.starting == 1
    assert [w.id for w in fleet] == [1, 2, 3]


def test_a_worker_that_was_asked_to_stop_while_it_started_takes_no_jobs():
    fleet = fleet_with(WorkerState.STOPPING)
    worker = fleet.get(1)
    fleet.make_ready(worker, 0.0)
    assert worker.was_ready
    assert worker.state is WorkerState.STOPPING


@pytest.mark.parametrize("state", [WorkerState.READY, WorkerState.STOPPING])
def test_nobody_becomes_ready_twice(state):
    fleet = fleet_with(state)
    worker = fleet.get(1)
    if state is WorkerState.STOPPING:
        fleet.make_ready(worker, 0.0)
    with pytest.raises(IllegalEventError, match=f"cannot become READY: it is {state.name}"):
        fleet.make_ready(worker, 0.0)
    assert worker.state is state


def test_ordinals_are_never_used_again():
    worker = fleet_with(WorkerState.READY).get(1)
    assert [worker.take_ordinals(n) for n in (1, 5, 1)] == [1, 2, 7]


def test_the_wait_after_failed_starts_doubles():
    (slot,) = Fleet(1).slots
    waits = []
    for _ in range(MAX_FAILED_STARTS):
        slot.note_death(1, was_ready=False, now=10.0)
        waits.append(max(slot.not_before - 10.0, 0.0))
    assert waits == pytest.approx([0.0, 0.1, 0.2])
    assert slot.is_failing


def test_the_wait_after_idle_deaths_doubles_up_to_five_seconds():
    (slot,) = Fleet(1).slots
    waits = []
    for _ in range(MAX_IDLE_DEATHS):
        assert not slot.is_failing
        slot.note_death(1, was_ready=True, now=10.0)
        waits.append(max(slot.not_before - 10.0, 0.0))
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    assert slot.is_failing


def test_a_worker_that_was_ready_ends_the_row_of_failed_starts():
    (slot,) = Fleet(1).slots
    for _ in range(MAX_FAILED_STARTS - 1):
        slot.note_death(1, was_ready=False, now=0.0)
    slot.note_death(1, was_ready=True, now=0.0)
    slot.note_death(1, was_ready=False, now=0.0)
    assert not slot.is_failing
    assert (slot.failed_starts, slot.idle_deaths) == (1, 1)


def test_a_worker_that_was_started_later_and_works_ends_the_row_of_failed_starts():
    (slot,) = Fleet(1).slots
    slot.note_death(1, was_ready=False, now=0.0)
    slot.note_death(2, was_ready=False, now=0.0)
    slot.note_work(3)
    slot.note_death(4, was_ready=False, now=0.0)
    assert not slot.is_failing


def test_work_makes_a_slot_as_good_as_new():
    (slot,) = Fleet(1).slots
    for was_ready in (True, True, False, False):
        slot.note_death(1, was_ready=was_ready, now=5.0)
    slot.note_work(2)
    assert (slot.failed_starts, slot.idle_deaths, slot.not_before) == (0, 0, 0.0)
