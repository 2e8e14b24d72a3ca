"""What does not travel fails its own job, and no other."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from faults import jobs
from faults.harness import Watched
from okanjo_conductor import Cause, Conductor, JobState
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
    "a payload that leaves the conductor": (
        lambda: ("accept", jobs.Stays("leaves")),
        (FAILED, UNSERIALISABLE, SerialisationError, "SystemExit: 5"),
    ),
    "a payload that raises no Exception in the conductor": (
        lambda: ("accept", jobs.Stays("is odd")),
        (FAILED, UNSERIALISABLE, SerialisationError, "OddError"),
    ),
    "a payload of 6 GiB": (
        lambda: ("accept", jobs.untouched(6 << 30)),
        (FAILED, UNSERIALISABLE, SerialisationError, "6.0 GiB pickled"),
    ),
    "a value of 6 GiB": (
        lambda: ("give", "6 GiB"),
        (FAILED, UNSERIALISABLE, SerialisationError, "6.0 GiB pickled"),
    ),
    "a value that leaves the worker": (
        lambda: ("give", "a value that stays"),
        (FAILED, UNSERIALISABLE, SerialisationError, "SystemExit: 5"),
    ),
    "a value that raises no Exception in the worker": (
        lambda: ("give", "an odd value that stays"),
        (FAILED, UNSERIALISABLE, SerialisationError, "OddError"),
    ),
    "an exception that raises no Exception when pickled": (
        lambda: ("throw", "badly pickled"),
        (FAILED, ERROR, RemoteError, "BadlyBuiltError: badly built"),
    ),
    "an exception that raises no Exception when rebuilt": (
        lambda: ("throw", "badly rebuilt"),
        (FAILED, ERROR, RemoteError, "BadlyBuiltError: badly built"),
    ),
    "an exception that leaves when rebuilt and shown": (
        lambda: ("throw", "badly shown"),
        (FAILED, ERROR, RemoteError, "BadlyBuiltError: (its message cannot be shown)"),
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


BROKEN_PARTS = {
    "payload, pickled": (
        lambda: ("accept", {"model": jobs.Model(threading.Lock())}),
        ("payload[1]['model'].layers[1]['inner']", "_thread.lock"),
        "cannot be sent to a worker",
    ),
    "payload, unpickled": (
        lambda: ("accept", {"model": jobs.Model(jobs.Fails("leaves"))}),
        ("payload[1]['model'].layers[1]['inner']", "faults.jobs.fail"),
        "cannot be unpickled in the worker",
    ),
    "value, pickled": (
        lambda: ("give", "a hidden lock"),
        ("value.layers[1]['inner']", "_thread.lock"),
        "cannot be sent to the conductor",
    ),
    "value, pickled by value": (
        lambda: ("give", "a function"),
        ("value.__closure__[0].cell_contents", "_thread.lock"),
        "cannot be sent to the conductor",
    ),
    "value, unpickled": (
        lambda: ("give", "a hidden failure"),
        ("value[1].layers[1]['inner']", "faults.jobs.fail"),
        "cannot be unpickled in the conductor",
    ),
}


@pytest.mark.parametrize(("make", "part", "said"), BROKEN_PARTS.values(), ids=BROKEN_PARTS)
def test_the_error_tells_the_key_the_path_and_the_type(make, part, said):
    began = time.monotonic()
    error = run_with(make()).by_key[BAD].error

    assert time.monotonic() - began < 10
    assert (error.path, error.part_type) == part
    for fact in (f"job {BAD}:", said, *part):
        assert fact in str(error)


def test_a_large_value_is_searched_for_seconds_only():
    payload = ("accept", [[number] for number in range(2_000_000)] + [threading.Lock()])
    began = time.monotonic()
    error = run_with(payload).by_key[BAD].error

    assert time.monotonic() - began < 20
    assert "cannot pickle '_thread.lock' object. Which part of it broke could not be" in str(error)


def test_what_was_lost_of_an_exception_is_told():
    error = run_with(("throw", "unpicklable")).by_key[BAD].error
    assert "cannot pickle '_thread.lock' object (error.lock, a _thread.lock)" in error.lost
    assert error.__notes__ == [error.lost]

    error = run_with(("throw", "picky")).by_key[BAD].error
    assert "missing 1 required positional argument" in error.lost


def test_an_exception_that_cannot_be_shown_arrives_and_is_reported():
    run = run_with(("throw", "unshowable"))

    assert type(run.by_key[BAD].error) is jobs.UnshowableError
    assert "UnshowableError: (its message cannot be shown)" in str(run.report)


@pytest.mark.parametrize("kind", ["Fails", "Stays"])
@pytest.mark.parametrize("how", ["leaves", "is odd", "raises"])
def test_a_log_record_that_does_not_travel_is_lost_alone(kind, how):
    assert run_with(("log_with", kind, how)).by_key[BAD].value == "logged"


class Postman(Conductor):
    """Gets and sends what does not travel."""

    def on_worker_message(self, worker_id, msg):
        if msg.cmd == "receive":
            kind, how = msg.data
            data = getattr(jobs, kind)(how)
            self.send_message_to_worker(worker_id, "taken", data, msg.callback)


@pytest.mark.parametrize("how", ["leaves", "is odd", "raises"])
def test_a_message_that_does_not_travel_fails_its_request_alone(how):
    batch = [("double", 1), ("send", "Fails", how), ("receive", "Fails", how), ("double", 2)]
    conductor = Postman(jobs.Reporter, jobs_queue=batch, worker_limit=1, logging=False)

    first, sent, received, last = conductor.outcomes(ordered=True)

    assert (first.value, last.value) == (2, 4)
    assert first.worker_id == last.worker_id
    for failed, said in ((sent, "in the conductor"), (received, "data from the conductor")):
        assert isinstance(failed.error, SerialisationError)
        assert said in str(failed.error)


def test_payloads_and_values_that_hold_themselves_arrive():
    assert run_with(("accept", jobs.endless())).by_key[BAD].value == "list"

    value = run_with(("give", "an endless value")).by_key[BAD].value
    assert value[0] == 1
    assert value[1] is value


def test_a_value_of_100_mb_arrives():
    outcome = run_with(("give", "100 MB")).by_key[BAD]

    assert outcome.state is JobState.DONE
    assert outcome.value == bytes(100_000_000)


def test_a_payload_of_100_mb_arrives():
    assert run_with(("accept", bytes(100_000_000))).by_key[BAD].value == "bytes"


def test_keys_need_not_be_hashable():
    run = Watched(jobs.perform, [("double", 1), ("double", 2)], job_key=list).run()

    assert sorted(o.key for o in run.outcomes) == [["double", 1], ["double", 2]]


@pytest.mark.parametrize(
    ("make", "path", "said"),
    [
        (threading.Lock, "key", "cannot be sent to a worker"),
        (lambda: (1, jobs.Stays("leaves")), "key[1]", "cannot be sent to a worker"),
        (lambda: (1, jobs.Fails("leaves")), "key[1]", "cannot be unpickled"),
        (lambda: (1, jobs.Fails("is odd")), "key[1]", "cannot be unpickled"),
    ],
    ids=["a lock", "leaves when pickled", "leaves when unpickled", "raises no Exception"],
)
def test_a_key_that_does_not_travel_fails_only_its_job(make, path, said):
    def key_of(job):
        return make() if job[1] == BAD else job[1]

    batch = [("double", number) for number in range(50)]
    run = Watched(jobs.perform, batch, worker_limit=2, job_key=key_of).run()

    assert run.report.done == 49
    (failed,) = [o for o in run.outcomes if not o.is_done]
    assert (failed.job, failed.cause) == (("double", BAD), UNSERIALISABLE)
    assert isinstance(failed.error, SerialisationError)
    assert failed.error.path == path
    assert said in str(failed.error)


class ReadableHere:
    """A key that only this process can unpickle."""

    def __init__(self):
        self.pid = os.getpid()

    def __setstate__(self, state):
        if os.getpid() != state["pid"]:
            sys.exit(9)


def test_a_key_that_only_the_worker_cannot_unpickle_spoils_no_job(capfd):
    keys = [ReadableHere(), 1, 2]
    batch = [("double", 0), ("double", 1), ("accept", b"x" * 100_000)]
    run = Watched(
        jobs.perform, batch, worker_limit=1, job_key=lambda job: keys[batch.index(job)]
    ).run()

    assert run.report.done == 3
    assert run.exits[0].cause is None
