"""The conductor is killed: its workers and their template end with it, whatever they do."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from faults.harness import kill, start_script, wait_for_lines
from faults.moments import wait_until
from okanjo_conductor.testing.fixtures import processes_of_this_test

_SECONDS = 2.0
"""Within which everybody is gone. The kernel does it at once."""

_SHARED = Path("/dev/shm")
BUSINESS = [
    "sleeps",
    "ignores SIGTERM",
    "C code",
    "is stopped",
    "has a family",
    "has a conductor in a program",
    "closed the low descriptors",
]

BUSY = """
    from faults import jobs
    from okanjo_conductor import Conductor

    batch = [("be_busy", {running!r}, {how!r})] * 4
    conductor = Conductor(jobs.perform, jobs_queue=batch, worker_limit=2, start_method={method!r})
"""
FORKING = """
    import os, signal

    @conductor.on("worker_start")
    def fork(worker_id, pid):
        if worker_id == 1:
            child = os.fork()
            if child == 0:
                signal.pause()
            with open({child!r}, "w") as file:
                file.write(str(child))
"""
IMPORTING = """
    from okanjo_conductor import Conductor

    conductor = Conductor("slow_worker:work", jobs_queue=[1], start_method={method!r})
"""


def kill_when_busy(script, running, count) -> None:
    try:
        wait_for_lines(running, count)
    finally:
        kill(script.pid)
        script.communicate()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("how", BUSINESS)
def test_nobody_and_nothing_outlives_a_killed_conductor(how, method, tmp_path, monkeypatch):
    shared, temporary = set(_SHARED.iterdir()), tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    running = tmp_path / "running"
    text = BUSY.format(running=str(running), how=how, method=method)
    script = start_script(tmp_path, f"{text}\n    conductor.run()")

    kill_when_busy(script, running, 2)

    wait_until(lambda: not processes_of_this_test(), "everybody is gone", _SECONDS)
    assert list(temporary.iterdir()) == []
    assert not [path for path in set(_SHARED.iterdir()) - shared if "okanjo" in path.name]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nobody_imports_on_without_a_conductor(method, tmp_path):
    running = tmp_path / "running"
    (tmp_path / "slow_worker.py").write_text(
        f"from faults import jobs\njobs.slow_import({str(running)!r})\n"
    )
    script = start_script(tmp_path, f"{IMPORTING.format(method=method)}\n    conductor.run()")

    kill_when_busy(script, running, 1)

    wait_until(lambda: not processes_of_this_test(), "everybody is gone", _SECONDS)


@pytest.mark.parametrize("how", ["sleeps", "C code"])
def test_a_fork_of_the_conductor_does_not_keep_its_workers_alive(how, tmp_path):
    running, child = tmp_path / "running", tmp_path / "child"
    text = BUSY.format(running=str(running), how=how, method="fork")
    text += FORKING.format(child=str(child))
    script = start_script(tmp_path, f"{text}\n    conductor.run()")
    try:
        wait_for_lines(running, 2)
        (pid,) = map(int, wait_for_lines(child, 1))
    finally:
        kill(script.pid)
        os.waitpid(script.pid, 0)

    try:
        wait_until(lambda: processes_of_this_test() <= {pid}, "the others are gone", _SECONDS)
        assert processes_of_this_test() == {pid}
    finally:
        with suppress(ProcessLookupError):
            kill(pid)
        script.stderr.close()
        script.returncode = -9
