"""One worker in the thread of the run: for debuggers, profilers and tests."""

from __future__ import annotations

import asyncio
import os
import pdb  # noqa: T100 - that is the test
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import pytest

from okanjo_conductor import (
    LATER,
    AsyncConductorWorker,
    Conductor,
    ConductorWorker,
    JobState,
    Loading,
    Retry,
    command,
    conduct,
    current_job,
    current_worker,
    is_worker,
)
from okanjo_conductor.errors import ConductorStateError, IntakeError

DEADLINE = 20


def inline(worker, jobs, **options):
    return Conductor(worker, jobs_queue=jobs, cluster="inline", **options)


def outcomes_of(conductor):
    """Run in this thread; return outcomes by key."""
    outcomes = {}
    conductor.on("job_done", lambda outcome: outcomes.update({outcome.key: outcome}))
    conductor.on("job_failed", lambda outcome: outcomes.update({outcome.key: outcome}))
    conductor.run()
    return outcomes


def thread_of(_job):
    return threading.get_ident()


# Everything in the calling thread


def test_run_executes_jobs_and_handlers_in_its_thread():
    handled = []
    conductor = inline(
        lambda job: (threading.get_ident(), current_worker().request("note", job)), range(3)
    )

    @conductor.command("note")
    def note(msg):
        handled.append(threading.get_ident())
        return msg.data

    values = [outcome.result() for outcome in outcomes_of(conductor).values()]

    assert values == [(threading.get_ident(), n) for n in range(3)]
    assert handled == [threading.get_ident()] * 3


def test_start_executes_them_on_the_callers_loop():
    async def main():
        report = await inline(thread_of, range(3)).start()
        outcomes = inline(thread_of, range(3)).outcomes(ordered=True)
        return report.done, {outcome.value async for outcome in outcomes}

    assert asyncio.run(main()) == (3, {threading.get_ident()})


def test_outcomes_and_conduct_work():
    assert [o.value for o in inline(abs, range(4)).outcomes(ordered=True)] == [0, 1, 2, 3]
    assert list(conduct(abs, [-1, -2], cluster="inline", ordered=True)) == [1, 2]


def test_a_for_loop_over_outcomes_executes_jobs_in_its_thread():
    seen = []

    def work(job):
        seen.append(job)
        return threading.get_ident()

    values = [(outcome.value, len(seen)) for outcome in inline(work, range(5)).outcomes()]
    assert [place for place, _ in values] == [threading.get_ident()] * 5
    assert values[0][1] < 5
    assert set(conduct(thread_of, [0], cluster="inline")) == {threading.get_ident()}


def test_leaving_such_a_loop_aborts_the_run():
    conductor = inline(abs, range(1000))
    for outcome in conductor.outcomes():
        if outcome.key == 5:
            break
    assert not conductor.processing
    assert conductor.report.jobs + len(conductor.jobs_queue) == 1000


def test_what_such_a_run_raises_is_raised_at_the_end():
    def source():
        yield 1
        raise KeyError("broken")

    outcomes = iter(inline(abs, source()).outcomes())
    assert next(outcomes).value == 1
    with pytest.raises(IntakeError, match="broken"):
        next(outcomes)


