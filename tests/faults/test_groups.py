"""What jobs have started ends with their worker, whichever way that one ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import jobs
from faults.harness import Watched, kill
from faults.moments import state_of, wait_until

GONE = {"", "Z"}
"""States of the dead: nobody need have reaped them."""


def is_gone(pid: int) -> bool:
    return state_of(pid) in GONE


def assert_they_end(pids: list[int]) -> None:
    assert len(pids) == 2
    wait_until(lambda: all(map(is_gone, pids)), f"{pids} are gone")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_of_a_job_end_with_a_worker_that_has_no_more_work(start_method, tmp_path):
    batch = [("start_a_family", str(tmp_path / "pids"))]

    run = Watched(jobs.perform, batch, worker_limit=1, start_method=start_method).run()

    assert run.report.workers_lost == 0
    assert_they_end(run.by_key[0].value)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("how", ["SIGKILL", "segfault", "exit 3"])
def test_processes_of_a_job_are_gone_before_its_next_attempt_ends(how, start_method, tmp_path):
    batch = [("start_a_family_and_end", str(tmp_path / "pids"), how)]

    run = Watched(jobs.perform, batch, worker_limit=1, start_method=start_method).run()

    assert run.by_key[0].attempts == 2
    assert_they_end(run.by_key[0].value)


def test_processes_of_a_job_end_with_a_worker_whose_template_is_gone(tmp_path):
    batch = [("start_a_family_and_orphan_it", str(tmp_path / "pids"))]

    run = Watched(jobs.perform, batch, worker_limit=1).run()

    assert run.by_key[0].attempts == 2
    assert_they_end(run.by_key[0].value)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_shared_memory_of_a_job_goes_before_what_cleans_it_up(start_method):
    run = Watched(
        jobs.perform, [("leave_shared_memory",)], worker_limit=1, start_method=start_method
    ).run()

    memory = Path("/dev/shm", run.by_key[0].value)
    try:
        assert not memory.exists()
    finally:
        memory.unlink(missing_ok=True)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_process_in_a_session_of_its_own_outlives_the_worker(start_method):
    run = Watched(
        jobs.perform, [("start_a_session",)], worker_limit=1, start_method=start_method
    ).run()

    pid = run.by_key[0].value
    try:
        assert not is_gone(pid)
    finally:
        kill(pid)
