"""Simulated clusters: how long they take, what is repeated, and how much the core has to do."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from math import ceil

import pytest

from okanjo_conductor._core import records as rec
from okanjo_conductor._core.state import ConductorState, Step
from okanjo_conductor.testing import BrokenPromiseError, ShellCosts, simulate_cluster

WORKERS, NODES = 64, 4
PER_NODE = WORKERS // NODES
FREE = ShellCosts(packet=0.0, message=0.0, job=0.0)


def steady(step=20e-6):
    """A clock by which each call of the core takes as long."""
    return count(0.0, step).__next__


simulate = partial(simulate_cluster, nodes=NODES, workers=WORKERS, costs=FREE)


def heavy_tail(number):
    chance = random.Random(7)
    return [min(0.002 * chance.paretovariate(1.2), 1.0) for _ in range(number)]


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5])
def test_jobs_of_equal_length_keep_the_workers_busy(seconds):
    jobs = WORKERS * max(40, round(0.8 / seconds))
    report = simulate(jobs=jobs, durations=seconds, clock=steady(2e-6))

    assert report.bound == pytest.approx(seconds * jobs / WORKERS)
    assert report.bound <= report.makespan <= 1.05 * report.bound
    assert report.utilisation == pytest.approx(report.bound / report.makespan)


def test_of_uneven_jobs_those_behind_long_ones_are_taken_back():
    durations = heavy_tail(20_000)
    report = simulate(jobs=len(durations), durations=durations, clock=steady(2e-6))

    assert report.recalls > 0
    assert report.makespan <= report.bound * 1.1 + max(durations)


def test_the_longest_job_is_a_bound():
    report = simulate(jobs=WORKERS, durations=[*[0.01] * 9, 3.0], clock=steady())

    assert report.bound == 3.0


def test_one_report_is_like_the_next():
    first, second = (
        simulate(jobs=2_000, durations=heavy_tail(500), lose_node_at=0.1, clock=steady())
        for _ in range(2)
    )

    assert first == second


# The loss of a node


def test_what_a_lost_node_had_begun_is_executed_elsewhere():
    seconds, at, notice = 0.05, 1.0, 0.5
    jobs = WORKERS * 40
    report = simulate(
        jobs=jobs,
        durations=seconds,
        lose_node_at=at,
        notice_after=notice,
        clock=steady(2e-6),
    )

    left = jobs * seconds - at * WORKERS
    assert report.bound == pytest.approx(at + left / (WORKERS - PER_NODE))
    assert report.makespan <= 1.05 * report.bound
    # Each worker was executing one; of some, word of the one before was on its way.
    assert PER_NODE <= report.repeated <= 2 * PER_NODE


def test_without_a_loss_nothing_is_repeated():
    assert simulate(jobs=1_000, durations=0.01, clock=steady()).repeated == 0


def test_a_loss_that_nobody_notices_for_long_delays_the_jobs_that_were_there():
    report = simulate(
        jobs=WORKERS, durations=0.5, lose_node_at=0.1, notice_after=20.0, clock=steady()
    )

    assert report.repeated == PER_NODE
    assert 20.1 + 0.5 <= report.makespan <= 20.1 + 0.6


def test_a_run_without_any_node_hangs_and_that_is_said():
    with pytest.raises(BrokenPromiseError, match="a run does not hang"):
        simulate(nodes=1, jobs=1_000, durations=0.1, lose_node_at=0.5, clock=steady())


# The conductor's time


def test_a_conductor_that_cannot_keep_up_lets_workers_wait():
    costs = replace(FREE, message=0.001)
    report = simulate(jobs=WORKERS * 20, durations=0.02, costs=costs, clock=steady(0.0))

    messages = 2 * WORKERS * 20
    assert report.core == 0.0
    assert report.busy >= messages * costs.message
    assert report.makespan >= 0.9 * report.busy
    assert report.utilisation <= 0.25


def test_what_nodes_say_meanwhile_travels_together():
    durations = [0.02 + 1e-5 * number for number in range(997)]  # so that few end together
    quick, slow = (
        simulate(
            jobs=WORKERS * 20,
            durations=durations,
            costs=replace(FREE, message=message),
            clock=steady(0.0),
        )
        for message in (0.0, 0.001)
    )

    assert slow.packets < 0.7 * quick.packets


def test_the_costs_of_the_shell_are_counted_once_each():
    def run_at(**costs):
        report = simulate(jobs=500, durations=0.5, costs=replace(FREE, **costs), clock=steady(0.0))
        return report, report.busy / 1e-3

    assert 500 <= run_at(job=1e-3)[1] <= 600  # what is taken back is sent twice
    report, times = run_at(packet=1e-3)
    assert times == pytest.approx(report.packets)
    report, times = run_at(message=1e-3)
    assert times == pytest.approx(report.messages)


def test_a_journey_is_paid_for_by_whoever_holds_too_little():
    near, far = (
        simulate(jobs=WORKERS * 100, durations=0.001, round_trip=trip, clock=steady(0.0))
        for trip in (0.001, 0.2)
    )

    assert near.utilisation > 0.8
    assert far.utilisation < 0.3


# What the core has to do


def operations_per_event(monkeypatch, workers, **given):
    """Count the interpreter's instructions within the core, in a whole run."""
    counted = 0

    def trace(frame, what, _arg):
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += what == "opcode"
        return trace

    def watched(function):
        def call(*args):
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                return function(*args)
            finally:
                sys.settrace(before)

        return call

    with monkeypatch.context() as patch:
        for name in ("handle", "next_deadline"):
            patch.setattr(ConductorState, name, watched(getattr(ConductorState, name)))
        report = simulate_cluster(workers=workers, nodes=4, clock=steady(1e-6), **given)
    return counted / report.events