def test_a_for_loop_within_asyncio_works_as_well():
    async def main():
        return [outcome.value for outcome in inline(abs, range(3)).outcomes(ordered=True)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_there_is_one_worker_whatever_was_asked_for():
    conductor = inline(thread_of, range(10), worker_limit=8)
    assert conductor.worker_limit == 1
    assert len({o.worker_id for o in outcomes_of(conductor).values()}) == 1


def test_the_worker_is_known_in_jobs_and_nowhere_else():
    seen = []
    conductor = inline(lambda _: (is_worker(), current_job().key), ["x"], job_key=str)
    conductor.on("job_done", lambda outcome: seen.append((is_worker(), current_job())))

    outcomes = outcomes_of(conductor)

    assert outcomes["x"].value == (True, "x")
    assert seen == [(False, None)]


def test_other_things_happen_between_two_jobs():
    async def main():
        turns = []

        async def count():
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        values = [o.value async for o in inline(lambda _: len(turns), range(20)).outcomes()]
        task.cancel()
        return values

    values = asyncio.run(main())
    assert len(set(values)) > 1


# Debuggers


def program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def test_a_breakpoint_in_a_job_is_a_breakpoint(tmp_path):
    command_line = program(
        tmp_path,
        """
        from okanjo_conductor import conduct

        def work(job):
            if job == 3:
                breakpoint()
            return job

        print("values", list(conduct(work, range(5), cluster="inline", ordered=True)))
        """,
    )
    done = subprocess.run(
        command_line,
        check=False,
        input="p job * 100\nc\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "300" in done.stdout
    assert "values [0, 1, 2, 3, 4]" in done.stdout
    assert done.returncode == 0


def test_to_quit_the_debugger_ends_the_run():
    executed = []

    def work(job):
        executed.append(job)
        if job == 3:
            raise pdb.bdb.BdbQuit
        return job

    conductor = inline(work, range(100))
    with pytest.raises(KeyboardInterrupt):
        conductor.run()

    assert executed == [0, 1, 2, 3]
    assert conductor.report.done == 3


def test_ctrl_c_in_a_job_ends_the_run(tmp_path):
    command_line = program(
        tmp_path,
        """
        import time
        from okanjo_conductor import Conductor

        def work(job):
            if job == 2:
                print("waiting", flush=True)
                time.sleep(60)
            return job

        Conductor(work, jobs_queue=range(5), cluster="inline").run()
        """,
    )
    process = subprocess.Popen(
        command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    while process.poll() is None:  # drain, abort, kill: the job hears of the third
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    _, said = process.communicate(timeout=DEADLINE)
    assert "KeyboardInterrupt" in said
    assert process.returncode in (1, -signal.SIGINT)


def test_an_async_job_can_be_interrupted_too():
    async def work(job):
        await asyncio.sleep(0)
        if job == 3:
            raise KeyboardInterrupt
        return job

    conductor = inline(work, range(100), concurrency=1)
    with pytest.raises(KeyboardInterrupt):
        conductor.run()


# What is answered on the spot, and what cannot be


class Talks(ConductorWorker):
    """Talks with its conductor in every way."""

    def process_job(self, job):
        return getattr(self, job.replace(" ", "_"))()

    def callback(self):
        heard = []
        self.send_request_to_master("echo", 1, lambda error, msg: heard.append(msg.data))
        reply = self.send_request_to_master("echo", 2)
        return reply.result().data, heard

    def ask_async(self):
        try:
            self.request("later", 3)
        except ConductorStateError as error:
            return str(error)

    def timeout(self):
        with pytest.raises(ConductorStateError, match="would never come"):
            self.request("later", 3, timeout=60)
        return "refused"

    def later(self):
        threading.Timer(0.01, self.complete_job, kwargs={"value": "completed"}).start()
        return LATER

    def thread(self):
        return self.in_a_thread(lambda: self.request("echo", 4))

    def note_from_a_thread(self):
        return self.in_a_thread(lambda: self.add_job("done", key="added"))

    def done(self):
        return "done"

    def in_a_thread(self, act):
        said = []

        def call():
            try:
                said.append(act())
            except Exception as error:
                said.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(DEADLINE)
        return said[0]


def talked(*jobs, **options):
    conductor = inline(Talks, jobs, job_key=str, **options)
    conductor.command("echo")(lambda msg: msg.data)

    @conductor.command("later")
    async def later(msg):
        return msg.data

    return outcomes_of(conductor)


def test_requests_are_answered_on_the_spot():
    assert talked("callback")["callback"].value == (2, [1])


def test_what_needs_the_loop_is_refused_and_never_waited_for():
    outcomes = talked("ask async", "timeout", "done")
    for hint in ("async", "plain one", "AsyncConductorWorker", 'cluster="threads"'):
        assert hint in outcomes["ask async"].value
    assert outcomes["timeout"].value == "refused"
    assert outcomes["done"].value == "done"


def test_a_job_may_be_completed_by_another_thread():
    assert talked("later")["later"].value == "completed"


def test_another_thread_of_a_job_can_tell_but_not_ask():
    outcomes = talked("thread", "note from a thread")
    assert "another thread has asked" in outcomes["thread"].value
    assert outcomes["added"].value == "done"


def test_entries_that_an_async_function_makes_are_refused():
    async def make(key):
        return key

    conductor = inline(
        lambda key: current_worker().lookup("n", key), ["k"], lookups={"n": Loading(make)}
    )
    (outcome,) = outcomes_of(conductor).values()
    assert type(outcome.error) is ConductorStateError


def test_a_handler_that_exits_ends_the_run_and_not_the_job():
    conductor = inline(lambda _: current_worker().request("leave"), range(3))

    @conductor.command("leave")
    def leave(_msg):
        raise SystemExit(5)

    with pytest.raises(SystemExit):
        conductor.run()


def test_a_handler_may_abort_the_run():
    def work(job):
        current_worker().request("enough" if job == 2 else "go on")
        return job

    conductor = inline(work, range(10))
    conductor.command("enough")(lambda _: conductor.abort())
    conductor.command("go on")(lambda _: None)
    report = conductor.run()
    assert report.done == 3
    assert report.jobs + len(conductor.jobs_queue) == 10


# Async workers


class Meets(AsyncConductorWorker):
    """Jobs that wait for each other, in flight on the loop of the run."""

    here = 0

    async def process_job(self, job):
        loop = asyncio.get_running_loop()
        if not self.here:
            self.all_here = asyncio.Event()
        self.here += 1
        if self.here == 10:
            self.all_here.set()
        await self.all_here.wait()
        return await self.request("loop", id(loop)), is_worker(), current_job().key

    @command("hello")
    async def hello(self, msg):
        await asyncio.sleep(0)
        return msg.data


def test_jobs_of_an_async_worker_are_in_flight_on_the_loop_of_the_run():
    conductor = inline(Meets, range(10), concurrency=10)

    @conductor.command("loop")
    async def loop(msg):
        await asyncio.sleep(0)
        assert not is_worker()
        return msg.data == id(asyncio.get_running_loop())

    values = {key: outcome.result() for key, outcome in outcomes_of(conductor).items()}
    assert values == {n: (True, True, n) for n in range(10)}


def test_an_async_job_that_crashes_ends_its_worker():
    class Crashes(AsyncConductorWorker):
        async def process_job(self, job):
            await asyncio.sleep(0)
            if job == 5 and self.job.attempt < 3:
                try:
                    self.crash("five")
                except BaseException:
                    return "swallowed"
            return job

    conductor = inline(Crashes, range(20), concurrency=4, retry=Retry(crashes=2))
    conductor.on("error", lambda _: None)
    outcomes = outcomes_of(conductor)
    assert {key: o.value for key, o in outcomes.items()} == {n: n for n in range(20)}
    assert {exit_.code for exit_ in conductor.report.worker_exits} == {4}


def test_cancelling_an_async_job_cancels_its_task():
    cancelled = []

    async def work(job):
        if job == "long":
            await current_worker().request("cancel me")
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(job)
                raise
        return job

    conductor = inline(work, ["long", "short"], job_key=str)

    @conductor.command("cancel me")
    async def cancel(_msg):
        conductor.cancel("long")

    outcomes = outcomes_of(conductor)
    assert outcomes["long"].state is JobState.CANCELLED
    assert cancelled == ["long"]
    assert conductor.report.workers_lost == 0


def test_an_abort_ends_async_jobs_in_flight():
    async def work(job):
        await current_worker().request("here")
        await asyncio.sleep(3600)
        return job

    conductor = inline(work, range(5), concurrency=5, abort_grace=0.01)
    here = []

    @conductor.command("here")
    async def arrive(msg):
        here.append(msg)
        if len(here) == 5:
            conductor.abort()

    outcomes = outcomes_of(conductor)
    assert {o.state for o in outcomes.values()} == {JobState.CANCELLED}


def test_a_forked_process_is_not_the_worker():
    def fork(job):
        pid = os.fork()
        if pid == 0:
            return "from the fork"
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert [o.value for o in outcomes_of(inline(fork, range(2))).values()] == [1, 1]
