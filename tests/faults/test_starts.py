"""Workers that cannot start: the run says why, soon, and leaves nobody behind."""

from __future__ import annotations

import pytest

from faults import jobs
from faults.harness import Watched
from okanjo_conductor import Cause
from okanjo_conductor.clusters import _processes
from okanjo_conductor.errors import WorkerStartError

MODULES = {
    "raises": ("raise RuntimeError('broken import')", "RuntimeError: broken import"),
    "is missing a module": ("import no_such_module", "No module named 'no_such_module'"),
    "has a syntax error": ("def work(:", "SyntaxError"),
    "lacks the worker": ("", "has no attribute 'work'"),
    "leaves": ("import sys; sys.exit(5)", "SystemExit: 5"),
    "ends the process": ("import os; os._exit(9)", "9"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
}


def assert_it_gives_up(run: Watched, said: str, slots: int) -> None:
    with pytest.raises(WorkerStartError) as caught:
        run.run()
    assert caught.value.starts == 3
    assert said in caught.value.detail
    assert said in str(caught.value)
    assert run.outcomes == []
    assert list(run.conductor.jobs_queue) == list(range(10))
    assert 3 <= len(run.exits) <= 3 * slots
    assert run.ends == 1


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize(("source", "said"), MODULES.values(), ids=MODULES)
def test_a_module_that_cannot_be_imported_ends_the_run(
    source, said, start_method, tmp_path, monkeypatch
):
    (tmp_path / "broken_worker.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    run = Watched("broken_worker:work", range(10), worker_limit=2, start_method=start_method)

    assert_it_gives_up(run, said, 2)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("moment", ["construct", "setup"])
@pytest.mark.parametrize(
    ("how", "said"),
    [("raise", "RuntimeError: broken in {}"), ("exit 7", "code 7"), ("SIGKILL", "SIGKILL")],
)
def test_a_worker_that_dies_before_it_is_ready_ends_the_run(how, said, moment, start_method):
    options = {"moment": moment, "how": how}
    run = Watched(
        jobs.Mortal,
        range(10),
        worker_limit=2,
        worker_options=options,
        start_method=start_method,
    )

    assert_it_gives_up(run, said.format(moment), 2)


def test_options_that_the_worker_does_not_know_end_the_run():
    run = Watched(jobs.Reporter, range(10), worker_limit=1, worker_options={"speed": 9})

    assert_it_gives_up(run, "TypeError", 1)


def test_a_slot_that_fails_twice_and_then_starts_is_forgiven(tmp_path):
    (tmp_path / "moody_worker.py").write_text(
        "from pathlib import Path\n"
        f"count = len(list(Path({str(tmp_path)!r}).glob('start*')))\n"
        f"Path({str(tmp_path)!r}, f'start{{count}}').touch()\n"
        "if count < 2: raise RuntimeError('not yet')\n"
        "def work(job): return -job\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        run = Watched("moody_worker:work", range(10), worker_limit=1).run()

    assert {key: o.value for key, o in run.by_key.items()} == {n: -n for n in range(10)}
    assert {o.attempts for o in run.by_key.values()} == {1}


# Starts that take long


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_setup_that_does_not_end_ends_the_run_and_tells_where_it_was(start_method):
    run = Watched(
        jobs.Mortal,
        range(10),
        worker_limit=1,
        worker_options={"moment": "setup", "how": "wait"},
        start_method=start_method,
        start_timeout=2,
    )

    assert_it_gives_up(run, "in setup", 1)
    assert {end.cause for end in run.exits} == {Cause.TIMEOUT}


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_an_import_that_does_not_end_ends_the_run(start_method, tmp_path, monkeypatch):
    (tmp_path / "slow_worker.py").write_text("import time\nwhile True: time.sleep(3600)")
    monkeypatch.syspath_prepend(tmp_path)
    run = Watched(
        "slow_worker:work",
        range(10),
        worker_limit=1,
        start_method=start_method,
        start_timeout=0.3,
    )

    assert_it_gives_up(run, "its module was still being imported", 1)


def test_a_template_that_does_not_fork_is_replaced(tmp_path):
    """Only a second worker can end the second job."""
    run = Watched(
        jobs.perform,
        [
            ("stop_template", str(tmp_path / "stopped")),
            ("wait_for_all", str(tmp_path / "made")),
            ("make", str(tmp_path / "made")),
        ],
        worker_limit=1,
        start_timeout=2,
    )
    run.conductor.once("job_done", lambda _: run.conductor.resize(2))

    run.run()

    assert run.report.done == 3


def test_a_template_that_does_not_tell_of_a_death_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(_processes, "_REPORT_PATIENCE", 0.1)
    job = ("stop_template_and_die", str(tmp_path / "stopped"))

    run = Watched(jobs.perform, [job, ("double", 2)], worker_limit=1).run()

    assert [run.by_key[key].attempts for key in (0, 1)] == [2, 1]
    assert run.report.done == 2


def test_a_start_that_takes_long_is_told():
    run = Watched(
        jobs.Mortal,
        range(3),
        worker_limit=1,
        worker_options={"moment": "setup", "how": "wait"},
        stuck_after=2,
    )
    told = []

    @run.conductor.on("worker_stuck")
    def abort(stuck):
        told.append(stuck)
        run.conductor.abort()

    run.run()

    (stuck,) = told
    assert (stuck.worker_id, stuck.slot, stuck.key) == (1, 0, None)
    assert str(stuck).startswith("worker 1 in slot 0 has been starting for 2.0 s:")
    assert "in setup" in stuck.stack


def test_a_start_that_cannot_tell_its_stack_yet_survives_being_asked(tmp_path, monkeypatch):
    """Until the worker can write its stack, the signal that asks for it would end it."""
    told = tmp_path / "told"
    (tmp_path / "slow_worker.py").write_text(
        "import pathlib, time\n"
        f"while not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)\n"
        "def work(job): return job\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = Watched(
        "slow_worker:work", range(3), worker_limit=1, stuck_after=0.01, start_method="spawn"
    )
    run.conductor.on("worker_stuck", lambda stuck: stuck.stack or told.touch())

    run.run()

    assert {outcome.worker_id for outcome in run.outcomes} == {1}
    assert run.report.done == 3
