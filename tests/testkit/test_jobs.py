"""Each fate is met, and strikes as often as it was told to."""

from __future__ import annotations

import os
import signal

import pytest

from okanjo_conductor import Cause, Conductor, JobState, Retry
from okanjo_conductor.errors import RemoteError, SerialisationError, WorkerCrashError
from okanjo_conductor.testing import FateError, FateWorker, meet_fate

DONE, FAILED, QUARANTINED = JobState.DONE, JobState.FAILED, JobState.QUARANTINED
ENDS = {
    "done": (DONE, 1, None),
    "sleep 0.001": (DONE, 1, None),
    "leak 32MiB": (DONE, 1, None),
    "raise bad luck": (FAILED, 1, FateError),
    "raise once": (DONE, 2, None),
    "exit 3": (FAILED, 1, RemoteError),
    "_exit 0 once": (DONE, 2, None),
    "_exit 7 twice": (QUARANTINED, 2, WorkerCrashError),
    "SIGKILL once": (DONE, 2, None),
    "SIGTERM 1 times": (DONE, 2, None),
    "segfault once": (DONE, 2, None),
    "crash once": (DONE, 2, None),
    "unpicklable": (FAILED, 1, SerialisationError),
    "no such fate": (FAILED, 2, ValueError),
}


def test_jobs_meet_the_fate_they_name():
    conductor = Conductor(
        FateWorker,
        jobs_queue=ENDS,
        worker_limit=2,
        job_key=str,
        retry=Retry(errors=1, crashes=1, on=(FateError, ValueError)),
        logging=False,
    )
    conductor.on("error", lambda _: None)
    ends = {o.key: o for o in conductor.outcomes()}

    for job, (state, attempts, error) in ENDS.items():
        expected = (state, 2 if job == "raise bad luck" else attempts)
        assert (ends[job].state, ends[job].attempts) == expected, job
        assert error is None or isinstance(ends[job].error, error), job
    assert ends["SIGKILL once"].history[0].error.signal == "SIGKILL"
    assert ends["crash once"].history[0].error.code == 4


def test_a_large_value_is_as_large_as_it_was_told():
    assert len(meet_fate("large 3MiB")) == 3 << 20
    assert len(meet_fate(("key", "large 5kB".replace("k", "K")))) == 5000


def test_a_job_may_carry_a_key_of_yours():
    assert meet_fate((17, "done")) == (17, "done")
    assert meet_fate((17, "raise once"), attempt=2) == (17, "raise once")


def test_a_harmless_signal_harms_nobody():
    assert meet_fate("SIGWINCH") == "SIGWINCH"


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match="64MiB"):
        meet_fate("large much")


def test_crash_outside_a_worker_raises():
    with pytest.raises(FateError, match="boom"):
        meet_fate("crash boom")


def test_a_stopped_worker_stands_still_until_somebody_acts():
    child = os.fork()
    if child == 0:
        meet_fate("stop")
        os._exit(5)
    os.waitpid(child, os.WUNTRACED)
    os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_worker_whose_link_is_cut_is_replaced():
    conductor = Conductor(
        FateWorker, jobs_queue=["cut once", "done"], worker_limit=1, logging=False
    )
    conductor.on("error", lambda _: None)
    assert {(o.state, o.cause) for o in conductor.outcomes()} == {(DONE, None)}
    assert conductor.report.worker_exits[0].cause is Cause.CRASH
