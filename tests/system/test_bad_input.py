"""Bad input: a clear error, before any worker starts where possible."""

from __future__ import annotations

import asyncio
import threading

import pytest

from okanjo_conductor import Cause, Conductor, ConductorWorker, JobState, Retry, conduct
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    IntakeError,
    SerialisationError,
    WorkerStartError,
)

from . import programs


@pytest.fixture
def started(monkeypatch):
    """Collect the workers that are started; a test asserts that there are none."""
    from okanjo_conductor.clusters import _processes

    starts = []
    start_worker = _processes.ProcessCrew.start_worker

    def note(cluster, *args):
        starts.append(cluster)
        return start_worker(cluster, *args)

    monkeypatch.setattr(_processes.ProcessCrew, "start_worker", note)
    return starts


# The worker


def test_no_worker_given():
    with pytest.raises(ConfigurationError, match="no worker given"):
        Conductor()


@pytest.mark.parametrize("worker", [programs.Nothing, ConductorWorker])
def test_a_worker_without_process_job(worker):
    with pytest.raises(ConfigurationError, match="has no process_job"):
        Conductor(worker)


@pytest.mark.parametrize("worker", [dict, Exception])
def test_a_class_that_is_no_worker(worker):
    with pytest.raises(ConfigurationError, match="must be a ConductorWorker"):
        Conductor(worker)


@pytest.mark.parametrize("worker", [7, object(), [1]])
def test_something_that_cannot_be_called(worker):
    with pytest.raises(ConfigurationError, match="a function or 'module:name'"):
        Conductor(worker)


@pytest.mark.parametrize("worker", ["", "module", "module:", ":name"])
def test_a_name_that_is_none(worker):
    with pytest.raises(ConfigurationError, match='write "module:name"'):
        Conductor(worker)


def test_a_worker_that_can_neither_be_imported_nor_pickled():
    lock = threading.Lock()

    with pytest.raises(ConfigurationError, match="neither be imported"):
        Conductor(lambda _: lock)


def test_a_module_that_cannot_be_imported():
    with pytest.raises(ConfigurationError, match="no module 'no_such_module'"):
        Conductor("no_such_module:name")


def test_a_name_that_leads_nowhere():
    conductor = Conductor(f"{programs.__name__}:no_such_name", worker_limit=1, jobs_queue=[1])

    with pytest.raises(WorkerStartError, match="no_such_name"):
        conductor.run()

    assert list(conductor.jobs_queue) == [1]
    assert conductor.report is not None
    assert conductor.report.unstarted == 1


def test_lookups_that_are_no_dict():
    with pytest.raises(ConfigurationError, match="lookups"):
        Conductor(programs.square, lookups=[1])


class Forgetful(ConductorWorker):
    def __init__(self):
        """Forget the base class."""

    def process_job(self, job):
        return job


def test_a_worker_that_does_not_construct_its_base():
    with pytest.raises(WorkerStartError, match=r"Forgetful.__init__ does not call super"):
        Conductor(Forgetful, worker_limit=1, jobs_queue=[1], logging=False).run()


def test_a_worker_that_does_not_take_its_options():
    conductor = Conductor(
        programs.Lookups, worker_limit=1, jobs_queue=[1], worker_options={"colour": "red"}
    )

    with pytest.raises(WorkerStartError, match="colour"):
        conductor.run()


# Options


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
def test_a_worker_limit_that_is_no_number_of_workers(limit):
    with pytest.raises(ConfigurationError, match="worker_limit"):
        Conductor(programs.square, worker_limit=limit)


@pytest.mark.parametrize("env", [{"A": 1}, {1: "a"}, {"A": None}, {"A": b"bytes"}])
def test_a_worker_env_with_something_else_than_strings(env):
    with pytest.raises(ConfigurationError, match="worker_env"):
        Conductor(programs.square, worker_env=env)


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"": "x"}, {"A": "nul\0"}, {"A\0": "x"}])
def test_a_worker_env_that_no_process_can_have(env):
    with pytest.raises(ConfigurationError, match="worker_env"):
        Conductor(programs.square, worker_env=env)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("start_method", "forkserver"),
        ("abort_grace", -1),
        ("abort_grace", float("nan")),
        ("buffer", 0),
    ],
)
def test_an_option_that_makes_no_sense(option, value):
    with pytest.raises(ConfigurationError, match=option):
        Conductor(programs.square, **{option: value})


@pytest.mark.parametrize("option", ["errors", "crashes"])
@pytest.mark.parametrize("budget", [-1, 1.5, True])
def test_a_retry_budget_that_makes_no_sense(option, budget):
    with pytest.raises(ValueError, match=option):
        Retry(**{option: budget})


def test_worker_options_for_a_script_that_makes_its_own_worker(monkeypatch):
    monkeypatch.setattr("__main__.__file__", "script.py", raising=False)

    with pytest.raises(ConfigurationError, match="give them there"):
        Conductor(worker_type="script", worker_options={"a": 1})


