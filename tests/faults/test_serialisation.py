"""What does not travel fails its own job, and no other."""

from __future__ import annotations

import threading

import pytest

from faults import jobs
from faults.harness import Watched
from okanjo_conductor import Cause, JobState
from okanjo_conductor.errors import RemoteError, SerialisationError, WorkerCrashError

BAD, FAILED, QUARANTINED = 10, JobState.FAILED, JobState.QUARANTINED
UNSERIALISABLE, ERROR, CRASH = Cause.UNSERIALISABLE, Cause.ERROR, Cause.CRASH


def run_with(bad) -> Watched:
    """Run one bad job among good ones, which must all be done at once."""
    batch = [("double", number) for number in range(50)]
    batch[BAD] = bad
    run = Watched(jobs.perform, batch, worker_limit=2).run()
    others = {key: o for key, o in run.by_key.items() if key != BAD}
    assert {key: o.value for key, o in others.items()} == {n: 2 * n for n in range(50) if n != BAD}
    assert {o.attempts for o in others.values()} == {1}
    return run


BAD_JOBS = {
    "a payload that cannot be pickled": (
        lambda: ("accept", threading.Lock()),
        (FAILED, UNSERIALISABLE, SerialisationError, "cannot pickle"),
    ),
    "a payload that is too deep": (
        lambda: ("accept", jobs.nest(100_000)),
        (FAILED, UNSERIALISABLE, SerialisationError, "RecursionError"),
    ),
    "a payload that raises in the worker": (
        lambda: ("accept", jobs.Fails("raises")),
        (FAILED, UNSERIALISABLE, SerialisationError, "ValueError: this does not travel"),
    ),
    "a payload that leaves the worker": (
        lambda: ("accept", jobs.Fails("leaves")),
        (FAILED, UNSERIALISABLE, SerialisationError, "SystemExit: 5"),
    ),
    "a payload that raises no Exception": (
        lambda: ("accept", jobs.Fails("is odd")),
        (FAILED, UNSERIALISABLE, SerialisationError, "OddError"),
    ),
    "a payload that ends the worker": (
        lambda: ("accept", jobs.Fails("exits")),
        (QUARANTINED, CRASH, WorkerCrashError, "exited with code 6"),
    ),
    "a value that cannot be pickled": (
        lambda: ("give", "a lock"),
        (FAILED, UNSERIALISABLE, SerialisationError, "_thread.lock"),
    ),
    "a value that is too deep": (
        lambda: ("give", "a deep value"),
        (FAILED, UNSERIALISABLE, SerialisationError, "RecursionError"),
    ),
    "a value that raises in the conductor": (
        lambda: ("give", "a value that raises"),
        (FAILED, UNSERIALISABLE, SerialisationError, "ValueError: this does not travel"),
    ),
    "a value that leaves the conductor": (
        lambda: ("give", "a value that leaves"),
        (FAILED, UNSERIALISABLE, SerialisationError, "SystemExit: 5"),
    ),
    "a value that raises no Exception": (
        lambda: ("give", "an odd value"),
        (FAILED, UNSERIALISABLE, SerialisationError, "OddError"),
    ),
    "an exception that cannot be pickled": (
        lambda: ("throw", "unpicklable"),
        (FAILED, ERROR, RemoteError, "LockedError: locked"),
    ),
    "an exception that cannot be unpickled": (
        lambda: ("throw", "picky"),
        (FAILED, ERROR, RemoteError, "PickyError: 1 and 2"),
    ),
    "an exception that is no Exception": (
        lambda: ("throw", "odd"),
        (FAILED, ERROR, RemoteError, "OddError"),
    ),
    "an interrupt": (
        lambda: ("throw", "an interrupt"),
        (FAILED, ERROR, RemoteError, "KeyboardInterrupt"),
    ),
    "an exit": (
        lambda: ("throw", "an exit"),
        (FAILED, ERROR, RemoteError, "SystemExit: 3"),
    ),
    "a message of 5 MB": (
        lambda: ("throw", "much"),
        (FAILED, ERROR, ValueError, "x" * 5_000_000),
    ),
}


@pytest.mark.parametrize(("make", "expected"), BAD_JOBS.values(), ids=BAD_JOBS)
def test_what_does_not_travel_fails_only_its_job(make, expected):
    state, cause, kind, said = expected

    outcome = run_with(make()).by_key[BAD]

    assert (outcome.state, outcome.cause) == (state, cause)
    assert type(outcome.error) is kind
    assert said in str(outcome.error)
    assert outcome.value is None


def test_a_value_of_100_mb_arrives():
    outcome = run_with(("give", "100 MB")).by_key[BAD]

    assert outcome.state is JobState.DONE
    assert outcome.value == bytes(100_000_000)


def test_a_payload_of_100_mb_arrives():
    assert run_with(("accept", bytes(100_000_000))).by_key[BAD].value == "bytes"


def test_keys_need_not_be_hashable():
    run = Watched(jobs.perform, [("double", 1), ("double", 2)], job_key=list).run()

    assert sorted(o.key for o in run.outcomes) == [["double", 1], ["double", 2]]


def test_a_key_that_cannot_be_pickled_fails_only_its_job():
    def key_of(job):
        return threading.Lock() if job[1] == BAD else job[1]

    batch = [("double", number) for number in range(50)]
    run = Watched(jobs.perform, batch, worker_limit=2, job_key=key_of).run()

    assert run.report.done == 49
    (failed,) = [o for o in run.outcomes if not o.is_done]
    assert (failed.job, failed.cause) == (("double", BAD), UNSERIALISABLE)
    assert isinstance(failed.error, SerialisationError)
