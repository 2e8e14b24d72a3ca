"""Limits of time, memory and patience, with real workers that do not keep to them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import threading
import time

import pytest

from faults import jobs
from faults.harness import Watched, lines_of, start_script, wait_for_lines
from faults.moments import state_of, wait_until
from okanjo_conductor import Cause, Conductor, JobState, Recycle, Retry
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    IntakeError,
    JobCancelledError,
    JobMemoryError,
    JobTimeoutError,
    TooManyFailuresError,
    WorkerCrashError,
)

LIMIT = 0.3
"""Seconds: long enough for any of the quick jobs beside it, on any machine."""


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: state_of(pid) in ("", "Z"), f"process {pid} is gone")


# Time


@pytest.mark.parametrize("how", ["sleeps", "ignores SIGTERM", "C code"])
def test_a_job_beyond_its_limit_ends_with_its_stack_and_its_neighbours_are_unharmed(how, tmp_path):
    running = tmp_path / "running"
    batch = [("double", number) for number in range(40)]
    batch[20] = ("be_busy", str(running), how)

    run = Watched(jobs.perform, batch, worker_limit=2, job_timeout=LIMIT, timeout_grace=0.2).run()

    outcomes = run.by_key
    late = outcomes.pop(20)
    assert (late.state, late.cause, late.attempts) == (JobState.FAILED, Cause.TIMEOUT, 1)
    assert isinstance(late.error, JobTimeoutError)
    assert late.error.limit == LIMIT
    assert "in be_busy" in late.stack
    assert "_run_batch" not in late.stack
    assert {o.attempts for o in outcomes.values()} == {1}
    assert {o.state for o in outcomes.values()} == {JobState.DONE}
    (lost,) = run.report.worker_exits
    assert (lost.cause, lost.key) == (Cause.TIMEOUT, 20)
    assert lost.signal == ("SIGKILL" if how == "ignores SIGTERM" else "SIGTERM")


def test_what_a_job_has_started_ends_with_it(tmp_path):
    path = tmp_path / "child"
    Watched(jobs.perform, [("start_a_child_and_wait", str(path))], job_timeout=LIMIT).run()
    wait_until_gone(int(lines_of(path)[0]))


def test_a_stopped_worker_is_killed_at_the_limit(tmp_path):
    run = Watched(jobs.perform, [("die", "stop")], job_timeout=LIMIT, timeout_grace=0.1).run()
    assert run.outcomes[0].cause is Cause.TIMEOUT
    assert run.exits[0].signal == "SIGKILL"


def test_within_a_job_a_soft_limit_is_an_exception_and_the_worker_lives(tmp_path):
    batch = [("clean_up_when_interrupted", str(tmp_path / "running")), ("process_id",)]
    run = Watched(
        jobs.perform, batch, worker_limit=1, job_timeout=LIMIT, soft_timeout=True, timeout_grace=60
    ).run()
    assert run.by_key[0].value == "tidied up"
    assert str(run.by_key[1].value) == lines_of(tmp_path / "running")[0]
    assert run.report.workers_lost == 0


def test_a_soft_limit_that_the_job_does_not_catch_fails_it(tmp_path):
    batch = [("be_busy", str(tmp_path / "running"), "sleeps"), ("process_id",)]
    run = Watched(
        jobs.perform, batch, worker_limit=1, job_timeout=LIMIT, soft_timeout=True, timeout_grace=60
    ).run()
    late = run.by_key[0]
    assert (late.state, late.cause) == (JobState.FAILED, Cause.TIMEOUT)
    assert "in be_busy" in late.stack
    assert "in be_busy" in str(late.error.__cause__)
    assert str(run.by_key[1].value) == lines_of(tmp_path / "running")[0]


@pytest.mark.parametrize("function", [time.sleep, jobs.Sleeper()])
def test_what_is_not_written_in_python_is_interrupted_too(function):
    conductor = Conductor(
        function, jobs_queue=[3600], job_timeout=LIMIT, soft_timeout=True, timeout_grace=60
    )
    (outcome,) = conductor.outcomes()
    assert outcome.cause is Cause.TIMEOUT
    assert conductor.report is not None
    assert conductor.report.workers_lost == 0


def test_a_job_that_waits_for_a_reply_is_interrupted_there():
    run = Watched(jobs.Reporter, [("ask",)], job_timeout=LIMIT, soft_timeout=True, timeout_grace=60)

    @run.conductor.command("asked")
    async def never(_message):
        await wait_for_ever()

    run.run()
    assert run.outcomes[0].cause is Cause.TIMEOUT
    assert run.report.workers_lost == 0


async def wait_for_ever():
    await asyncio.Event().wait()


def test_c_code_that_does_not_hear_a_soft_limit_is_ended_by_force(tmp_path):
    batch = [("sleep_in_c", str(tmp_path / "running"))]
    run = Watched(
        jobs.perform, batch, job_timeout=LIMIT, soft_timeout=True, timeout_grace=0.2
    ).run()
    assert run.outcomes[0].cause is Cause.TIMEOUT
    assert "in sleep_in_c" in run.outcomes[0].stack
    assert run.exits[0].signal == "SIGTERM"


def test_each_job_may_have_a_limit_of_its_own(tmp_path):
    batch = [("be_busy", str(tmp_path / "running"), "sleeps"), ("double", 1)]
    run = Watched(
        jobs.perform, batch, job_timeout=lambda job: LIMIT if job[0] == "be_busy" else None
    ).run()
    assert run.by_key[0].cause is Cause.TIMEOUT
    assert run.by_key[1].value == 2


def test_a_job_that_is_added_may_have_a_limit_of_its_own(tmp_path):
    run = Watched(jobs.perform, [("double", 1)])
    late = ("be_busy", str(tmp_path / "running"), "sleeps")
    run.conductor.once("job_done", lambda _: run.conductor.add_job(late, key="late", timeout=LIMIT))
    run.run()
    assert run.by_key["late"].cause is Cause.TIMEOUT


def test_a_timeout_may_be_tried_again(tmp_path):
    batch = [("be_busy", str(tmp_path / "running"), "sleeps")]
    run = Watched(jobs.perform, batch, job_timeout=LIMIT, retry=Retry(timeouts=1)).run()
    assert [attempt.cause for attempt in run.outcomes[0].history] == [Cause.TIMEOUT] * 2
    assert len(lines_of(tmp_path / "running")) == 2


def test_a_function_of_limits_that_makes_no_sense_breaks_the_source():
    conductor = Conductor(jobs.double, jobs_queue=[1], job_timeout=lambda job: -1)
    with pytest.raises(IntakeError, match="seconds, more than 0"):
        conductor.run()


def test_a_job_that_takes_long_is_told_with_its_stack(tmp_path, caplog):
    stuck = []
    running = tmp_path / "running"
    run = Watched(
        jobs.perform, [("be_busy", str(running), "C code")], stuck_after=0.1, abort_grace=0.1
    )

    @run.conductor.on("worker_stuck")
    def note(report):
        if report.key is not None:  # not the start, on a slow machine
            stuck.append(report)
            run.conductor.abort()

    with caplog.at_level(logging.WARNING):
        run.run()
    (report,) = stuck
    assert (report.key, report.slot) == (0, 0)
    assert report.seconds > 0.09
    assert "in be_busy" in report.stack
    assert "has been executing job 0" in caplog.text


# Memory


def test_a_job_that_takes_too_much_memory_is_killed_and_charged_with_it(tmp_path):
    path = str(tmp_path / "held")
    batch = [("double", 1), ("hold", 400, path), ("double", 2)]
    run = Watched(jobs.perform, batch, worker_limit=1, max_rss=200 << 20).run()
    large = run.by_key[1]
    assert (large.state, large.cause, large.attempts) == (JobState.FAILED, Cause.MEMORY, 2)
    assert isinstance(large.error, JobMemoryError)
    assert large.error.rss > large.error.limit == 200 << 20
    assert "max_rss" in str(large.error)
    assert run.by_key[2].value == 4


# Recycling


def test_each_job_may_have_a_process_of_its_own():
    run = Watched(
        jobs.perform, [("process_id",)] * 12, worker_limit=2, recycle=Recycle(jobs=1)
    ).run()
    assert len({o.value for o in run.outcomes}) == 12
    assert {o.attempts for o in run.outcomes} == {1}
    assert run.report.workers_lost == 0


def test_a_worker_does_as_many_jobs_as_it_may():
    run = Watched(
        jobs.perform, [("process_id",)] * 20, worker_limit=1, recycle=Recycle(jobs=6)
    ).run()
    counts = [sum(o.value == pid for o in run.outcomes) for pid in {o.value for o in run.outcomes}]
    assert max(counts) <= 6
    assert sum(counts) == 20


def test_the_old_worker_leaves_when_the_new_one_is_ready(tmp_path):
    events = []
    run = Watched(jobs.perform, [("nap", 0.02)] * 40, worker_limit=1, recycle=Recycle(seconds=0.15))
    run.conductor.on("worker_start", lambda worker, _: events.append(("start", worker)))
    run.conductor.on("worker_exit", lambda end: events.append(("exit", end.worker_id)))
    run.run()
    assert events.index(("start", 2)) < events.index(("exit", 1))
    assert run.report.done == 40
    assert {o.attempts for o in run.outcomes} == {1}
    assert run.report.workers_lost == 0


def test_a_worker_that_has_grown_is_recycled_between_jobs():
    batch = [("grow", 150)] + [("nap", 0.05)] * 20
    run = Watched(jobs.perform, batch, worker_limit=1, recycle=Recycle(rss=120 << 20)).run()
    assert run.report.done == 21
    assert run.report.workers_started >= 2
    assert run.report.workers_lost == 0


# Cancelling, resizing, draining


def test_a_job_in_execution_is_cancelled(tmp_path):
    running = tmp_path / "running"
    batch = [("be_busy", str(running), "sleeps"), ("double", 1)]
    run = Watched(jobs.perform, batch, worker_limit=1)
    answers = []

    def cancel():
        wait_for_lines(running, 1)
        answers.append(run.conductor.cancel(0))
        answers.append(run.conductor.cancel("nobody"))

    thread = threading.Thread(target=cancel)
    thread.start()
    run.run()
    thread.join()
    assert answers == [True, False]
    cancelled = run.by_key[0]
    assert (cancelled.state, cancelled.cause) == (JobState.CANCELLED, Cause.PREEMPTED)
    assert isinstance(cancelled.error, JobCancelledError)
    assert run.by_key[1].value == 2
    assert run.report.counts[JobState.CANCELLED] == 1


def test_a_job_that_waits_is_cancelled_and_never_executed(tmp_path):
    log = tmp_path / "log"
    run = Watched(jobs.Reporter, [("ask",), ("noted", str(log), 1)], worker_limit=1)

    @run.conductor.command("asked")
    def cancel(_message):
        return run.conductor.cancel(1)

    run.run()
    assert run.by_key[1].state is JobState.CANCELLED
    assert run.by_key[1].attempts == 0
    assert lines_of(log) == []


def test_there_is_nothing_to_cancel_before_the_run():
    assert not Conductor(jobs.double, jobs_queue=[1]).cancel(0)


def test_a_run_is_resized_up_and_down(tmp_path):
    paths = [str(tmp_path / name) for name in "abc"]
    meet = [("make_and_wait", path, *paths) for path in paths]
    run = Watched(jobs.perform, [*meet, *[("nap", 0.01)] * 30], worker_limit=1)
    run.conductor.once("worker_start", lambda *_: run.conductor.resize(3))
    met = []

    def shrink(outcome):
        if outcome.value == "met":
            met.append(outcome)
            if len(met) == len(paths):
                run.conductor.resize(1)

    run.conductor.on("job_done", shrink)
    run.run()
    assert run.report.done == 33
    assert {o.attempts for o in run.outcomes} == {1}
    assert run.conductor.worker_limit == 1
    assert run.report.workers_lost == 0
    assert run.report.workers_started == 3


def test_a_drained_run_finishes_what_it_executes_and_gives_back_the_rest(tmp_path):
    go = tmp_path / "go"
    batch = [("wait_for_all", str(go)), *[("double", n) for n in range(100)]]
    run = Watched(jobs.perform, batch, worker_limit=1)
    run.conductor.once("worker_start", lambda *_: run.conductor.drain())
    run.conductor.on("worker_start", lambda *_: jobs.touch(go))
    run.run()
    assert run.report.unstarted == 101 - len(run.outcomes)
    assert len(run.conductor.jobs_queue) == run.report.unstarted
    assert run.report.stopped == "drain() was called"
    assert "stopped early: drain() was called" in str(run.report)


def test_a_drain_with_a_deadline_ends_what_takes_longer(tmp_path):
    running = tmp_path / "running"
    run = Watched(jobs.perform, [("be_busy", str(running), "sleeps")] * 3, worker_limit=1)

    def drain():
        wait_for_lines(running, 1)
        run.conductor.drain(0.1)

    thread = threading.Thread(target=drain)
    thread.start()
    run.run()
    thread.join()
    assert [o.state for o in run.outcomes] == [JobState.CANCELLED]
    assert run.report.unstarted == 2


def test_a_run_that_is_drained_before_it_begins_executes_nothing():
    conductor = Conductor(jobs.double, jobs_queue=[1, 2])
    conductor.drain()
    report = conductor.run()
    assert (report.jobs, report.unstarted) == (0, 2)


# Too many failures


def test_a_run_with_too_many_failures_stops_and_says_why(tmp_path):
    batch = [("throw", "picky")] * 1000
    run = Watched(jobs.perform, batch, worker_limit=2, max_failures=10)
    with pytest.raises(TooManyFailuresError, match="max_failures=10") as caught:
        run.run()
    report = caught.value.report
    assert report is run.conductor.report
    assert report.failed > 10
    assert report.failed + report.unstarted == 1000
    assert "jobs failed; max_failures=10" in report.stopped


# What a crash leaves behind


def test_a_crash_tells_the_last_lines_and_the_stack():
    batch = [("say_and_die", "exit 3"), ("die", "segfault")]
    run = Watched(jobs.perform, batch, worker_limit=1, retry=Retry(crashes=0)).run()
    said, fell = run.by_key[0].error, run.by_key[1].error
    assert isinstance(said, WorkerCrashError)
    assert said.stderr.splitlines()[-2:] == ["I am about", "to die"]
    assert "to die" in str(said)
    assert isinstance(fell, WorkerCrashError)
    assert "in die" in fell.stack
    assert "Segmentation fault" in fell.stack
    assert run.exits[1].stack == fell.stack


def test_the_next_attempt_knows_the_ones_before():
    run = Watched(jobs.perform, [("attempt_and_history",)], retry=Retry(errors=2)).run()
    attempt, history = run.outcomes[0].value
    assert attempt == 3
    assert history == [("error", f"ValueError: attempt {n}") for n in (1, 2)]


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"job_timeout": 0}, "job_timeout=0"),
        ({"job_timeout": "1"}, "job_timeout='1'"),
        ({"timeout_grace": -1}, "timeout_grace=-1"),
        ({"abort_grace": -1}, "abort_grace=-1"),
        ({"stuck_after": 0}, "stuck_after=0"),
        ({"max_rss": -5}, "max_rss=-5"),
        ({"max_failures": -1}, "max_failures=-1"),
        ({"max_failures": 1.5}, "max_failures=1.5"),
        ({"max_failures": True}, "max_failures=True"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Conductor(jobs.double, **options)


@pytest.mark.parametrize("options", [{"jobs": 0}, {"rss": -1}, {"seconds": 0}])
def test_a_recycle_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigurationError, match="more than 0"):
        Recycle(**options)


# Signals to the conductor


SCRIPT = """
    import sys, threading
    from faults import jobs
    from faults.moments import note, wait_until
    from okanjo_conductor import Conductor

    conductor = Conductor(
        jobs.perform, worker_limit=1, abort_grace=60, jobs_queue=[{job}] + [("double", 1)] * 5
    )

    def phase():
        return conductor._run and conductor._run._state._phase.name

    def note_the_stop():
        for stop in "DRAINING", "ABORTING":
            wait_until(lambda: phase() == stop or conductor.report, stop)
            note("stops", stop)

    threading.Thread(target=note_the_stop, daemon=True).start()
    try:
        conductor.run()
    except BaseException as error:
        print(type(error).__name__, getattr(error, "code", ""), file=sys.stderr)
    print(conductor.report, file=sys.stderr)
