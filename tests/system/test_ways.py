"""Each way to write a program, run as a program of its own; and data that is large."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

import okanjo_conductor
from okanjo_conductor import Conductor

from . import arrays
from .moments import DEADLINE

SOURCE = str(Path(okanjo_conductor.__file__).parents[1])


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Run Python in a folder of its own, and return the lines that it prints."""
    monkeypatch.setenv("PYTHONPATH", SOURCE)

    def run(*args, **options):
        done = subprocess.run(
            [sys.executable, "-W", "error", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            **options,
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout.splitlines()

    return run


@pytest.fixture
def script(tmp_path, python):
    """Write a script and run it."""

    def run(text, *args):
        path = tmp_path / "script.py"
        path.write_text(dedent(text))
        return python(str(path), *args)

    return run


NO_GUARD = """
from okanjo_conductor import Conductor, ConductorWorker

class Squarer(ConductorWorker):
    def process_job(self, job):
        return job * job

print("main")
for outcome in Conductor(Squarer, worker_limit=2, jobs_queue=range(5)).outcomes(ordered=True):
    print(outcome.value)
"""
SQUARES = ["main", "0", "1", "4", "9", "16"]


def test_a_script_needs_no_main_guard(script):
    assert script(NO_GUARD) == SQUARES


def test_a_program_given_by_option_c(python):
    assert python("-c", NO_GUARD) == SQUARES


def test_a_program_read_from_standard_input(python):
    assert python("-", input=NO_GUARD) == SQUARES


def test_a_program_run_as_a_module(python, tmp_path):
    (tmp_path / "program.py").write_text(NO_GUARD)

    assert python("-m", "program") == SQUARES


def test_spawned_workers_need_no_main_guard_either(script):
    text = NO_GUARD.replace("worker_limit=2", "worker_limit=2, start_method='spawn'")

    assert script(text) == SQUARES


def test_a_worker_in_a_module_beside_the_script(script, tmp_path):
    (tmp_path / "beside.py").write_text("def triple(job):\n    return 3 * job\n")
    text = """
        from okanjo_conductor import conduct
        print(list(conduct("beside:triple", range(3), ordered=True)))
        import beside
        print(list(conduct(beside.triple, range(3), ordered=True)))
    """

    assert script(text) == ["[0, 3, 6]"] * 2


NODE_WAY = """
import os
import sys
from okanjo_conductor import Conductor, ConductorWorker, is_worker

if not is_worker():
    conductor = Conductor(worker_type="my_math_processor", worker_limit=2, logging=False)
    conductor.generate_jobs = lambda: [conductor.jobs_queue.append(i) for i in range(10)] and None
    conductor.once("end", lambda: print("All jobs finished processing", flush=True))
    report = conductor.run()
    print(report.done, sys.argv[1:])

elif os.environ["worker_type"] == "my_math_processor":

    class MyMathProcessor(ConductorWorker):
        def process_job(self, job):
            print(f"Worker, Job {job} => the square is {job * job}")
            self.complete_job(None, job)

    assert os.environ["master_id"]
    assert sys.argv[1:] == ["an argument"]
    MyMathProcessor(logging=False).start()
"""


def test_the_node_way_runs_the_script_again_in_each_worker(script):
    lines = script(NODE_WAY, "an argument")

    assert lines[-2:] == ["All jobs finished processing", "10 ['an argument']"]
    assert sorted(lines[:-2]) == [f"Worker, Job {n} => the square is {n * n}" for n in range(10)]


def test_the_node_way_says_so_when_the_script_starts_no_worker(script):
    text = """
        from okanjo_conductor import Conductor, is_worker
        from okanjo_conductor.errors import WorkerStartError
        if not is_worker():
            conductor = Conductor(worker_type="forgotten", worker_limit=1, jobs_queue=[1])
            conductor.on("error", lambda _: None)
            try:
                conductor.run()
            except WorkerStartError as error:
                print("without starting a worker" in str(error), "is_worker()" in str(error))
    """

    assert script(text) == ["True True"]


def test_the_node_way_says_so_when_the_script_forgets_to_ask(script):
    text = """
        from okanjo_conductor import Conductor
        from okanjo_conductor.errors import WorkerStartError
        conductor = Conductor(worker_type="forgetful", worker_limit=1, jobs_queue=[1])
        conductor.on("error", lambda _: None)
        try:
            conductor.run()
        except WorkerStartError as error:
            print("must ask is_worker() first" in str(error))
    """

    assert script(text) == ["True"]


def test_classes_of_main_travel_both_ways(script):
    text = """
        from dataclasses import dataclass
        from enum import Enum
        from okanjo_conductor import conduct

        class Colour(Enum):
            RED = 1

        @dataclass
        class Point:
            x: int
            colour: Colour = Colour.RED

        @dataclass(frozen=True)
        class Result:
            of: Point
            x: int

        class OddError(Exception):
            pass

        def work(point):
            assert isinstance(point, Point) and point.colour is Colour.RED
            return Result(point, point.x + 1)

        results = list(conduct(work, map(Point, range(3)), worker_limit=2, ordered=True))
        assert results == [Result(Point(n), n + 1) for n in range(3)], results
        assert all(type(r) is Result for r in results)
        print(results[0])
    """

    assert script(text) == ["Result(of=Point(x=0, colour=<Colour.RED: 1>), x=1)"]


def test_payload_classes_of_main_reach_a_worker_from_another_module(script, tmp_path):
    text = """
        from dataclasses import dataclass
        from okanjo_conductor import Conductor

        @dataclass
        class Point:
            x: int

        outcomes = Conductor("beside:move", worker_limit=2, jobs_queue=map(Point, range(3)))
        print([o.error or o.value for o in outcomes.outcomes(ordered=True)])
    """
    beside = "def move(point):\n    point.x += 1\n    return point\n"
    (tmp_path / "beside.py").write_text(beside)

    assert script(text) == ["[Point(x=1), Point(x=2), Point(x=3)]"]


def test_exceptions_of_main_keep_their_type(script):
    text = """
        from okanjo_conductor import Conductor

        class OddError(Exception):
            pass

        def work(job):
            raise OddError(job)

        (outcome,) = Conductor(work, worker_limit=1, jobs_queue=[7]).outcomes()
        print(type(outcome.error) is OddError, outcome.error.args)
    """

    assert script(text) == ["True (7,)"]


def test_results_of_a_class_defined_in_a_function(script):
    text = """
        from okanjo_conductor import conduct

        def main():
            class Local:
                def __init__(self, x):
                    self.x = x
            return [r.x for r in conduct(lambda job: Local(job), [1, 2], worker_limit=1)]

        print(main())
    """

    assert script(text) == ["[1, 2]"]


def test_a_script_that_ends_within_a_run_leaves_no_worker(script):
    """What the script's own check finds after the loop is left by an exception."""
    text = """
        import itertools
        from okanjo_conductor import conduct
        values = conduct(abs, itertools.count(), worker_limit=2)
        print(next(values) >= 0)
        raise SystemExit(0)
    """

    assert script(text) == ["True"]


# Large data


@pytest.mark.parametrize("worker", [arrays.twice, arrays.Twice], ids=["function", "class"])
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_arrays_of_a_mebibyte_travel_both_ways(worker, start_method):
    jobs = [np.full(1 << 17, n, dtype=np.int64) for n in range(6)]
    conductor = Conductor(worker, worker_limit=2, jobs_queue=jobs, start_method=start_method)

    values = [o.result() for o in conductor.outcomes(ordered=True)]

    assert all(v.nbytes == 1 << 20 for v in values)
    assert all(np.array_equal(v, 2 * job) for v, job in zip(values, jobs, strict=True))


def test_arrays_that_come_back_can_be_written_to():
    conductor = Conductor(arrays.twice, worker_limit=1, jobs_queue=[np.ones(1 << 17)])

    (value,) = (o.result() for o in conductor.outcomes())
    value[0] = 7

    assert value[0] == 7


@pytest.mark.parametrize("size", [0, 1, 4000, 4096, 65_535, 65_536, 1 << 18, 3_000_000])
def test_bytes_of_any_size_travel_both_ways(size):
    data = b"x".rjust(size, b"-")[:size]
    conductor = Conductor(arrays.reverse, worker_limit=1, jobs_queue=[data])

    (outcome,) = conductor.outcomes()

    assert outcome.result() == data[::-1]


def test_forked_workers_have_random_numbers_of_their_own():
    conductor = Conductor(arrays.Drawing, worker_limit=2, jobs_queue=range(2))
    both_are_here = asyncio.Event()
    here = []

    @conductor.command("here")
    async def note(msg):
        here.append(msg.worker_id)
        if len(here) == 2:
            both_are_here.set()
        await both_are_here.wait()

    first, second = conductor.outcomes()

    assert first.worker_id != second.worker_id
    assert first.value != second.value
