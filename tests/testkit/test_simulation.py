"""Ten thousand schedules of deaths, delays, limits and stops: every promise, at every step."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from okanjo_conductor import Cause, JobState, Retry
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor.testing import BrokenPromiseError, simulate
from okanjo_conductor.testing._simulation import FATES, FAULTS

SCHEDULES, AT_ONCE = 10_000, 1_000
RARE = {
    "job with a past",
    "loner",
    "died between claim and decision",
    "declined",
    "recalled",
    "died while starting",
    "start too late",
    "died in teardown",
    "deaf to SIGTERM",
    "stack taken",
    "interruption heeded",
    "interruption swallowed",
    "interruption ignored",
    "cancellation heeded",
    "cancellation swallowed",
    "cancellation ignored",
    "blocked for ever",
    "reported stuck",
    "hanging cancelled",
    "aborted while draining",
    "recycled",
    "over budget",
}
RARE |= {f"cause {cause.value}" for cause in Cause}
"""What no table names and must have happened nevertheless."""


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_whatever_happens_in_whatever_order_the_promises_are_kept(first):
    happened: Counter[str] = Counter()
    for seed in range(first, first + AT_ONCE):
        happened += simulate(seed).happened
    missing = (FATES.keys() | FAULTS.keys() | RARE) - happened.keys()
    assert not missing, "something never happened"


def test_a_schedule_is_the_same_each_time():
    assert simulate(7) == simulate(7)


def test_what_is_given_is_not_drawn():
    report = simulate(3, jobs=50, slots=4, faults=(), fates=("done",))

    assert report.states.keys() <= {JobState.DONE}
    assert report.jobs >= 50
    assert not report.happened.keys() & FAULTS.keys()


def test_a_job_that_always_raises_uses_up_its_budget():
    report = simulate(1, jobs=5, retry=Retry(errors=2), faults=(), fates=("raises",))

    assert report.happened["raises"] == 3 * report.states[JobState.FAILED]


def test_a_broken_promise_tells_its_seed_and_its_story(monkeypatch):
    """A ledger that forgets what a dead worker held: a job is lost."""

    def forget(self, worker_id):
        del self._held[worker_id]

    monkeypatch.setattr(Ledger, "dismiss", forget)
    with pytest.raises(BrokenPromiseError) as caught:
        deque((simulate(seed, jobs=8) for seed in range(100)), 0)

    told = str(caught.value)
    assert "each job is in one place" in told
    assert "okanjo_conductor.testing.simulate(seed=" in told
    assert "jobs=8)" in told
    assert "RunStarted" in told
    assert "WorkerExited" in told


def test_a_run_that_hangs_is_found(monkeypatch):
    """A ledger in which no delayed job is ever queued again."""
    monkeypatch.setattr(Ledger, "queue_due", lambda self, now: None)
    monkeypatch.setattr(Ledger, "next_due", None)
    retry = Retry(errors=1, backoff=lambda _: 1.0)
    with pytest.raises(BrokenPromiseError, match="a run does not hang"):
        simulate(1, jobs=5, retry=retry, faults=(), fates=("raises",))