@pytest.mark.parametrize(
    ("seconds", "each"), [(0.1, 5), (0.02, 10), (0.002, 50), (0.1, 0.5)], ids=str
)
def test_the_work_of_the_core_does_not_grow_with_the_workers(monkeypatch, seconds, each):
    few, many = (
        operations_per_event(monkeypatch, workers, jobs=ceil(workers * each), durations=seconds)
        for workers in (8, 96)
    )

    assert many <= 1.5 * few


def memory(workers, each):
    report = simulate(
        workers=workers,
        jobs=workers * each,
        durations=0.02,
        clock=steady(1e-6),
        traces_memory=True,
    )
    return report.bytes_per_worker


def test_a_worker_takes_as_much_memory_beside_many_as_beside_few():
    assert 500 < memory(128, each=20) <= 1.25 * memory(32, each=20)


def test_ten_times_as_many_jobs_take_no_more_memory():
    assert memory(32, each=200) <= 1.25 * memory(32, each=20)


# What is wrong is said


@pytest.mark.parametrize(
    "wrong", [{"jobs": 0}, {"workers": 0}, {"nodes": 0}, {"durations": []}, {"durations": [1, 0]}]
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="from 1; durations: one or more, each more than 0"):
        simulate(**{"jobs": 10, "durations": 0.01, **wrong})


def test_an_outcome_that_comes_twice_breaks_a_promise(monkeypatch):
    handle = ConductorState.handle

    def say_twice(state, event, now):
        step = handle(state, event, now)
        twice = [record for record in step.records for _ in range(2)]
        return Step(records=twice, commands=step.commands)

    monkeypatch.setattr(ConductorState, "handle", say_twice)
    with pytest.raises(BrokenPromiseError, match="no job has two outcomes"):
        simulate(jobs=100, durations=0.01, clock=steady())


def test_an_outcome_that_never_comes_breaks_a_promise(monkeypatch):
    handle = ConductorState.handle

    def say_less(state, event, now):
        step = handle(state, event, now)
        kept = [record for record in step.records if 7 not in record.jobs.ids]
        return Step(records=kept, commands=step.commands)

    monkeypatch.setattr(ConductorState, "handle", say_less)
    with pytest.raises(BrokenPromiseError, match="every job has an outcome"):
        simulate(jobs=100, durations=0.5, clock=steady())


def test_a_job_that_is_charged_breaks_a_promise(monkeypatch):
    handle = ConductorState.handle

    def say_more(state, event, now):
        step = handle(state, event, now)
        for record in tuple(step.records):
            step.records.append(rec.JobRetried(job=record.jobs[0], attempt=None, ordinal=None))
        return step

    monkeypatch.setattr(ConductorState, "handle", say_more)
    with pytest.raises(BrokenPromiseError, match="no job is charged"):
        simulate(jobs=100, durations=0.01, clock=steady())
