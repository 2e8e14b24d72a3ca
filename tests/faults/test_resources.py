"""Little of what processes need: the run works, or says what is missing. It never hangs."""

from __future__ import annotations

import errno
import gc
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from faults import jobs
from faults.harness import Watched, kill, start_script
from okanjo_conductor.errors import SerialisationError, WorkerStartError
from okanjo_conductor.testing.fixtures import _open_descriptors

_PATIENCE = 120.0
_MEBIBYTE = 1 << 20
METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])
LIMITED = """
    import os, resource, signal, sys
    from faults import jobs
    from okanjo_conductor import Conductor
    from okanjo_conductor.errors import WorkerStartError

    {limit}
    batch = [("double", number) for number in range(100)]
    conductor = Conductor(
        jobs.perform, jobs_queue=batch, worker_limit={workers}, start_method={method!r},
        logging=False,
    )
    try:
        report = conductor.run()
    except WorkerStartError as error:
        sys.exit(f"cannot start: {{error}}")
    sys.exit(f"done {{report.done}}, lost {{report.workers_lost}}")
"""
HUGE = """
    import sys
    from faults import jobs
    from okanjo_conductor import Conductor

    batch = [("double", 1), ("give_without_limits", 512 * jobs.MIB), ("double", 2)]
    conductor = Conductor(jobs.perform, jobs_queue=batch, worker_limit=1, logging=False)
    conductor.on("worker_start", lambda *_: jobs.limit_memory(128 * jobs.MIB))
    sys.exit("; ".join(f"{o.key} {o.state} {o.error}" for o in conductor.outcomes(ordered=True)))
"""
FORKS_FAIL = """
import errno, os
from faults.jobs import perform

fork, calls = os.fork, []

def fork_at_times():
    calls.append(1)
    if {refuses}:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_at_times
"""


def said_by(folder: Path, text: str) -> str:
    """Run a script; return its last line on stderr."""
    script = start_script(folder, text)
    try:
        _, said = script.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        kill(script.pid)
        script.communicate()
        raise
    return said.rstrip()


def said_with(folder: Path, limit: str, method: str, workers: int = 2) -> str:
    return said_by(folder, LIMITED.format(limit=limit, method=method, workers=workers))


def set_limit(name: str, value: int) -> str:
    return f"resource.setrlimit(resource.{name}, ({value}, {value}))"


@METHODS
def test_64_descriptors_are_enough_for_some_workers(method, tmp_path):
    said = said_with(tmp_path, set_limit("RLIMIT_NOFILE", 64), method)

    assert said.endswith("done 100, lost 0")


@METHODS
@pytest.mark.parametrize("count", [12, 16, 20, 26, 40, 64])
def test_too_few_descriptors_are_called_so(count, method, tmp_path):
    said = said_with(tmp_path, set_limit("RLIMIT_NOFILE", count), method, 50)

    assert "done 100" in said or "Too many open files" in said


@METHODS
def test_workers_start_where_files_may_have_a_page(method, tmp_path):
    said = said_with(tmp_path, set_limit("RLIMIT_FSIZE", 4096), method)

    assert said.endswith("done 100, lost 0")


def test_where_files_may_have_no_size_the_run_says_so(tmp_path):
    said = said_with(tmp_path, set_limit("RLIMIT_FSIZE", 0), "fork")

    assert "cannot start" in said
    assert "File too large" in said


def test_a_job_that_may_not_write_on_fails_alone(tmp_path):
    batch = [("fill", str(tmp_path / "file"), 10_000), ("double", 1)]

    run = Watched(jobs.perform, batch, worker_limit=1).run()

    outcomes = run.by_key
    assert outcomes[0].error.errno == errno.EFBIG
    assert outcomes[1].value == 2
    assert run.report.workers_lost == 0


@METHODS
def test_no_temporary_folder_is_needed(method, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))

    assert said_with(tmp_path, "", method).endswith("done 100, lost 0")


@METHODS
def test_a_program_that_ignores_the_end_of_its_children_has_workers(method, tmp_path):
    limit = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"

    assert said_with(tmp_path, limit, method).endswith("done 100, lost 0")


def test_where_no_process_can_be_forked_the_run_says_so(tmp_path, monkeypatch):
    (tmp_path / "refused_worker.py").write_text(FORKS_FAIL.format(refuses="True"))
    monkeypatch.syspath_prepend(tmp_path)
    run = Watched("refused_worker:perform", [("double", 1)], worker_limit=2)

    with pytest.raises(WorkerStartError, match="could not be forked"):
        run.run()

    assert list(run.conductor.jobs_queue) == [("double", 1)]


def test_a_process_that_cannot_be_forked_once_can_be_later(tmp_path, monkeypatch):
    refuses = "len(calls) in (1, 3)"
    (tmp_path / "delayed_worker.py").write_text(FORKS_FAIL.format(refuses=refuses))
    monkeypatch.syspath_prepend(tmp_path)

    run = Watched("delayed_worker:perform", [("double", n) for n in range(20)], worker_limit=2)
    run.run()

    assert run.report.done == 20


def test_fifty_workers_on_few_cpus():
    batch = [("double", number) for number in range(500)]

    run = Watched(jobs.perform, batch, worker_limit=50).run()

    assert {k: o.value for k, o in run.by_key.items()} == {n: 2 * n for n in range(500)}
    assert run.report.workers_lost == 0


@METHODS
def test_a_payload_that_does_not_fit_into_a_worker_fails_alone(method):
    batch = [("size_of", bytes(size)) for size in (1, 256 * _MEBIBYTE, 3)]

    run = Watched(jobs.Cramped, batch, worker_limit=1, start_method=method).run()

    outcomes = run.by_key
    assert (outcomes[0].value, outcomes[2].value) == (1, 3)
    assert isinstance(outcomes[1].error, SerialisationError)
    assert "do not fit into the memory" in str(outcomes[1].error)
    assert run.report.workers_lost == 0


def test_a_job_that_wants_more_memory_than_there_is_fails_alone():
    batch = [("take_memory", 256 * _MEBIBYTE), ("double", 1)]

    run = Watched(jobs.Cramped, batch, worker_limit=1).run()

    outcomes = run.by_key
    assert isinstance(outcomes[0].error, MemoryError)
    assert outcomes[1].value == 2


def test_a_value_that_does_not_fit_into_the_conductor_fails_alone(tmp_path):
    said = said_by(tmp_path, HUGE)

    first, second, third = said.split("; ")
    assert (first[-11:], third) == ("0 done None", "2 done None")
    assert "do not fit into the memory" in second


def test_many_runs_leave_nothing_behind(tmp_path, monkeypatch):
    """A run holds more than a mebibyte, and an object that is kept alive holds the run."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run_often(5)
    gc.collect()
    descriptors = _open_descriptors()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run_often(30)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < _MEBIBYTE / 4
    assert _open_descriptors() == descriptors
    assert list(tmp_path.iterdir()) == []


def run_often(count: int) -> None:
    for _ in range(count):
        run = Watched(jobs.perform, [("double", n) for n in range(50)], worker_limit=2)
        assert run.run().report.done == 50