def test_worker_options_that_cannot_be_pickled():
    with pytest.raises(ConfigurationError, match="worker_options"):
        Conductor(programs.Lookups, worker_options={"lock": threading.Lock()})


@pytest.mark.parametrize("jobs", [7, None, object()])
def test_a_jobs_queue_that_is_not_iterable(jobs):
    with pytest.raises(ConfigurationError, match="jobs_queue"):
        Conductor(programs.square, jobs_queue=jobs)


def test_generate_jobs_that_gives_something_else_than_jobs(started):
    conductor = Conductor(programs.square)
    conductor.generate_jobs = lambda: 7

    with pytest.raises((ConfigurationError, IntakeError), match="7"):
        conductor.run()

    assert started == []


# What cannot travel


@pytest.mark.parametrize("job", [threading.Lock(), (1, threading.Lock())])
def test_a_job_that_cannot_be_pickled_fails_alone(job):
    conductor = Conductor(
        programs.identity, worker_limit=1, jobs_queue=["a", job, "b"], job_key=lambda j: str(j)[:1]
    )

    first, bad, last = conductor.outcomes(ordered=True)

    assert (first.value, last.value) == ("a", "b")
    assert bad.state is JobState.FAILED
    assert bad.cause is Cause.UNSERIALISABLE
    assert isinstance(bad.error, SerialisationError)
    assert f"job {bad.key!r}" in str(bad.error)
    assert bad.attempts == 0
    assert bad.job is job


def test_only_jobs_that_cannot_be_pickled_start_no_worker():
    starts = []
    conductor = Conductor(programs.identity, jobs_queue=[threading.Lock()])
    conductor.on("worker_start", lambda *args: starts.append(args))

    report = conductor.run()

    assert report.counts[JobState.FAILED] == 1
    assert starts == []


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


def test_a_job_that_cannot_be_unpickled_in_the_worker_fails_alone():
    conductor = Conductor(programs.identity, worker_limit=1, jobs_queue=["a", Unreadable(), "b"])

    first, bad, last = conductor.outcomes(ordered=True)

    assert (first.value, last.value) == ("a", "b")
    assert isinstance(bad.error, SerialisationError)
    assert bad.cause is Cause.UNSERIALISABLE
    assert first.worker_id == last.worker_id


def test_a_value_that_cannot_be_pickled_fails_its_job_alone():
    conductor = Conductor(programs.return_a_lock, worker_limit=1, jobs_queue=["a", "lock", "b"])

    first, bad, last = conductor.outcomes(ordered=True)

    assert (first.value, last.value) == ("a", "b")
    assert isinstance(bad.error, SerialisationError)
    assert "_thread.lock" in str(bad.error)
    assert bad.cause is Cause.UNSERIALISABLE
    assert bad.key == 1
    assert first.worker_id == last.worker_id


def test_a_value_that_cannot_be_unpickled_in_the_conductor_fails_its_job_alone():
    conductor = Conductor(
        lambda job: Unreadable() if job == "bad" else job,
        worker_limit=1,
        jobs_queue=["a", "bad", "b"],
    )

    first, bad, last = conductor.outcomes(ordered=True)

    assert (first.value, last.value) == ("a", "b")
    assert isinstance(bad.error, SerialisationError)
    assert "cannot be unpickled in the conductor" in str(bad.error)


# Started at the wrong time or place


def test_start_twice():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])
    conductor.run()

    with pytest.raises(ConductorStateError, match="started already"):
        conductor.run()


def test_start_while_it_runs():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])

    async def main():
        return await asyncio.gather(conductor.start(), conductor.start(), return_exceptions=True)

    report, error = asyncio.run(main())

    assert report.done == 1
    assert isinstance(error, ConductorStateError)


@pytest.mark.parametrize(
    ("job", "said"),
    [("worker", "started in this process already"), ("conductor", "in a worker process")],
)
def test_start_inside_a_worker(job, said):
    (outcome,) = Conductor(programs.StartsTwice, worker_limit=1, jobs_queue=[job]).outcomes()

    assert isinstance(outcome.error, ConductorStateError)
    assert said in str(outcome.error)


def test_a_worker_started_outside_a_worker_process():
    with pytest.raises(ConductorStateError, match=r"is_worker\(\)"):
        programs.BasicWorker().start()


def test_conduct_refuses_what_a_conductor_refuses():
    with pytest.raises(ConfigurationError, match="worker_limit"):
        list(conduct(programs.square, [1], worker_limit=0))


def test_an_error_in_the_conductor_itself_still_emits_end():
    ends = []
    conductor = Conductor("json:no_such_name", worker_limit=1, jobs_queue=[1])
    conductor.on("end", lambda: ends.append(1))

    with pytest.raises(WorkerStartError):
        conductor.run()

    assert ends == [1]
