"""Jobs that treat their process badly, and jobs that start others."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

import pytest

from faults import jobs
from faults.harness import Watched
from faults.moments import wait_until
from okanjo_conductor import Conductor, JobState, Retry
from okanjo_conductor.errors import ConductorStateError

DOUBLES = [2 * number for number in range(10)]
WHIMS = {
    "closes the standard streams": (("close_range", 0, 3), "closed"),
    "closes the low descriptors": (("close_range", 3, 101), "closed"),
    "leaves a thread": (("leave_a_thread",), "left"),
    "forks": (("fork_and_reap",), 7),
    "calls a program": (("call_a_program",), "hello"),
    "uses a pool that forks": (("use_a_pool", "fork"), DOUBLES),
    "uses a pool that spawns": (("use_a_pool", "spawn"), DOUBLES),
    "uses an executor that forks": (("use_an_executor", "fork"), DOUBLES),
    "uses an executor that spawns": (("use_an_executor", "spawn"), DOUBLES),
    "leaves an executor": (("leave_an_executor",), DOUBLES),
    "changes everything": (("change_everything",), "changed"),
    "forks and returns": (("fork_into_our_code", "returns"), 1),
    "forks and returns much": (("fork_into_our_code", "returns much"), 1),
    "forks and returns a lock": (("fork_into_our_code", "returns a lock"), 1),
    "forks and raises": (("fork_into_our_code", "raises"), 1),
    "forks and leaves": (("fork_into_our_code", "leaves"), 7),
    "forks and logs": (("fork_into_our_code", "logs"), 7),
}
SAID = {
    "returns": "forked by a job, returned from process_job",
    "raises": "ValueError: raised in the child",
    "logs": "logged in the child",
}


@pytest.mark.parametrize(("whim", "value"), WHIMS.values(), ids=WHIMS)
def test_a_job_may_do_what_it_likes_to_its_process(whim, value):
    """One worker, so that the jobs after it run in the same process."""
    run = Watched(jobs.perform, [whim, *(("double", n) for n in range(50))], worker_limit=1)

    run.run()

    values = [o.value for _, o in sorted(run.by_key.items())]
    assert values == [value, *(2 * n for n in range(50))]
    assert {o.attempts for o in run.outcomes} == {1}
    assert run.report.workers_lost == 0


@pytest.mark.parametrize(("how", "said"), SAID.items(), ids=SAID)
def test_what_a_forked_child_has_to_say_is_not_lost(how, said, capsys):
    Watched(jobs.perform, [("fork_into_our_code", how)], worker_limit=1).run()

    assert said in capsys.readouterr().err


def test_a_job_that_closes_all_descriptors_is_done_and_its_worker_is_replaced(capsys):
    batch = [("double", number) for number in range(20)]
    batch[10] = ("close_range", 3, 4096)

    run = Watched(jobs.perform, batch, worker_limit=2, retry=Retry(crashes=0)).run()

    outcomes = run.by_key
    assert outcomes.pop(10).value == "closed"
    assert {k: o.value for k, o in outcomes.items()} == {n: 2 * n for n in range(20) if n != 10}
    assert {o.attempts for o in run.outcomes} == {1}
    assert run.report.workers_lost == 1
    assert "Bad file descriptor" in capsys.readouterr().err


def test_exit_handlers_that_never_end_do_not_keep_the_run_from_ending(capsys):
    run = Watched(jobs.perform, [("leave_a_process", 0.1)], worker_limit=1).run()

    assert run.by_key[0].value == "left"
    assert "exit handlers of this worker have not ended" in capsys.readouterr().err


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_default_timeout_for_sockets_is_not_meant_for_ours(start_method, tmp_path, monkeypatch):
    (tmp_path / "hasty_worker.py").write_text(
        "import socket; socket.setdefaulttimeout(0.001)\ndef work(job): return job"
    )
    monkeypatch.syspath_prepend(tmp_path)
    socket.setdefaulttimeout(0.001)
    try:
        run = Watched("hasty_worker:work", range(10), worker_limit=2, start_method=start_method)
        run.run()
    finally:
        socket.setdefaulttimeout(None)

    assert sorted(o.value for o in run.outcomes) == list(range(10))
    assert run.report.workers_lost == 0


def test_a_job_that_changes_the_folder_stays_in_reach(tmp_path):
    run = Watched(
        jobs.perform, [("change_folder", str(tmp_path)), ("double", 1)], worker_limit=1
    ).run()

    assert [o.value for o in run.outcomes] == [os.path.realpath(tmp_path), 2]


class Counter:
    """A stream that keeps count."""

    characters = 0

    def write(self, text):
        self.characters += len(text)

    def flush(self):
        pass


def test_a_job_may_print_100_mb(monkeypatch):
    size = 100_000 * 1024
    heard = Counter()
    monkeypatch.setattr(sys, "stdout", heard)

    run = Watched(jobs.perform, [("print_much", size), ("double", 1)], worker_limit=1).run()

    assert [o.value for o in run.outcomes] == [size, 2]
    assert heard.characters == size


def test_all_that_jobs_print_arrives_line_by_line(capsys):
    size = 5_000 * 1024
    run = Watched(jobs.perform, [("print_much", size)] * 2, worker_limit=2).run()

    assert [o.value for o in run.outcomes] == [size, size]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 5_000
    assert set(lines) == {"x" * 1023}


def test_a_conductor_within_a_job_fails_that_job():
    run = Watched(jobs.perform, [("run_a_conductor",), ("double", 1)], worker_limit=1).run()

    outcomes = run.by_key
    assert outcomes[0].state is JobState.FAILED
    assert isinstance(outcomes[0].error, ConductorStateError)
    assert outcomes[1].value == 2


def test_a_job_that_scribbles_into_the_workers_descriptors_harms_only_itself():
    def scribble(job):
        if job == 3:
            for descriptor in range(200, 210):
                with suppress(OSError):
                    os.write(descriptor, b"\xff" * 64)
            signal.pause()  # the job: it is ended where it stands
        return job

    conductor = Conductor(scribble, worker_limit=2, jobs_queue=range(20), logging=False)
    outcomes = {outcome.key: outcome for outcome in conductor.outcomes()}
    assert set(outcomes) == set(range(20))
    assert all(outcomes[key].is_done for key in outcomes if key != 3)
    assert not outcomes[3].is_done


def test_a_child_that_a_job_forks_cannot_speak_for_the_worker():
    def fork(job):
        if os.fork() == 0:
            return "from the child"
        os.wait()
        return job

    conductor = Conductor(fork, worker_limit=1, jobs_queue=range(5), logging=False)
    assert sorted(outcome.value for outcome in conductor.outcomes()) == list(range(5))


@pytest.mark.parametrize("half", ["SHUT_RD", "SHUT_WR"])
def test_a_worker_that_shuts_half_of_its_link_while_it_is_idle_costs_no_job(half, tmp_path):
    """Who can still read, but say nothing, would wait for ever for jobs."""
    cut = tmp_path / "cut"

    def batch():
        yield "shut_link_when_idle", half, str(cut)
        # It may end before it says so.
        wait_until(lambda: cut.exists() or run.exits, "the link is cut")
        yield from (("double", n) for n in range(20))

    run = Watched(jobs.perform, batch(), worker_limit=1)
    run.run()

    assert {o.attempts for o in run.by_key.values()} == {1}
    assert run.report.done == 21
    assert [e.key for e in run.exits if e.cause is not None] == [None]
