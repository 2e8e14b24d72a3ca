"""Workers that cannot start: the run says why, soon, and leaves nobody behind."""

from __future__ import annotations

import pytest

from faults import jobs
from faults.harness import Watched
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
