"""Workers as threads: what they share, how they end, and what is not theirs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress

import pytest

from okanjo_conductor import (
    AsyncConductorWorker,
    Conductor,
    ConductorWorker,
    JobState,
    Retry,
    command,
    conduct,
    current_job,
    current_worker,
    is_worker,
)
from okanjo_conductor.errors import ConductorStateError, ConfigurationError, WorkerStartError
from okanjo_conductor.testing import kill_worker_at
from okanjo_conductor.testing.fixtures import processes_of_this_test

DEADLINE = 20


def run(worker, jobs, **options):
    """Run a conductor with threads; return its outcomes by key, and its report."""
    conductor = Conductor(worker, jobs_queue=jobs, cluster="threads", **options)
    outcomes = {}
    conductor.on("job_done", lambda outcome: outcomes.update({outcome.key: outcome}))
    conductor.on("job_failed", lambda outcome: outcomes.update({outcome.key: outcome}))
    conductor.on("error", lambda _: None)
    return outcomes, conductor.run()


def test_workers_are_threads_of_this_process_at_work_together():
    meeting = threading.Barrier(3)

    def meet(_job):
        meeting.wait(DEADLINE)
        return os.getpid(), threading.get_ident()

    outcomes, _ = run(meet, range(3), worker_limit=3)

    places = {outcome.result() for outcome in outcomes.values()}
    assert {pid for pid, _ in places} == {os.getpid()}
    assert len(places) == 3
    assert not processes_of_this_test()


def test_a_worker_need_not_be_picklable():
    lock = threading.Lock()

    def work(job):
        with lock:
            return job

    assert list(conduct(work, range(5), cluster="threads", ordered=True)) == [0, 1, 2, 3, 4]


def test_a_worker_is_known_in_its_thread_and_in_no_other():
    seen = []

    def look(_job):
        other = threading.Thread(target=lambda: seen.append((is_worker(), current_job())))
        other.start()
        other.join()
        return is_worker(), current_job().key, current_worker().worker_id

    outcomes, _ = run(look, ["x"], job_key=str)

    assert outcomes["x"].result() == (True, "x", 1)
    assert seen == [(False, None)]
    assert not is_worker()
    with pytest.raises(ConductorStateError, match="a thread that is no worker's"):
        current_worker()


def test_two_conductors_at_a_time_do_not_see_each_others_workers():
    meeting = threading.Barrier(2)

    def ask(_job):
        meeting.wait(DEADLINE)
        return current_worker().request("who")

    def conducted(name, found):
        conductor = Conductor(ask, jobs_queue=[0], cluster="threads", worker_limit=1)
        conductor.command("who")(lambda _: name)
        found[name] = [outcome.value for outcome in conductor.outcomes()]

    found = {}
    threads = [threading.Thread(target=conducted, args=(name, found)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert found == {"a": ["a"], "b": ["b"]}


class Crashing(ConductorWorker):
    """Crashes in many ways."""

    def process_job(self, job):
        if self.job.attempt > 1 or job == "fine":
            return job
        if job == "swallows":
            try:
                self.crash("the job catches everything")
            except BaseException:
                return "swallowed"
        if job == "large":
            try:
                self.crash("and has a large value")
            except BaseException:
                return bytes(1 << 20)
        if job == "another thread":
            other = threading.Thread(target=self.crash_there)
            other.start()
            other.join()
            return job
        return self.crash("at once")

    def crash_there(self):
        with suppress(BaseException):
            self.crash("in another thread")


@pytest.mark.parametrize("way", ["at once", "swallows", "large", "another thread"])
def test_a_crash_ends_the_worker_whatever_the_job_makes_of_it(way):
    jobs = ["fine", way, *["fine"] * 50]
    outcomes, report = run(Crashing, jobs, retry=Retry(crashes=1), worker_limit=1)

    assert outcomes[1].value == way
    assert len(outcomes[1].history) == 1
    assert report.workers_lost == 1
    assert report.worker_exits[0].code == 4
    assert report.done == len(jobs)


class AsyncCrashing(AsyncConductorWorker):
    """Crashes in a task that nobody awaits."""

    async def process_job(self, job):
        if self.job.attempt == 1 and job == "stray":
            self.task = asyncio.create_task(self.crash_in_a_task())
            await asyncio.sleep(3600)
        return job

    async def crash_in_a_task(self):
        self.crash("in a task")


def test_a_crash_in_a_stray_task_ends_an_async_worker():
    outcomes, report = run(AsyncCrashing, ["stray", *range(20)], concurrency=5, worker_limit=1)

    assert report.done == 21
    assert outcomes[0].value == "stray"
    assert report.worker_exits[0].code == 4


class LeavesTasks(AsyncConductorWorker):
    """Leaves something behind on its loop."""

    async def process_job(self, job):
        asyncio.get_running_loop().run_in_executor(None, lambda: None)
        self.left = asyncio.create_task(asyncio.sleep(3600))
        return job


def test_what_an_async_worker_leaves_on_its_loop_ends_with_it():
    _, report = run(LeavesTasks, range(10), worker_limit=2)

    assert report.done == 10


class StartsNot(ConductorWorker):
    """Ends where it begins."""

    def setup(self):
        raise SystemExit(7)

    def process_job(self, job):
        return job


def test_a_worker_that_exits_in_its_setup_fails_to_start():
    with pytest.raises(WorkerStartError, match="SystemExit: 7"):
        run(StartsNot, range(3))


def test_a_thread_that_does_not_end_is_given_up_and_said_so(caplog):
    executing, gate, late = threading.Event(), threading.Event(), []

    def work(job):
        if job:
            executing.set()
            gate.wait(DEADLINE)
            late.append(job)
        return job

    conductor = Conductor(
        work, jobs_queue=[0, 1, 2], cluster="threads", worker_limit=1, abort_grace=0.01
    )
    outcomes = []
    conductor.on("job_done", outcomes.append)
    conductor.on("job_failed", outcomes.append)
    ends = threading.Thread(target=lambda: executing.wait(DEADLINE) and conductor.abort())
    ends.start()
    with caplog.at_level(logging.WARNING):
        report = conductor.run()
    ends.join()

    assert [(o.key, o.state) for o in outcomes] == [
        (0, JobState.DONE),
        (1, JobState.CANCELLED),
    ]
    assert list(conductor.jobs_queue) == [2]
    assert "worker 1: its thread did not end" in caplog.text
    assert 'cluster="processes"' in caplog.text
    gate.set()  # it ends now, and nobody hears of its outcome
    assert report.jobs == 2


def test_a_worker_that_waits_for_an_answer_ends_at_an_abort(caplog):
    asked = threading.Event()

    def work(_job):
        return current_worker().request("never")

    conductor = Conductor(
        work, jobs_queue=range(4), cluster="threads", worker_limit=2, abort_grace=0.01
    )

    @conductor.command("never")
    async def never(_msg):
        asked.set()
        await asyncio.sleep(3600)

    ends = threading.Thread(target=lambda: asked.wait(DEADLINE) and conductor.abort())
    ends.start()
    conductor.run()
    ends.join()

    assert "did not end" not in caplog.text


class Hears(ConductorWorker):
    """Handles a command while its job waits for that."""

    def setup(self):
        self.heard = threading.Event()

    @command("hear", during_job=True)
    def hear(self, msg):
        self.heard.set()
        return threading.get_ident(), msg.data

    def process_job(self, _job):
        self.notify("waiting")
        assert self.heard.wait(DEADLINE)
        return threading.get_ident()


def test_a_command_is_handled_during_a_job_in_a_thread_for_that():
    conductor = Conductor(Hears, jobs_queue=[0], cluster="threads")
    replies = []

    @conductor.command("waiting")
    async def waiting(msg):
        replies.append(await conductor.request_worker(msg.worker_id, "hear", 5))

    (outcome,) = conductor.outcomes()

    assert replies[0][1] == 5
    assert replies[0][0] != outcome.value


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # since Python 3.12
def test_a_process_that_a_job_forks_is_not_the_worker():
    def fork(job):
        if job == 3:
            pid = os.fork()
            if pid == 0:
                return "from the fork"
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)
        return job

    outcomes, report = run(fork, range(6), worker_limit=1)

    assert [outcomes[n].value for n in range(6)] == [0, 1, 2, 1, 4, 5]
    assert report.workers_lost == 0


def test_nobody_kills_this_process_in_the_place_of_a_worker():
    conductor = Conductor(abs, jobs_queue=[1], cluster="threads")
    with pytest.raises(ConfigurationError, match="live in this process"):
        kill_worker_at(conductor, outcome=1)


def test_what_workers_log_is_logged_where_it_is(caplog):
    def work(job):
        logging.getLogger("mine").warning("job %s", job)

    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.WARNING):
        run(work, ["a"])

    assert "job a" in [record.getMessage() for record in caplog.records]
    assert logging.getLogger().handlers == handlers


def test_a_job_of_main_is_of_its_class(monkeypatch):
    """Objects of __main__ travel, and its classes stay what they are."""
    import __main__

    class Point:
        pass

    Point.__module__, Point.__qualname__ = "__main__", "Point"
    monkeypatch.setattr(__main__, "Point", Point, raising=False)

    outcomes, _ = run(lambda job: (job, type(job) is Point), [Point()])

    value, is_same = outcomes[0].result()
    assert is_same
    assert type(value) is Point
    assert __main__.Point is Point
