"""A `LookupTable` among the lookups: read from the map by workers, written by the conductor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from okanjo_conductor import (
    ABSENT,
    Conductor,
    ConductorWorker,
    JobState,
    LookupTable,
    conduct,
    current_worker,
)
from okanjo_conductor.errors import TableKeyError

from .test_lookups import call, call_async, meet_at, values_of
from .test_worker import outcomes_of


@pytest.fixture
def cities():
    with LookupTable.build({"Ulm": 128, "Bonn": 340, ("DE", 1): "Berlin"}) as table:
        yield table


@pytest.mark.parametrize("worker", [call, call_async])
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_all_verbs_work_with_a_table(cities, start_method, worker):
    jobs = [
        ("lookup", "cities", "Ulm"),
        ("lookup", "cities", ("DE", 1)),
        ("lookup", "cities", "Oz", "nowhere"),
        ("set_lookup", "cities", "Oz", None),
        ("lookup", "cities", "Oz", "nowhere"),
        ("update_lookup", "cities", {"a": 1, "b": 2}),
        ("lookup_many", "cities", ["a", "b", "c", "Bonn"]),
        ("increment", "cities", "Ulm", 2),
        ("increment", "cities", "new"),
        ("compare_and_set", "cities", "new", 2, 3),
        ("compare_and_set", "cities", "newer", ABSENT, 3),
        ("lookup_many", "cities", ["Ulm", "new", "newer"]),
    ]

    values = values_of(jobs, {"cities": cities}, worker, start_method=start_method)

    assert values == [
        *(128, "Berlin", "nowhere", None, None, None),
        {"a": 1, "b": 2, "Bonn": 340},
        *(130, 1, False, True),
        {"Ulm": 130, "new": 1, "newer": 3},
    ]
    assert cities["Ulm"] == 130


def test_reading_a_table_sends_no_message(cities):
    jobs = [("lookup", "cities", "Ulm")] * 20 + [("lookup_many", "cities", ["Ulm", "Oz"])]
    conductor = Conductor(call, worker_limit=1, jobs_queue=jobs, lookups={"cities": cities})

    stats = conductor.run().lookups["cities"]

    assert (stats.hits, stats.misses, stats.round_trips) == (22, 0, 0)


def test_a_key_that_a_table_cannot_have_is_the_jobs_error(cities):
    outcomes = outcomes_of(
        call,
        [("lookup", "cities", 1.5), ("set_lookup", "cities", 1.5, 1)],
        lookups={"cities": cities},
    )

    assert [type(o.error) for o in outcomes] == [TableKeyError] * 2


def test_the_next_job_sees_what_was_written(cities):
    cities["n"] = 0
    conductor = Conductor(
        lambda _: current_worker().lookup("cities", "n"),
        worker_limit=2,
        jobs_queue=[0, 0],
        lookups={"cities": cities},
    )
    least, seen = {}, []

    @conductor.on("job_done")
    def on_done(outcome):
        seen.append(outcome.value >= least.get(outcome.key, 0))
        if len(seen) < 200:
            now = conductor.increment_lookup_value("cities", "n")
            least["after", now] = now
            conductor.add_job(now, key=("after", now))

    conductor.run()

    assert len(seen) >= 200
    assert all(seen)


def test_increments_of_many_workers_are_counted_once(cities):
    def count(_job):
        for _ in range(50):
            current_worker().increment("cities", "n")

    for _ in conduct(count, range(8), worker_limit=4, lookups={"cities": cities}):
        pass

    assert cities["n"] == 400


def test_threads_of_a_job_read_with_readers_of_their_own(cities):
    def read(_job):
        from concurrent.futures import ThreadPoolExecutor

        worker = current_worker()

        def work(number):
            worker.set_lookup("cities", number, number)
            return worker.lookup("cities", number) == number

        with ThreadPoolExecutor(4) as pool:
            return all(pool.map(work, range(200)))

    assert list(conduct(read, [0], worker_limit=1, lookups={"cities": cities})) == [True]


def test_readers_that_were_killed_hold_nothing(cities):
    """Each dies while it reads; the conductor forgets it, so the slots of readers are free."""

    class Dying(ConductorWorker):
        def process_job(self, job):
            assert self.lookup("cities", "Ulm") == 128
            if self.job.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return True

    conductor = Conductor(
        Dying, worker_limit=2, jobs_queue=range(6), lookups={"cities": cities}, logging=False
    )
    conductor.on("error", lambda _: None)

    report = conductor.run()

    assert report.counts[JobState.DONE] == 6
    assert report.workers_lost == 6
    assert cities.forget_dead_readers() <= 2, "those that left at the end of the run"


def test_a_table_that_is_closed_meanwhile_ends_nobody(caplog):
    table = LookupTable.build({"a": 1})

    class Closing(ConductorWorker):
        def process_job(self, job):
            value = self.lookup("t", "a")
            self.request("close")
            return value

    conductor = Conductor(Closing, worker_limit=1, jobs_queue=[1], lookups={"t": table})
    conductor.command("close")(lambda _: table.close())

    assert [o.value for o in conductor.outcomes()] == [1]
    assert "is closed" in caplog.text


def test_workers_hold_a_table_once():
    """What eight workers have read of it is the same memory."""
    table = LookupTable.build((f"key {n}", f"{n:>50}") for n in range(100_000))

    class Measuring(ConductorWorker):
        def process_job(self, job):
            assert len(self.lookup_many("t", (f"key {n}" for n in range(0, 100_000, 7)))) == 14_286
            self.request("all here")
            rollup = Path("/proc/self/smaps_rollup").read_text()
            self.request("all measured")
            return sum(
                int(line.split()[1])
                for line in rollup.splitlines()
                if line.startswith(("Private_Clean:", "Private_Dirty:"))
            )

    def most_private(lookups):
        conductor = Conductor(Measuring, worker_limit=3, jobs_queue=range(3), lookups=lookups)
        meet_at(conductor, "all here", 3)
        meet_at(conductor, "all measured", 3)
        return max(outcome.result() for outcome in conductor.outcomes())

    with table:
        assert most_private({"t": table}) < 15_000, "KiB, the interpreter's own included"


def test_nothing_is_left_where_the_conductor_is_killed():
    script = textwrap.dedent(
        """
        import os, signal
        from okanjo_conductor import Conductor, ConductorWorker, LookupTable

        class Ready(ConductorWorker):
            def process_job(self, job):
                assert self.lookup("t", 5) == "5"
                self.request("ready")

        table = LookupTable.build((n, str(n)) for n in range(1000))
        print(table.path, flush=True)
        conductor = Conductor(Ready, worker_limit=2, jobs_queue=[0, 1], lookups={"t": table})

        @conductor.command("ready")
        def kill(msg):
            os.kill(os.getpid(), signal.SIGKILL)

        conductor.run()
        """
    )

    done = subprocess.run(
        [sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    with LookupTable.build({"the next": "table"}):
        assert not Path(done.stdout.strip()).exists(), "the next one that is built removes it"


def test_arrays_in_a_table_are_not_copied():
    with LookupTable.build({n: np.full(100_000, n) for n in range(3)}) as table:

        def read(job):
            array = current_worker().lookup("arrays", job)
            return array.flags.owndata, array.flags.writeable, int(array.sum())

        values = list(conduct(read, range(3), worker_limit=2, lookups={"arrays": table}))

    assert sorted(values) == [(False, False, n * 100_000) for n in range(3)]
