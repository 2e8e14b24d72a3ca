"""A kill strikes at its moment, and only there."""

from __future__ import annotations

import signal

import pytest

from okanjo_conductor import Cause, Conductor, Retry
from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.testing import FateWorker, kill_worker_at


def conduct(jobs, *, retry=None, **moment):
    """Run jobs by key, kill at a moment; return the kill, attempts by key, exits."""
    conductor = Conductor(
        FateWorker,
        jobs_queue=jobs,
        worker_limit=2,
        job_key=lambda job: job[0],
        retry=retry,
        logging=False,
    )
    exits = []
    conductor.on("error", lambda _: None)
    conductor.on("worker_exit", exits.append)
    kill = kill_worker_at(conductor, **moment)
    outcomes = list(conductor.outcomes())
    assert all(o.is_done for o in outcomes)
    return kill, {o.key: o.attempts for o in outcomes}, exits


JOBS = [(number, "done") for number in range(100)]


def test_a_worker_is_killed_when_the_nth_outcome_has_arrived():
    kill, attempts, exits = conduct([(n, "sleep 0.002") for n in range(40)], outcome=10)

    kill.check()
    lost = [e for e in exits if e.signal == "SIGKILL"]
    assert [e.worker_id for e in lost] == [kill.worker_id]
    assert {key for key, count in attempts.items() if count > 1} <= {lost[0].key}


def test_a_worker_is_killed_as_soon_as_it_exists():
    kill, attempts, exits = conduct(JOBS, start=1)

    assert kill.worker_id == 1
    assert exits[0].worker_id == 1
    assert set(attempts.values()) == {1}


def test_a_worker_is_killed_while_it_executes_a_job():
    jobs = [*JOBS[:20], ("victim", "sleep 0.2"), *JOBS[20:]]
    kill, attempts, exits = conduct(jobs, running="victim")

    kill.check()
    assert attempts.pop("victim") == 2
    assert set(attempts.values()) == {1}
    assert [(e.key, e.cause) for e in exits if e.cause] == [("victim", Cause.CRASH)]


def test_a_worker_is_killed_when_so_many_are_ready():
    kill, _, exits = conduct([(n, "sleep 0.05") for n in range(6)], ready=2)

    kill.check()
    assert [e.worker_id for e in exits if e.signal == "SIGKILL"] == [kill.worker_id]


def test_any_signal_will_do():
    kill, _, exits = conduct(
        [(n, "sleep 0.002") for n in range(40)], outcome=5, signal=signal.SIGTERM
    )

    assert [e.signal for e in exits if e.cause] == ["SIGTERM"]
    assert kill.happened


def test_a_moment_that_never_comes_is_told():
    kill, _, _ = conduct(JOBS, outcome=1000)

    assert not kill.happened
    with pytest.raises(AssertionError, match="never came"):
        kill.check()


@pytest.mark.parametrize("moments", [{}, {"start": 1, "outcome": 1}])
def test_one_moment_is_to_be_named(moments):
    with pytest.raises(ConfigurationError, match="one moment"):
        kill_worker_at(Conductor(FateWorker), **moments)


def test_a_budget_is_seen_to_be_spent():
    kill, attempts, _ = conduct([("it", "sleep 0.2")], running="it", retry=Retry(crashes=1))

    assert (kill.happened, attempts) == (True, {"it": 2})
