"""Abort: from everywhere, whatever the workers are doing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from faults import jobs
from faults.harness import Watched, kill, lines_of, start_script, wait_for_lines
from faults.moments import DEADLINE, touch
from okanjo_conductor import Cause, Conductor, JobState
from okanjo_conductor.errors import JobCancelledError

STUBBORN = ["sleeps", "ignores SIGTERM", "C code"]


def assert_cancelled(run: Watched, count: int) -> None:
    cancelled = [o for o in run.outcomes if o.state is JobState.CANCELLED]
    assert len(cancelled) == count
    assert {o.cause for o in cancelled} == {Cause.PREEMPTED}
    assert all(isinstance(o.error, JobCancelledError) for o in cancelled)
    assert {e.cause for e in run.exits} == {Cause.PREEMPTED}
    assert run.ends == 1


@pytest.mark.parametrize("how", STUBBORN)
def test_an_abort_from_another_thread_ends_workers_in_a_job(how, tmp_path):
    running = tmp_path / "running"
    batch = [("be_busy", str(running), how)] * 5
    run = Watched(jobs.perform, batch, worker_limit=2, abort_grace=0.05)

    def abort():
        wait_for_lines(running, 2)
        run.conductor.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    run.run()
    thread.join()

    assert_cancelled(run, 2)
    assert run.report.unstarted == 3
    assert list(run.conductor.jobs_queue) == batch[2:]
    assert len(lines_of(running)) == 2


@pytest.mark.parametrize("how", STUBBORN)
def test_an_abort_from_a_handler_ends_workers_in_a_job(how, tmp_path):
    batch = [("tell", "be_busy", str(tmp_path / "running"), how)] * 3
    run = Watched(jobs.Reporter, batch, worker_limit=1, abort_grace=0.05)

    @run.conductor.command("told")
    def abort(_message):
        run.conductor.abort()

    run.run()

    assert_cancelled(run, 1)
    assert list(run.conductor.jobs_queue) == batch[1:]


def test_an_abort_with_idle_workers_ends_at_once():
    no_more = threading.Event()

    def source():
        yield from (("double", number) for number in range(4))
        no_more.wait(DEADLINE)

    run = Watched(jobs.perform, source(), worker_limit=2, abort_grace=DEADLINE)

    @run.conductor.on("job_done")
    def abort(_outcome):
        if len(run.outcomes) == 4:
            run.conductor.abort()

    run.run()
    no_more.set()

    assert run.report.done == 4
    assert {e.cause for e in run.exits} <= {None}
    assert run.ends == 1


def test_an_abort_before_the_start_starts_nobody():
    run = Watched(jobs.perform, [("double", 1)] * 10)
    run.conductor.abort()

    run.run()

    assert run.report.jobs == run.report.workers_started == 0
    assert list(run.conductor.jobs_queue) == [("double", 1)] * 10
    assert run.ends == 1


@pytest.mark.parametrize("is_lazy", [False, True], ids=["function", "generator"])
def test_an_abort_while_jobs_are_generated_starts_nobody(is_lazy):
    run = Watched(jobs.perform, [])

    def fill():
        run.conductor.abort()
        run.conductor.jobs_queue.extend([("double", 1)] * 5)

    def generate():
        fill()
        yield ("double", 2)

    run.conductor.generate_jobs = generate if is_lazy else fill
    run.run()

    assert run.outcomes == []
    assert run.ends == 1
    if not is_lazy:
        assert run.report.workers_started == 0
        assert list(run.conductor.jobs_queue) == [("double", 1)] * 5


def test_a_worker_that_dies_after_an_abort_is_not_replaced():
    batch = [("tell", "die", "SIGKILL"), *(("double", number) for number in range(100))]
    run = Watched(jobs.Reporter, batch, worker_limit=1)

    @run.conductor.command("told", thread=False)  # before anything that the worker did after it
    def abort(_message):
        run.conductor.abort()

    run.run()

    assert_cancelled(run, 1)
    assert run.report.workers_started == 1
    assert list(run.conductor.jobs_queue) == batch[1:]


@pytest.mark.parametrize("after", [1, 17, 500])
def test_jobs_not_started_are_back_in_the_queue_in_order(after):
    batch = [("double", number) for number in range(2000)]
    run = Watched(jobs.perform, batch, worker_limit=2)

    @run.conductor.on("job_done")
    def abort(_outcome):
        if len(run.outcomes) == after:
            run.conductor.abort()

    run.run()

    done = {o.job for o in run.outcomes}
    assert len(done) == len(run.outcomes) >= after
    assert list(run.conductor.jobs_queue) == [job for job in batch if job not in done]


def test_aborting_many_times_is_aborting_once(tmp_path):
    running = tmp_path / "running"
    batch = [("be_busy", str(running), "sleeps")]
    run = Watched(jobs.perform, batch, worker_limit=1, abort_grace=0.05)

    def abort():
        wait_for_lines(running, 1)
        for _ in range(100):
            run.conductor.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    run.run()
    thread.join()
    run.conductor.abort()

    assert_cancelled(run, 1)


def test_cancelling_the_task_of_start_ends_the_workers(tmp_path):
    running = tmp_path / "running"
    run = Watched(
        jobs.perform, [("be_busy", str(running), "sleeps")] * 4, worker_limit=2, abort_grace=0.05
    )

    async def cancel_when_busy():
        task = asyncio.ensure_future(run.conductor.start())
        await asyncio.to_thread(wait_for_lines, running, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_when_busy())

    assert_cancelled(run, 2)
    assert len(run.conductor.jobs_queue) == 2
    assert not run.conductor.is_processing()


def test_leaving_the_iteration_over_outcomes_ends_the_workers(tmp_path):
    running, go = tmp_path / "running", tmp_path / "go"
    batch = [("be_busy", str(running), "sleeps"), ("wait_for_all", str(go)), ("double", 1)]
    conductor = Conductor(jobs.perform, jobs_queue=batch, worker_limit=2, abort_grace=0.05)
    touch(go)

    for outcome in conductor.outcomes():
        assert outcome.is_done
        break

    assert not conductor.is_processing()


@pytest.mark.parametrize("how", STUBBORN)
@pytest.mark.parametrize("is_group", [False, True], ids=["alone", "as from a terminal"])
def test_an_interrupt_ends_the_run_and_everybody(is_group, how, tmp_path):
    running = tmp_path / "running"
    script = start_script(
        tmp_path,
        f"""
        from faults import jobs
        from okanjo_conductor import Conductor

        batch = [("be_busy", {str(running)!r}, {how!r})] * 4
        try:
            Conductor(jobs.perform, jobs_queue=batch, worker_limit=2, abort_grace=0.05).run()
        except KeyboardInterrupt:
            raise SystemExit(130)
        """,
        start_new_session=True,
    )
    try:
        wait_for_lines(running, 2)
        interrupt = os.killpg if is_group else os.kill
        interrupt(script.pid, signal.SIGINT)
        assert "finishing the jobs in execution" in script.stderr.readline()
        interrupt(script.pid, signal.SIGINT)
        _, said = script.communicate(timeout=DEADLINE)
    except BaseException:
        kill(script.pid)
        script.communicate()
        raise

    assert (script.returncode, said) == (130, "")
