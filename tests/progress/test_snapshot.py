"""Snapshots of runs that go on: real workers, seen while they work."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from okanjo_conductor import Cause, Conductor, ConductorWorker, JobState, Retry
from system.moments import DEADLINE, Moment


@contextlib.contextmanager
def running(conductor):
    """Run in another thread; the report is there afterwards."""
    thread = threading.Thread(target=conductor.run)
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def seen(conductor, condition):
    """Wait for a snapshot that is so; return it."""
    deadline = time.monotonic() + DEADLINE
    while not condition(snapshot := conductor.snapshot()):
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.005)
    return snapshot


def are_working(count):
    return lambda snapshot: sum(w.state == "working" for w in snapshot.workers) == count


def waiter(until):
    def job(number):
        until.wait()
        return number

    return job


def test_before_the_run_a_snapshot_is_empty():
    snapshot = Conductor(print).snapshot()
    assert (snapshot.phase, snapshot.finished, snapshot.total, snapshot.workers) == (
        "new", 0, None, (),
    )  # fmt: skip


def test_a_snapshot_tells_who_works_at_what(moment):
    go_on = moment("go on")
    conductor = Conductor(
        waiter(go_on), jobs_queue=["a", "b"], worker_limit=3, job_key=lambda job: f"key-{job}"
    )
    with running(conductor):
        snapshot = seen(conductor, are_working(2))
        later = seen(conductor, lambda s: all(w.seconds for w in s.workers if w.key))
        go_on.happen()
    assert {w.key for w in snapshot.workers if w.state == "working"} == {"key-a", "key-b"}
    assert {w.in_flight for w in snapshot.workers if w.state == "working"} == {1}
    assert [w.slot for w in snapshot.workers] == [0, 1, 2]
    assert snapshot.workers[2].state in ("empty", "idle", "starting")
    assert (snapshot.total, snapshot.finished, snapshot.in_flight) == (2, 0, 2)
    assert (snapshot.rate, snapshot.eta) == (0.0, None)
    assert all(w.pid and w.rss > 1_000_000 for w in snapshot.workers if w.key)
    assert all(0 < w.seconds < later.seconds for w in later.workers if w.key)


def test_afterwards_a_snapshot_tells_the_end():
    conductor = Conductor(_picky, jobs_queue=range(10), worker_limit=1)
    report = conductor.run()
    snapshot = conductor.snapshot()
    assert (snapshot.phase, snapshot.total, snapshot.done, snapshot.failed) == ("over", 10, 9, 1)
    assert (snapshot.fraction, snapshot.eta, snapshot.workers) == (1.0, 0.0, ())
    assert snapshot.seconds == report.seconds


def _picky(number):
    if number == 3:
        raise ValueError("not three")
    return number


class Sized:
    """Says how many jobs there are, and gives them one by one."""

    def __init__(self, count, length=None):
        self.count = count
        self.length = count if length is None else length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(number for number in range(self.count))


class Broken(Sized):
    """Does not know how many there are, though it looks as if it did."""

    def __len__(self):
        raise RuntimeError


class Hinted:
    """An iterator that tells how much is left."""

    def __init__(self, count):
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left

    def __length_hint__(self):
        return self.left


class Guessed:
    """An iterable that tells how much there is about, as sources do."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return (number for number in range(self.count))

    def __length_hint__(self):
        return self.count


@pytest.mark.parametrize(
    ("source", "total"),
    [
        (lambda: range(500), 500),
        (lambda: set(range(500)), 500),
        (lambda: iter(list(range(500))), 500),
        (lambda: Sized(500), 500),
        (lambda: Hinted(500), 500),
        (lambda: Guessed(500), 500),
        (lambda: iter(number for number in range(500)), None),
        (lambda: Broken(500), None),
    ],
    ids=["range", "set", "list iterator", "sized", "hinted", "guessed", "generator", "broken"],
)
def test_the_total_is_known_where_the_source_tells(moment, source, total):
    go_on = moment("go on")
    conductor = Conductor(waiter(go_on), jobs_queue=source(), worker_limit=1)
    with running(conductor):
        assert seen(conductor, are_working(1)).total == total
        go_on.happen()
        snapshot = seen(conductor, lambda s: s.finished > 100)
    assert snapshot.total in ((total, 500) if total is None else (total,))
    assert conductor.snapshot().total == 500


def test_a_source_that_gives_more_than_it_says_is_believed_then(moment):
    go_on = moment("go on")
    conductor = Conductor(waiter(go_on), jobs_queue=Sized(300, length=10), worker_limit=1)
    with running(conductor):
        seen(conductor, are_working(1))
        go_on.happen()
    assert conductor.report.done == 300


class Generating(Conductor):
    """Makes its jobs itself."""

    def generate_jobs(self):
        return Sized(50)


