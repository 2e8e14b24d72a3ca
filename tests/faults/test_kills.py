"""Workers are killed, at every moment of their lives."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from typing import Self

import pytest

from faults import jobs
from faults.harness import Watched, kill, lines_of
from faults.moments import is_first, state_of, touch, wait_until
from okanjo_conductor import Cause, JobState, Outcome, Retry, WorkerExit
from okanjo_conductor._io import cells
from okanjo_conductor.errors import WorkerCrashError
from okanjo_conductor.testing import kill_worker_at

DEATHS = [
    ("SIGKILL", None, "SIGKILL"),
    ("SIGTERM", None, "SIGTERM"),
    ("segfault", None, "SIGSEGV"),
    ("exit 0", 0, None),
    ("exit 3", 3, None),
]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize(("how", "code", "signal_name"), DEATHS)
def test_only_the_job_under_which_a_worker_dies_is_charged(
    how, code, signal_name, start_method, tmp_path
):
    log, marker = tmp_path / "log", tmp_path / "marker"
    batch = [("noted", str(log), number) for number in range(100)]
    batch[50] = ("die_once", str(marker), how, str(log), 50)

    run = Watched(jobs.perform, batch, worker_limit=2, start_method=start_method).run()

    outcomes = run.by_key
    assert sorted(o.value for o in outcomes.values()) == list(range(100))
    charged = outcomes.pop(50)
    assert charged.attempts == 2
    (attempt,) = charged.history
    assert (attempt.number, attempt.cause) == (1, Cause.CRASH)
    assert isinstance(attempt.error, WorkerCrashError)
    assert (attempt.error.code, attempt.error.signal) == (code, signal_name)
    assert {o.attempts for o in outcomes.values()} == {1}
    assert Counter(lines_of(log)) == {str(n): 2 if n == 50 else 1 for n in range(100)}
    crashes = [e for e in run.exits if e.cause is Cause.CRASH]
    assert [(e.key, e.worker_id) for e in crashes] == [(50, attempt.worker_id)]


def test_a_stopped_worker_that_is_killed_is_replaced(tmp_path):
    log, marker = tmp_path / "log", tmp_path / "marker"
    batch = [("noted", str(log), number) for number in range(20)]
    batch[10] = ("die_once", str(marker), "stop", str(log), 10)
    run = Watched(jobs.perform, batch, worker_limit=1)

    def finish_off():
        wait_until(lambda: lines_of(tmp_path / "marker.pid"), "the job runs")
        pid = int(lines_of(tmp_path / "marker.pid")[0])
        wait_until(lambda: state_of(pid) == "T", "the worker is stopped")
        kill(pid)

    killer = threading.Thread(target=finish_off)
    killer.start()
    run.run()
    killer.join()

    assert run.report.done == 20
    assert {key for key, o in run.by_key.items() if o.attempts > 1} == {10}
    assert Counter(lines_of(log)) == {str(n): 2 if n == 10 else 1 for n in range(20)}


class Killer(threading.Thread):
    """Kills workers at random, as fast as they get on with the jobs."""

    def __init__(self, run: Watched) -> None:
        super().__init__()
        self.kills = 0
        self._run = run
        self._chance = random.Random(7)
        self._lock = threading.Lock()
        self._alive: dict[int, int] = {}
        """A pidfd per worker."""
        self._worked: set[int] = set()
        """Who has not worked yet is spared: that would count as a failed start."""
        self._is_over = threading.Event()
        run.conductor.on("worker_start", self._note_start)
        run.conductor.on("worker_exit", self._note_exit)
        run.conductor.on("job_done", self._note_work)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.is_set():
            wanted = len(self._run.outcomes) + self._chance.randrange(1, 300)
            with self._lock:
                self._kill_one()
            wait_until(lambda: self._have(wanted) or self._is_over.is_set(), "jobs go on")  # noqa: B023

    def _have(self, count: int) -> bool:
        return len(self._run.outcomes) >= count

    def _kill_one(self) -> None:
        if self._worked:
            victim = self._chance.choice(sorted(self._worked))
            self._worked.discard(victim)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._alive[victim], signal.SIGKILL)
                self.kills += 1

    def _note_start(self, worker_id: int, pid: int) -> None:
        with suppress(ProcessLookupError):
            self._alive[worker_id] = os.pidfd_open(pid)

    def _note_exit(self, end: WorkerExit) -> None:
        with self._lock:
            self._worked.discard(end.worker_id)
            pidfd = self._alive.pop(end.worker_id, None)
        if pidfd is not None:
            os.close(pidfd)

    def _note_work(self, outcome: Outcome) -> None:
        with self._lock:
            if outcome.worker_id in self._alive:
                self._worked.add(outcome.worker_id)


def test_no_job_is_lost_or_wrongly_charged_when_workers_are_killed_at_full_speed(tmp_path):
    count, starts = 20_000, tmp_path / "starts"
    starts.write_bytes(bytes(count))
    batch = [(str(starts), number) for number in range(count)]
    run = Watched(jobs.count_start, batch, worker_limit=3, retry=Retry(crashes=1000))

    with Killer(run) as killer:
        run.run()

    outcomes = run.by_key
    assert sorted(outcomes) == list(range(count))
    assert all(o.value == key for key, o in outcomes.items())
    started = starts.read_bytes()
    assert all(1 <= started[key] <= 1 + len(o.history) for key, o in outcomes.items())
    charges = Counter(a.worker_id for o in outcomes.values() for a in o.history)
    assert max(charges.values(), default=0) <= 1
    assert set(charges) <= {e.worker_id for e in run.exits if e.cause is Cause.CRASH}
    assert killer.kills > 10


def test_a_poison_job_is_quarantined_after_three_attempts_and_the_others_are_done(tmp_path):
    batch = [("double", number) for number in range(300)]
    batch[150] = ("die", "SIGKILL")

    run = Watched(jobs.perform, batch, worker_limit=2).run()

    outcomes = run.by_key
    poison = outcomes.pop(150)
    assert (poison.state, poison.cause, poison.attempts) == (
        JobState.QUARANTINED,
        Cause.CRASH,
        3,
    )
    assert isinstance(poison.error, WorkerCrashError)
    assert len({a.worker_id for a in poison.history}) == 3
    assert {key: o.value for key, o in outcomes.items()} == {
        n: 2 * n for n in range(300) if n != 150
    }
    assert {o.attempts for o in outcomes.values()} == {1}


def test_a_worker_killed_while_idle_harms_no_job(tmp_path):
    go = tmp_path / "go"
    run = Watched(jobs.perform, [("wait_for_all", str(go)), ("process_id",)], worker_limit=2)

    @run.conductor.on("job_done")
    def kill_the_idle(outcome):
        if outcome.key == 1:
            kill(outcome.value)

    @run.conductor.on("worker_exit")
    def let_go(_end):
        touch(go)

    run.run()

    assert {o.attempts for o in run.by_key.values()} == {1}
    idle = run.exits[0]
    assert (idle.key, idle.cause, idle.signal) == (None, Cause.CRASH, "SIGKILL")


@pytest.mark.parametrize("moment", ["setup", "teardown", "on_master_message"])
def test_a_worker_that_dies_between_jobs_charges_nobody(moment, tmp_path):
    batch = [("double", number) for number in range(50)]
    options = {"moment": moment, "marker": str(tmp_path / "marker")}
    run = Watched(jobs.Mortal, batch, worker_limit=2, worker_options=options)

    @run.conductor.on("worker_start")
    def greet(worker_id, _pid):
        run.conductor.send_message_to_worker(worker_id, "hello")

    run.run()

    assert {key: o.value for key, o in run.by_key.items()} == {n: 2 * n for n in range(50)}
    assert {o.attempts for o in run.by_key.values()} == {1}
    (crash,) = [e for e in run.exits if e.cause is Cause.CRASH]
    assert (crash.key, crash.signal) == (None, "SIGKILL")


def test_a_worker_killed_while_it_sends_its_result_is_charged_and_the_job_done_again(tmp_path):
    go = tmp_path / "go"
    sender = ("die_while_sending", str(tmp_path / "marker"), str(go))
    run = Watched(jobs.perform, [("process_id",), sender], worker_limit=1)

    @run.conductor.on("job_done")
    def read_nothing_until_it_is_dead(outcome):
        if outcome.key == 0:
            touch(go)
            wait_until(lambda: state_of(outcome.value) in "ZX", "the sender is dead")

    run.run()

    assert run.by_key[0].attempts == 1
    assert run.by_key[1].attempts == 2
    assert len(run.by_key[1].value) == 64 * jobs.MIB


def test_a_run_outlives_the_process_that_forks_its_workers(tmp_path):
    log = tmp_path / "log"
    batch = [("noted", str(log), number) for number in range(100)]
    batch[20] = ("end_template", str(tmp_path / "template"))
    batch[60] = ("die_once", str(tmp_path / "marker"), "SIGKILL", str(log), 60)

    run = Watched(jobs.perform, batch, worker_limit=2).run()

    assert run.report.done == 100
    assert {key for key, o in run.by_key.items() if o.attempts > 1} == {60}
    assert [e.key for e in run.exits if e.cause is not None] == [60]


def test_a_template_killed_with_orders_at_hand_loses_no_worker(tmp_path):
    """It is stopped before the second worker is ordered, and killed afterwards."""
    batch = [("die_once", str(tmp_path / "marker"), "SIGKILL", str(tmp_path / "log"), 0)]
    run = Watched(jobs.perform, batch, worker_limit=1)
    template = []

    @run.conductor.on("worker_start")
    def find_template(_worker_id, _pid):
        if is_first(tmp_path / "first"):
            (process,) = run.conductor._run._crew._processes
            template.append(process._pid)

    @run.conductor.on("worker_exit")
    def stop_template(_end):
        if is_first(tmp_path / "second"):
            os.kill(template[0], signal.SIGSTOP)
            run.conductor._loop.call_soon(kill, template[0])

    run.run()

    assert run.by_key[0].value == 0
    assert run.by_key[0].attempts == 2


@pytest.mark.parametrize("has_membarrier", [True, False], ids=["membarrier", "fallback"])
@pytest.mark.parametrize(
    "warm_up",
    [[], [("double", 1)] * 3000, [("nap", 0.003)] * 60],
    ids=["cold", "quick", "registered"],
)
def test_jobs_that_wait_behind_a_long_one_move_to_an_idle_worker(
    warm_up, has_membarrier, tmp_path, monkeypatch
):
    """The long job ends only when all the others have run: without recall, never."""
    if not has_membarrier:
        monkeypatch.setattr(cells, "membarrier", lambda: None)
    paths = [str(tmp_path / str(number)) for number in range(20)]
    batch = [*warm_up, ("wait_for_all", *paths), *(("make", path) for path in paths)]

    run = Watched(jobs.perform, batch, worker_limit=2).run()

    assert run.report.done == len(warm_up) + 21
    assert {o.attempts for o in run.by_key.values()} == {1}


def test_a_recalled_job_survives_the_death_of_the_worker_it_was_recalled_from(tmp_path):
    paths = [str(tmp_path / str(number)) for number in range(20)]
    run = Watched(
        jobs.perform,
        [("wait_for_all", *paths, str(tmp_path / "never"))] + [("make", path) for path in paths],
        worker_limit=2,
        retry=Retry(crashes=0),
    )

    @run.conductor.on("job_done")
    def kill_the_waiting(_outcome):
        if len(run.outcomes) == 20:
            for pid in run.pids.values():
                kill(pid)

    run.run()

    outcomes = run.by_key
    assert outcomes.pop(0).state is JobState.QUARANTINED
    assert {(o.state, o.attempts) for o in outcomes.values()} == {(JobState.DONE, 1)}


def test_a_job_behind_a_long_one_gets_a_worker_though_the_idle_one_died(tmp_path):
    """The long job ends only when the other has run; both wait in the only worker there is."""
    path = str(tmp_path / "made")
    batch = [("wait_for_all", path), ("make", path)]
    run = Watched(jobs.perform, batch, worker_limit=2)
    death = kill_worker_at(run.conductor, start=2)

    run.run()

    assert {o.attempts for o in run.by_key.values()} == {1}
    death.check()
