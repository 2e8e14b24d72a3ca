"""NumPy arrays among the lookups: in memory that all workers read and nobody changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from okanjo_conductor import Conductor, ConductorWorker, Lookup, conduct, current_worker
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    ReadOnlyLookupError,
)
from okanjo_conductor.lookups import arrays

from .test_lookups import call, call_async, meet_at, values_of
from .test_worker import outcomes_of

SHAPES = {
    "large": np.arange(300_000, dtype=np.float64).reshape(1000, 300),
    "small": np.arange(3, dtype=np.int8),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "strided": np.arange(40).reshape(4, 10)[::2, 1::3],
    "backwards": np.arange(5)[::-1],
    "empty": np.empty((0, 7), dtype=np.float32),
    "scalar": np.array(42.5),
    "text": np.array(["a", "bcd", "ü"]),
    "no text": np.array(["", ""]),
    "bytes": np.array([b"a", b"bcd"]),
    "times": np.array(["2026-01-01", "2027-01-01"], dtype="datetime64[D]"),
    "structured": np.array(
        [(1, 2.5, "x"), (3, 4.5, "y")], dtype=[("id", "i4"), ("weight", "f8"), ("name", "U3")]
    ),
    "aligned": np.zeros(3, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "big-endian": np.arange(4, dtype=">i4"),
    "booleans": np.array([[True], [False]]),
    "complex": np.array([1 + 2j]),
}


def describe(name):
    array = current_worker().shared(name)
    flags = array.flags
    again = current_worker().shared(name) is array
    return array, array.dtype, (flags.writeable, flags.owndata, again), flags.f_contiguous


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_arrays_of_all_kinds_are_what_they_were(start_method):
    outcomes = outcomes_of(
        describe, SHAPES, lookups={**SHAPES, "a dict": {}}, start_method=start_method
    )

    for outcome in outcomes:
        given = SHAPES[outcome.job]
        array, dtype, flags, is_fortran = outcome.result()
        assert np.array_equal(array, given), outcome.job
        assert (array.shape, dtype) == (given.shape, given.dtype)
        assert flags == (False, False, True), "read-only, no copy, the same each time"
        assert is_fortran == (
            given.flags.f_contiguous or given.size == 0 or sum(n > 1 for n in given.shape) <= 1
        )


def test_a_map_of_a_file_is_an_array_too(tmp_path):
    given = np.memmap(tmp_path / "file", dtype=np.int32, mode="w+", shape=(10,))
    given[:] = range(10)

    (array,) = values_of([("shared", "a")], {"a": given})

    assert array.tolist() == list(range(10))
    given._mmap.close()


@pytest.mark.parametrize("worker", [call, call_async])
def test_entries_of_arrays_are_rows(worker):
    jobs = [
        ("lookup", "large", 2),
        ("lookup", "large", 1000, "beyond"),
        ("lookup", "large", (3, 4)),
        ("lookup_many", "small", [0, 2, 3]),
        ("shared", "large"),
    ]

    row, beyond, cell, many, whole = values_of(jobs, SHAPES, worker)

    assert np.array_equal(row, SHAPES["large"][2])
    assert np.array_equal(whole, SHAPES["large"])
    assert (beyond, cell, many) == ("beyond", 904.0, {0: 0, 2: 2})


def test_reading_arrays_asks_nobody():
    def read(_job):
        worker = current_worker()
        for number in range(100):
            worker.lookup("small", number % 3)
            worker.lookup_many("small", [0, 1])
        return worker.shared("small").sum()

    conductor = Conductor(read, worker_limit=1, jobs_queue=[0], lookups=SHAPES)

    stats = conductor.run().lookups["small"]

    assert (stats.hits, stats.misses, stats.round_trips) == (301, 0, 0)


def test_nobody_can_change_a_shared_array():
    def attack(_job):
        from okanjo_conductor._io import assignment

        errors = []
        array = current_worker().shared("a")
        descriptor = assignment.current().arrays
        for attempt in (
            lambda: array.__setitem__(0, 1),
            lambda: array.setflags(write=True),
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, 1 << 20),
            lambda: current_worker().set_lookup("a", 0, 1),
            lambda: current_worker().increment("a", 0),
        ):
            try:
                attempt()
            except Exception as error:
                errors.append(type(error).__name__)
        return errors, array.tolist()

    ((errors, values),) = conduct(attack, [0], worker_limit=1, lookups={"a": np.arange(3)})

    assert errors == [
        *("ValueError", "ValueError", "PermissionError", "PermissionError", "PermissionError"),
        *("ReadOnlyLookupError", "ReadOnlyLookupError"),
    ]
    assert values == [0, 1, 2]


def test_the_conductor_does_not_change_one_while_the_run_goes_on():
    conductor = Conductor(abs, worker_limit=1, jobs_queue=[1], lookups={"a": np.arange(3)})
    conductor.set_lookup_value("a", 0, 7)
    errors = []

    @conductor.on("job_done")
    def on_done(_):
        with pytest.raises(ReadOnlyLookupError, match="in shared memory while the run goes on"):
            conductor.set_lookup_value("a", 0, 8)
        errors.append(1)

    conductor.run()

    assert errors == [1]
    assert conductor.get_lookup("a").tolist() == [7, 1, 2]


@pytest.mark.parametrize("lookup", [{}, [1], Lookup({}, cached=True)])
def test_what_is_no_array_is_not_shared(lookup):
    (outcome,) = outcomes_of(call, [("shared", "x")], lookups={"x": lookup})

    assert isinstance(outcome.error, ConductorStateError)
    assert "'x' is no array in shared memory" in str(outcome.error)


def test_an_array_that_comes_later_is_reached_by_messages():
    class Late(ConductorWorker):
        def process_job(self, job):
            self.request("make")
            self.set_lookup("late", 1, 5)
            with pytest.raises(ConductorStateError):
                self.shared("late")
            return self.lookup("late", 1)

    conductor = Conductor(Late, worker_limit=1, jobs_queue=[0])
    conductor.command("make")(lambda _: conductor.lookups.update(late=np.zeros(2)))

    assert [o.result() for o in conductor.outcomes()] == [5.0]


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")])]
)
def test_arrays_of_objects_are_refused(array):
    conductor = Conductor(abs, worker_limit=1, jobs_queue=[1], lookups={"things": array})

    with pytest.raises(ConfigurationError, match=r"lookups\['things'\].*fixed-width text.*tolist"):
        conductor.run()


def test_masked_arrays_stay_what_they_are():
    masked = np.ma.masked_array([1, 2], mask=[True, False])

    (value,) = values_of([("lookup", "m", 1)], {"m": masked})

    assert value == 2


def test_where_there_is_no_memfd_a_file_without_a_name_does(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")

    (array,) = values_of([("shared", "large")], SHAPES)

    assert np.array_equal(array, SHAPES["large"])


def test_where_there_is_no_room_the_run_says_so_and_leaves_nothing(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    conductor = Conductor(abs, worker_limit=1, jobs_queue=[1], lookups={"a": SHAPES["large"]})
    monkeypatch.setattr(os, "pwrite", fail)

    with pytest.raises(ConfigurationError, match=r"2,400,000 bytes.*No space left.*ulimit -f"):
        conductor.run()


@pytest.mark.parametrize("name", ["memfd_create", "ftruncate"])
def test_where_memory_cannot_be_made_the_error_says_so(name, monkeypatch):
    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, name, fail)

    with pytest.raises(ConfigurationError, match="Too many open files"):
        arrays.place({"a": np.arange(3)})


def test_the_memory_is_held_once_by_all_workers():
    """Each worker maps it whole; together they hold it once: that is what PSS counts."""

    class Measuring(ConductorWorker):
        def process_job(self, job):
            total = float(self.shared("a").sum())
            self.request("all here")
            lines = Path("/proc/self/smaps").read_text().split("\n")
            begin = next(n for n, line in enumerate(lines) if "okanjo-conductor-arrays" in line)
            fields = dict(
                line.split(":", 1) for line in lines[begin + 1 : begin + 20] if ":" in line
            )
            self.request("all measured")
            names = "Rss", "Pss", "Private_Dirty"
            return total, {name: int(fields[name].split()[0]) for name in names}

    given = np.ones(1 << 20)
    conductor = Conductor(Measuring, worker_limit=4, jobs_queue=range(4), lookups={"a": given})
    meet_at(conductor, "all here", 4)
    meet_at(conductor, "all measured", 4)
    for outcome in conductor.outcomes():
        total, kib = outcome.result()
        assert total == given.size
        assert kib["Rss"] == 8192
        assert kib["Pss"] <= 8192 / 4
        assert kib["Private_Dirty"] == 0


def test_nothing_is_left_where_the_conductor_is_killed():
    script = textwrap.dedent(
        """
        import os, signal, numpy as np
        from okanjo_conductor import Conductor, ConductorWorker

        class Ready(ConductorWorker):
            def process_job(self, job):
                assert self.shared("a").sum() == 1 << 20
                self.request("ready")

        conductor = Conductor(Ready, worker_limit=2, jobs_queue=[0, 1],
                              lookups={"a": np.ones(1 << 20)})

        @conductor.command("ready")
        def kill(msg):
            os.kill(os.getpid(), signal.SIGKILL)

        conductor.run()
        """
    )
    before = set(Path("/dev/shm").iterdir())

    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)

    assert done.returncode == -signal.SIGKILL
    assert not {
        n for n in set(Path("/dev/shm").iterdir()) - before if "psm" in n.name or "okanjo" in n.name
    }
