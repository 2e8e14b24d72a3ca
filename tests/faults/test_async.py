"""Async workers: many jobs in flight in one process, and what becomes of the others."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from faults import async_jobs as jobs
from faults.harness import Watched, kill, lines_of, wait_for_lines
from faults.moments import touch, wait_until
from okanjo_conductor import (
    AsyncConductorWorker,
    Cause,
    Conductor,
    ConductorWorker,
    JobState,
    Loading,
    Recycle,
    Retry,
    conduct,
)
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    JobCancelledError,
    JobMemoryError,
    JobTimeoutError,
    RemoteError,
    SerialisationError,
    UnknownLookupError,
    WorkerCrashError,
    WorkerStartError,
)

LIMIT = 0.3
"""Seconds: long enough for any of the quick jobs beside it, on any machine."""
NEIGHBOURS = 20


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request, tmp_path, monkeypatch):
    """Have workers use that event loop."""
    if request.param == "asyncio":
        tmp_path.joinpath("uvloop.py").write_text("raise ImportError")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        pytest.importorskip("uvloop")
    return request.param


def run_beside(then, *, after=5, **options):
    """Run a job that does something among others that wait; return it and those."""
    batch = [("beside", NEIGHBOURS + 1)] * NEIGHBOURS
    batch.insert(after, ("beside", NEIGHBOURS + 1, then))
    run = Watched(jobs.perform, batch, worker_limit=1, **options).run()
    outcomes = run.by_key
    return run, outcomes.pop(after), list(outcomes.values())


def causes(outcome):
    return [attempt.cause for attempt in outcome.history]


# Blame


def test_of_many_in_flight_exactly_the_one_that_exits_is_quarantined(loop):
    run, killer, others = run_beside("exits")
    assert killer.state is JobState.QUARANTINED
    assert causes(killer) == [Cause.SUSPECT] + [Cause.CRASH] * 3
    assert isinstance(killer.error, WorkerCrashError)
    assert {o.state for o in others} == {JobState.DONE}
    assert {tuple(causes(o)) for o in others} == {(Cause.SUSPECT,)}
    first, *later = [end for end in run.exits if end.cause]
    assert (first.key, len(first.keys)) == (None, NEIGHBOURS + 1)
    assert [end.key for end in later] == [killer.key] * 3


def test_the_only_one_in_flight_is_charged_at_once():
    run = Watched(jobs.perform, [("beside", 1, "exits")], retry=Retry(crashes=0)).run()
    (outcome,) = run.outcomes
    assert (outcome.state, causes(outcome)) == (JobState.QUARANTINED, [Cause.CRASH])


def test_a_worker_killed_with_many_in_flight_loses_nothing_and_nobody_is_charged(tmp_path):
    log, go = tmp_path / "log", tmp_path / "go"
    batch = [("noted", str(log), str(go), number) for number in range(300)]
    run = Watched(jobs.perform, batch, worker_limit=2, concurrency=20)

    def strike():
        wait_for_lines(log, 40)  # both are full
        kill(run.pids[1])
        wait_until(lambda: run.exits, "its end is known")
        touch(go)

    thread = threading.Thread(target=strike)
    thread.start()
    run.run()
    thread.join()
    assert {o.state for o in run.by_key.values()} == {JobState.DONE}
    struck = [o for o in run.outcomes if o.history]
    assert len(struck) == 20
    assert {tuple(causes(o)) for o in struck} == {(Cause.SUSPECT,)}
    assert len(lines_of(log)) == 320


def test_a_job_that_takes_too_much_memory_is_found_among_its_neighbours():
    _, culprit, others = run_beside("swells", max_rss=300 << 20, retry=Retry(memory=0))
    assert culprit.state is JobState.FAILED
    assert causes(culprit) == [Cause.SUSPECT, Cause.MEMORY]
    assert isinstance(culprit.error, JobMemoryError)
    assert {o.state for o in others} == {JobState.DONE}
    assert {tuple(causes(o)) for o in others} == {(Cause.SUSPECT,)}


# Time limits


def test_a_job_beyond_its_limit_is_cancelled_and_the_worker_lives(tmp_path, loop):
    path = tmp_path / "log"
    batch = [("double", 1), ("tidy_up_when_cancelled", str(path)), ("double", 2)]
    run = Watched(jobs.perform, batch, worker_limit=1, job_timeout=LIMIT, timeout_grace=60).run()
    late = run.by_key[1]
    assert (late.state, causes(late)) == (JobState.FAILED, [Cause.TIMEOUT])
    assert isinstance(late.error, JobTimeoutError)
    assert late.error.limit == LIMIT
    assert "in tidy_up_when_cancelled" in late.stack
    assert "okanjo_conductor/_" not in late.stack
    assert lines_of(path) == ["tidied up"]
    assert [run.by_key[key].value for key in (0, 2)] == [2, 4]
    assert run.report.workers_lost == 0


def test_a_job_that_blocks_the_loop_is_charged_and_no_other_that_is_late_for_that(loop):
    run, culprit, others = run_beside(
        "blocks the loop", job_timeout=LIMIT, timeout_grace=0.2, retry=Retry(timeouts=0)
    )
    assert (culprit.state, causes(culprit)) == (JobState.FAILED, [Cause.TIMEOUT])
    assert "in beside" in culprit.stack
    assert "_async_runtime" not in culprit.stack
    assert {o.state for o in others} == {JobState.DONE}
    assert {tuple(causes(o)) for o in others} == {(Cause.PREEMPTED,)}
    (lost,) = run.report.worker_exits
    assert lost.cause is Cause.TIMEOUT


def test_a_job_that_refuses_to_be_cancelled_takes_its_worker_with_it():
    run = Watched(
        jobs.perform,
        [("refuse_to_be_cancelled",), ("double", 1)],
        worker_limit=1,
        job_timeout=LIMIT,
        timeout_grace=0.2,
    ).run()
    assert causes(run.by_key[0]) == [Cause.TIMEOUT]
    assert run.by_key[1].value == 2
    assert run.report.workers_lost == 1


# Cancelling, stopping, recycling


def test_a_job_in_flight_is_cancelled_and_its_neighbours_go_on(tmp_path):
    log, go = tmp_path / "log", tmp_path / "go"
    batch = [("noted", str(log), str(go), number) for number in range(10)]
    run = Watched(jobs.perform, batch, worker_limit=1)

    def strike():
        wait_for_lines(log, 10)
        assert run.conductor.cancel(3)
        wait_until(lambda: run.outcomes, "it is cancelled")
        touch(go)

    thread = threading.Thread(target=strike)
    thread.start()
    run.run()
    thread.join()
    cancelled = run.by_key[3]
    assert cancelled.state is JobState.CANCELLED
    assert isinstance(cancelled.error, JobCancelledError)
    assert sum(o.attempts for o in run.outcomes) == 10
    assert run.report.workers_lost == 0


def test_a_drain_lets_those_in_flight_end_and_gives_back_the_rest(tmp_path):
    log, go = tmp_path / "log", tmp_path / "go"
    batch = [("noted", str(log), str(go), number) for number in range(30)]
    run = Watched(jobs.perform, batch, worker_limit=1, concurrency=5)

    def strike():
        wait_for_lines(log, 5)
        run.conductor.drain()
        touch(go)

    thread = threading.Thread(target=strike)
    thread.start()
    run.run()
    thread.join()
    assert run.report.done + run.report.unstarted == 30
    assert run.report.done == len(lines_of(log)) >= 5


def test_an_abort_ends_all_that_are_in_flight(tmp_path):
    log = tmp_path / "log"
    batch = [("noted", str(log), str(tmp_path / "never"), number) for number in range(30)]
    run = Watched(jobs.perform, batch, worker_limit=1, concurrency=5, abort_grace=0.1)

    def strike():
        wait_for_lines(log, 5)
        run.conductor.abort()

    thread = threading.Thread(target=strike)
    thread.start()
    run.run()
    thread.join()
    assert {o.state for o in run.outcomes} == {JobState.CANCELLED}
    assert len(run.outcomes) == 5
    assert run.report.unstarted == 25


def test_a_recycled_worker_finishes_what_is_in_flight():
    run = Watched(
        jobs.perform,
        [("count_in_flight",)] * 60,
        worker_limit=1,
        concurrency=5,
        recycle=Recycle(jobs=20),
    ).run()
    assert run.report.done == 60
    assert run.report.workers_started == 3
    assert {o.attempts for o in run.outcomes} == {1}


# Jobs that misbehave


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("sys.exit", RemoteError),
        ("KeyboardInterrupt", RemoteError),
        ("cancels itself", RemoteError),
        ("exits in a task", RemoteError),
        ("exits in a callback", ValueError),
        ("stops the loop", ValueError),
        ("LATER", ConductorStateError),
        ("unpicklable", SerialisationError),
    ],
)
def test_a_job_that_misbehaves_fails_alone(how, error, loop):
    batch = [("double", 1), ("misbehave", how), *[("double", 2)] * 10]
    run = Watched(jobs.perform, batch, worker_limit=1, concurrency=3).run()
    outcomes = run.by_key
    failed = outcomes.pop(1)
    assert failed.state is JobState.FAILED
    assert isinstance(failed.error, error)
    assert {o.state for o in outcomes.values()} == {JobState.DONE}
    assert run.report.workers_lost == 0


def test_tasks_that_a_job_cancels_are_ends_of_jobs_and_not_of_the_worker(loop):
    batch = [("together", 3), ("cancel_everything", 3), ("together", 3), *[("double", 2)] * 10]
    run = Watched(jobs.perform, batch, worker_limit=1, concurrency=3).run()
    assert len(run.by_key) == 13
    assert "CancelledError" in str(run.by_key[1].error)
    assert run.by_key[12].value == 4
    assert run.report.workers_lost == 0


@pytest.mark.parametrize(
    "what", ["waits", "refuses", "exits", "stops the loop", "forgets the loop"]
)
def test_what_a_job_leaves_behind_does_not_keep_the_worker(what, loop):
    run = Watched(jobs.perform, [("leave_behind", what)]).run()
    assert run.report.done == 1
    assert [end.cause for end in run.exits] == [None]


def test_no_job_sees_what_another_one_has_set_in_its_context():
    batch = [("set_what_the_next_might_see", number) for number in range(10)]
    assert set(conduct(jobs.perform, batch, worker_limit=1, concurrency=2)) == {None}


# Talking


def talk(*names, **options):
    conductor = Conductor(jobs.Talker, jobs_queue=names, worker_limit=1, **options)
    conductor.lookups["squares"] = {number: number**2 for number in range(10)}
    conductor.command("double")(lambda msg: 2 * msg.data)

    @conductor.command("refuse")
    async def refuse(_msg):
        raise ValueError("no")

    @conductor.command("never")
    async def never(_msg):
        await asyncio.Event().wait()

    conductor.on("error", lambda _: None)
    return conductor


def value_of(name):
    (outcome,) = talk(name).outcomes()
    return outcome.result()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("look_up", (25, "none")),
        ("look_many_up", {1: 1, 2: 4}),
        ("set_and_look_up", 7),
        ("count_up", ([2, 3, 4, 5, 6], True)),
        ("ask", [0, 2, 4, 6, 8]),
        ("ask_with_a_callback", (8, 8)),
        ("ask_many_in_vain", 0),
        ("ask_and_let_nobody_see_the_reply", 100),
    ],
)
def test_lookups_and_requests_are_awaited(name, value, loop):
    assert value_of(name) == value


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("look_up_nowhere", UnknownLookupError, "cubes"),
        ("ask_and_be_refused", ValueError, "no"),
        ("ask_in_vain", TimeoutError, "no reply within 0.01 s"),
        ("complete", ConductorStateError, r"complete_job\(\) is for a ConductorWorker"),
        ("get_next", ConductorStateError, r"get_next_job\(\) is for a ConductorWorker"),
    ],
)
def test_what_goes_wrong_is_raised_where_it_is_awaited(name, error, text):
    with pytest.raises(error, match=text):
        value_of(name)


def test_a_function_that_exits_while_it_makes_an_entry_fails_the_job_that_waits():
    conductor = talk("look_up_what_exits")
    conductor.lookups["made here"] = Loading(sys.exit, in_worker=True)
    (outcome,) = conductor.outcomes()
    assert (outcome.state, outcome.attempts) == (JobState.FAILED, 1)
    assert "SystemExit" in str(outcome.error)


def test_an_interruption_in_our_own_code_ends_the_worker_and_keeps_no_job_waiting(tmp_path, loop):
    conductor = Conductor(
        jobs.Interrupted,
        jobs_queue=[1, 2],
        worker_limit=1,
        concurrency=1,
        worker_options={"once": str(tmp_path / "once")},
    )
    conductor.command("double")(lambda msg: 2 * msg.data)
    conductor.on("error", lambda _: None)
    first, second = conductor.outcomes(ordered=True)
    assert (first.value, causes(first)) == (2, [Cause.CRASH])
    assert (second.value, causes(second)) == (4, [])


def test_messages_are_handled_while_jobs_are_in_flight(caplog):
    conductor = talk("await_a_message")
    conductor.on("worker_start", lambda worker, _: greet(conductor, worker))
    (outcome,) = conductor.outcomes()
    assert outcome.value == "arrived"
    assert "the handler of command 'raise' raised" in caplog.text


def greet(conductor, worker_id):
    conductor.send_message_to_worker(worker_id, "raise")
    conductor.send_message_to_worker(worker_id, "hello")


def test_an_async_handler_answers_requests_while_a_job_is_in_flight():
    conductor = talk("await_a_message")
    replies = []

    @conductor.command("in flight")
    async def on_in_flight(msg):
        for cmd in ("triple", "raise", "cancelled", "missing"):
            try:
                replies.append(await conductor.request_worker(msg.worker_id, cmd, 5))
            except Exception as error:
                replies.append(type(error))
        conductor.send_message_to_worker(msg.worker_id, "hello")

    (outcome,) = conductor.outcomes()
    assert outcome.value == "arrived"
    assert replies == [15, ValueError, RemoteError, None]


def test_jobs_in_flight_add_jobs_each_in_an_order_of_its_own():
    run = Watched(jobs.perform, [("grow", 3)] * 4, worker_limit=2, concurrency=8).run()
    assert run.report.done == len(run.by_key) == 4 * (1 + 2 + 4 + 8)


def test_jobs_that_a_killed_attempt_has_added_are_not_added_twice():
    batch = [("add_and_then", NEIGHBOURS)] * NEIGHBOURS
    batch[7] = ("add_and_then", NEIGHBOURS, "exits")
    run = Watched(jobs.perform, batch, worker_limit=1, retry=Retry(crashes=1)).run()
    outcomes = run.by_key
    assert outcomes[7].state is JobState.QUARANTINED
    assert run.report.done == NEIGHBOURS - 1 + 2 * NEIGHBOURS


def test_each_job_in_flight_tells_of_its_progress():
    conductor = Conductor(
        jobs.perform, jobs_queue=[("make_progress",)] * 3, worker_limit=1, concurrency=3
    )
    told = []
    conductor.on("job_progress", told.append)
    assert conductor.run().done == 3
    assert {(p.key, p.fraction, p.text) for p in told} == {
        (key, fraction, text) for key in range(3) for fraction, text in ((0.1, "a"), (0.9, "c"))
    }


def test_a_job_and_its_tasks_know_which_one_they_are():
    conductor = talk("tell_job", "tell_job")
    for outcome in conductor.outcomes():
        job, seen = outcome.result()
        assert job == seen
        assert (job.key, job.attempt) == (outcome.key, 1)


def test_crash_ends_an_async_worker_too():
    (outcome,) = talk("give_up", retry=Retry(crashes=0)).outcomes()
    assert "no use" in str(outcome.error)


def test_setup_and_teardown_await_as_well(tmp_path):
    path = tmp_path / "log"
    assert talk("look_up", worker_options={"log": str(path)}).run().done == 1
    assert lines_of(path) == ["[9, 16]"]


# Options


def test_values_that_are_larger_than_the_link_takes_at_once_arrive(loop):
    sizes = [1 << 24] * 5
    run = Watched(jobs.perform, [("make_bytes", size) for size in sizes], worker_limit=1).run()
    assert [len(o.value) for o in run.outcomes if o.value is not None] == sizes
    assert run.report.workers_lost == 0


@pytest.mark.parametrize("concurrency", [1, 7])
def test_as_many_are_in_flight_as_was_asked_for(concurrency):
    batch = [("count_in_flight",)] * 100
    values = list(conduct(jobs.perform, batch, worker_limit=1, concurrency=concurrency))
    assert max(values) == concurrency
    assert len(values) == 100


def test_the_number_may_stand_in_the_class_or_be_given_to_it_or_to_the_conductor():
    assert jobs.Talker().concurrency == 4
    assert jobs.Talker(concurrency=5).concurrency == 5
    assert AsyncConductorWorker.concurrency == 100
    assert talk("look_up", concurrency=6, worker_options={"concurrency": 5}).run().done == 1


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "3"])
def test_a_number_that_is_none_is_refused(concurrency):
    with pytest.raises(ConfigurationError, match="a whole number of jobs, from 1"):
        Conductor(jobs.perform, concurrency=concurrency)
    with pytest.raises(ConfigurationError, match="a whole number of jobs, from 1"):
        jobs.Talker(concurrency=concurrency)


class Serial(ConductorWorker):
    def process_job(self, job):
        return job


class Confused(ConductorWorker):
    async def process_job(self, job):
        return job


@pytest.mark.parametrize("worker", [len, Serial])
def test_only_async_workers_can_have_several_in_flight(worker):
    with pytest.raises(ConfigurationError, match="executes one job at a time"):
        Conductor(worker, concurrency=3)


def test_a_worker_that_turns_out_not_to_be_async_does_not_start():
    conductor = Conductor("faults.jobs:double", jobs_queue=[1], concurrency=3)
    conductor.on("error", lambda _: None)
    with pytest.raises(WorkerStartError, match="double is not async"):
        conductor.run()


def test_an_async_process_job_needs_an_async_worker():
    with pytest.raises(ConfigurationError, match="use AsyncConductorWorker"):
        Conductor(Confused)


def test_a_script_gives_the_number_itself():
    with pytest.raises(ConfigurationError, match="the script makes its own worker"):
        Conductor(worker_type="other", concurrency=3)


def test_a_setup_that_fails_fails_the_start():
    conductor = Conductor(jobs.BadSetup, jobs_queue=[1])
    conductor.on("error", lambda _: None)
    with pytest.raises(WorkerStartError, match="not today"):
        conductor.run()


def test_functions_are_awaited_in_any_order_and_may_be_sorted():
    batch = [("double", number) for number in range(500)]
    assert list(conduct(jobs.perform, batch, ordered=True)) == [2 * n for n in range(500)]