def test_the_total_of_generated_jobs_is_known_too(moment):
    go_on = moment("go on")
    conductor = Generating(waiter(go_on), worker_limit=1)
    with running(conductor):
        assert seen(conductor, are_working(1)).total == 50
        conductor.jobs_queue.append(50)
        assert conductor.snapshot().total == 51
        go_on.happen()


def test_listeners_and_handlers_may_take_snapshots():
    phases = []
    conductor = Conductor(_picky, jobs_queue=range(3), worker_limit=1)
    conductor.on("job_done", lambda _: phases.append(conductor.snapshot()))
    conductor.run()
    assert [(s.phase, s.total) for s in phases] == [("running", 3)] * 3


def test_a_lost_worker_and_a_failed_job_are_told(moment):
    go_on = moment("go on")
    conductor = Conductor(
        waiter(go_on), jobs_queue=["only"], worker_limit=1, job_key=str, retry=Retry(crashes=1)
    )
    with running(conductor):
        victim = seen(conductor, lambda s: s.workers and s.workers[0].seconds and s.in_flight)
        victim = victim.workers[0]
        os.kill(victim.pid, signal.SIGKILL)
        snapshot = seen(conductor, lambda s: s.workers_lost == 1 and are_working(1)(s))
        successor = snapshot.workers[0]
        os.kill(successor.pid, signal.SIGKILL)
    assert successor.worker_id == victim.worker_id + 1
    (end,) = snapshot.exits
    assert (end.signal, end.key, end.worker_id) == ("SIGKILL", "only", victim.worker_id)
    assert (snapshot.retries, snapshot.workers_started) == (1, 2)
    report = conductor.report
    assert report.lost_causes == {Cause.CRASH: 2}
    assert report.causes == {Cause.CRASH: 1}
    assert report.retried == {Cause.CRASH: 1}
    assert report.time.lost > 0
    assert report.counts[JobState.QUARANTINED] == 1


def test_recent_failures_are_told(moment):
    go_on = moment("go on")

    def job(number):
        if number < 8:
            message = f"bad {number}"
            raise ValueError(message)
        go_on.wait()

    conductor = Conductor(job, jobs_queue=range(9), worker_limit=1)
    with running(conductor):
        snapshot = seen(conductor, lambda s: s.failed == 8)
        go_on.happen()
    assert [f.error for f in snapshot.failures] == [f"ValueError: bad {i}" for i in range(3, 8)]
    assert {(f.state, f.cause) for f in snapshot.failures} == {(JobState.FAILED, Cause.ERROR)}


class SlowStarter(ConductorWorker):
    """Takes its time to start, and to leave."""

    def __init__(self, begin, end, **options):
        super().__init__(**options)
        self.moments = Moment(begin), Moment(end)

    def setup(self):
        self.moments[0].wait()

    def process_job(self, job):
        return job

    def teardown(self):
        self.moments[1].wait()


def test_workers_start_and_leave(moment):
    begin, end = moment("begin"), moment("end")
    options = {"begin": begin.path, "end": end.path}
    conductor = Conductor(SlowStarter, worker_options=options, jobs_queue=[1], worker_limit=1)
    with running(conductor):
        starting = seen(conductor, lambda s: s.workers and s.workers[0].state == "starting")
        begin.happen()
        leaving = seen(conductor, lambda s: s.phase == "ending")
        end.happen()
    assert starting.workers[0].seconds >= 0
    assert (leaving.workers[0].state, leaving.workers[0].executed) == ("leaving", 1)
    assert (leaving.fraction, leaving.eta) == (1.0, 0.0)
    time_split = conductor.report.time
    assert 0 < time_split.start < time_split.workers


def test_an_async_worker_has_many_jobs_in_flight(moment):
    go_on = moment("go on")

    async def job(_):
        import asyncio

        await asyncio.to_thread(go_on.wait)

    conductor = Conductor(job, jobs_queue=range(5), worker_limit=1, concurrency=4)
    with running(conductor):
        snapshot = seen(conductor, lambda s: s.in_flight == 4)
        go_on.happen()
    (worker,) = snapshot.workers
    assert (worker.key, worker.in_flight, worker.waiting) == (0, 4, 1)
    assert conductor.report.time.wait is None


def test_the_biggest_payloads_and_values_are_known():
    jobs = [b"x" * size for size in (10, 2_000, 3_000_000)]
    report = Conductor(_doubled, jobs_queue=jobs, worker_limit=1, job_key=len).run()
    assert [key for _, key in report.biggest_payloads] == [3_000_000, 2_000]
    assert [key for _, key in report.biggest_values] == [3_000_000, 2_000]
    (payload, _), (value, _) = report.biggest_payloads[0], report.biggest_values[0]
    assert 3_000_000 <= payload < 3_001_000
    assert 6_000_000 <= value < 6_001_000


def _doubled(data):
    return data * 2