"""


def start_with(tmp_path, job):
    return start_script(tmp_path, SCRIPT.format(job=job))


@pytest.mark.parametrize(
    ("number", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "SystemExit 143")]
)
def test_the_first_signal_drains(number, raised, tmp_path):
    running, go = tmp_path / "running", tmp_path / "go"
    process = start_with(tmp_path, ("note_and_wait", str(running), str(go)))
    wait_for_lines(running, 1)
    process.send_signal(getattr(signal, number))
    line = process.stderr.readline()
    wait_for_lines(tmp_path / "stops", 1)
    jobs.touch(go)
    _, rest = process.communicate(timeout=60)
    assert f"{number}: finishing the jobs in execution" in line
    assert raised in rest
    assert "1 job: 1 done" in rest
    assert "5 jobs not started" in rest
    assert f"stopped early: {number} received" in rest


def test_the_second_signal_aborts_and_the_third_kills(tmp_path):
    running = tmp_path / "running"
    process = start_with(tmp_path, ("be_busy", str(running), "ignores SIGTERM"))
    (worker,) = wait_for_lines(running, 1)
    process.send_signal(signal.SIGINT)
    wait_for_lines(tmp_path / "stops", 1)
    process.send_signal(signal.SIGINT)
    wait_for_lines(tmp_path / "stops", 2)
    assert state_of(int(worker)) not in ("", "Z")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in rest
    wait_until_gone(int(worker))


def test_handlers_that_were_there_before_are_there_again(tmp_path):
    def mine(*_):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        Conductor(jobs.double, jobs_queue=[1]).run()
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_handler_is_touched_outside_the_main_thread():
    before = signal.getsignal(signal.SIGINT)
    reports = []
    run = Conductor(jobs.double, jobs_queue=[1])
    thread = threading.Thread(target=lambda: reports.append(run.run()))
    thread.start()
    thread.join()
    assert reports[0].done == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_ignored_stays_so(tmp_path):
    script = SCRIPT.replace(
        "import sys", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import sys"
    ).format(job=("note_and_wait", str(tmp_path / "running"), str(tmp_path / "go")))
    process: subprocess.Popen = start_script(tmp_path, script)
    wait_for_lines(tmp_path / "running", 1)
    os.kill(process.pid, 2)
    jobs.touch(tmp_path / "go")
    _, rest = process.communicate(timeout=60)
    assert "6 jobs: 6 done" in rest


def test_a_limit_that_is_set_while_a_job_is_executed_ends_it(tmp_path):
    conductor = Conductor(jobs.perform, jobs_queue=[("nap", 1000)], worker_limit=1, stuck_after=0.1)
    conductor.on("worker_stuck", lambda _: conductor.set_job_timeout(0.2))
    (outcome,) = conductor.outcomes()
    assert (outcome.state, outcome.cause) == (JobState.FAILED, Cause.TIMEOUT)
    assert outcome.error.limit == 0.2


def test_a_limit_is_set_only_while_a_run_goes_on():
    conductor = Conductor(jobs.perform)
    with pytest.raises(ConductorStateError, match="use job_timeout"):
        conductor.set_job_timeout(1.0)
