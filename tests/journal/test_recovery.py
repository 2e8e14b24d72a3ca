"""What a dead conductor has left: outcomes are saved once, suspects found, nothing else touched."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import pytest

from journal.stores import Session, done, failed, retried
from okanjo_conductor import open_journal
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._io import cells
from okanjo_conductor._io.outcome_log import Writer as LogWriter
from okanjo_conductor._types import Retry
from okanjo_conductor._wire import failures, records
from okanjo_conductor.journal import _recovery, _store
from okanjo_conductor.journal._handouts import Notes
from okanjo_conductor.journal._recovery import recover
from okanjo_conductor.journal._store import Store


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


class DeadWorker:
    """What a worker has left in the folder of a run."""

    def __init__(self, path, worker_id, keys, first=1):
        self.folder = _folder(path)
        self.folder.mkdir(exist_ok=True)
        notes = Notes(self.folder, worker_id)
        notes.write(first, first + len(keys) - 1, pickle.dumps(keys))
        notes.close()
        descriptor = cells.make_page(str(self.folder / f"{worker_id}.page"))
        self.page = cells.map_page(descriptor)
        os.close(descriptor)
        self.log = LogWriter(self.page, lambda: None)

    def done(self, ordinal, value):
        self.page[cells.CLAIM] = ordinal
        item = records.atom(value) if type(value) is int else records.pickled(pickle.dumps(value))
        self.log.write(records.head(ordinal, 5_000_000) + item)

    def failed(self, ordinal, error):
        self.page[cells.CLAIM] = ordinal
        item = records.failure(failures.pack(failures.take_apart(error)))
        self.log.write(records.head(ordinal, 5_000_000) + item)

    def executing(self, ordinal):
        self.page[cells.CLAIM] = ordinal

    def close(self):
        self.log.ring.release()
        self.page.release()


def _folder(path):
    return Path(f"{path}-live")


@pytest.fixture
def worker(path):
    made = []

    def make(worker_id, keys, **options):
        made.append(DeadWorker(path, worker_id, keys, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def die(path, *committed, why=""):
    """Have a conductor begin a run, commit this, and die; or break off because of something."""
    session = Session(path)
    for record in committed:
        session.write(record)
    session.writer.close(session.loop.stop)
    session.loop.run_forever()
    session.writer._thread.join()
    session.loop.close()
    if why:
        session.store.break_off(why)
    session.store.close()


def recovered(path, retry=None):
    store = Store(path)
    try:
        return recover(store, Policy(retry=retry or Retry()))
    finally:
        store.close()


def kept(path):
    with open_journal(path) as journal:
        return {e.key: (e.state.value, e.value, e.run, e.attempts) for e in journal}


def test_outcomes_that_were_not_committed_are_saved(path, worker):
    die(path, done([10], keys=["a"]))
    one, two = worker(1, ["a", "b", "c"]), worker(2, ["d", "e"])
    one.done(1, 10)
    one.done(2, {"n": 20})
    two.failed(1, ValueError("bad d"))
    found = recovered(path)
    assert (found.outcomes, found.suspects) == (2, 0)
    assert kept(path) == {
        "a": ("done", 10, 1, 1),
        "b": ("done", {"n": 20}, 1, 1),
        "d": ("failed", None, 1, 1),
    }
    with open_journal(path) as journal:
        entry = journal.get("d")
        assert (entry.error, entry.seconds, entry.worker_id) == ("bad d", 0.005, 2)
        with pytest.raises(Exception, match="only that"):
            _ = entry.payload
    assert not _folder(path).exists()


def test_nothing_is_saved_twice_and_no_attempt_is_counted_twice(path, worker):
    die(path, retried("a", 1, ordinal=1), done([7], keys=["b"]))
    one = worker(1, ["a", "b", "a"])
    one.failed(1, ValueError("attempt 1"))
    one.done(2, 7)
    one.failed(3, ValueError("attempt 2"))
    found = recovered(path, Retry(errors=5))
    assert found.outcomes == 0
    store = Store(path)
    standing = store.standing(['"a"'])['"a"']
    assert [end.number for end in standing.history] == [1, 2]
    assert str(standing.history[1].error) == "attempt 2"
    store.close()


def test_an_attempt_that_spends_the_budget_fails_its_job(path, worker):
    die(path, retried("a", 1, ordinal=1))
    one = worker(1, ["a", "x", "a"])
    one.failed(3, ValueError("attempt 2"))
    assert recovered(path, Retry(errors=1)).outcomes == 1
    assert kept(path) == {"a": ("failed", None, 1, 2)}
    with open_journal(path) as journal:
        assert [end.number for end in journal.get("a").history] == [1, 2]


def test_a_job_that_failed_here_and_was_done_there_is_done(path, worker):
    die(path)
    worker(1, ["a"]).failed(1, ValueError("attempt 1"))
    worker(2, ["a"]).done(1, 5)
    recovered(path)
    assert kept(path) == {"a": ("done", 5, 1, 1)}


def test_an_outcome_that_an_earlier_run_had_is_replaced(path, worker):
    with Session(path) as session:
        session.write(failed("a"))
    die(path)
    worker(1, ["a"]).done(1, 5)
    assert recovered(path).outcomes == 1
    assert kept(path) == {"a": ("done", 5, 2, 1)}


def test_a_value_that_cannot_be_rebuilt_has_its_job_executed_again(path, worker):
    die(path)
    one = worker(1, ["a", "b"])
    one.log.write(records.head(1, 1) + records.pickled(b"cnowhere\nNothing\n."))
    one.done(2, 6)
    recovered(path)
    assert set(kept(path)) == {"b"}


def test_an_outcome_of_an_ordinal_that_nobody_noted_is_left_out(path, worker, caplog):
    die(path)
    worker(1, ["a"]).done(5, 6)
    assert recovered(path).outcomes == 0
    assert "1 outcomes of worker 1" in caplog.text


@pytest.mark.parametrize("cut", [0, 5, -3])
def test_torn_hand_outs_and_pages_are_no_obstacle(path, worker, cut):
    die(path)
    one = worker(1, ["a", "b"])
    one.done(1, 6)
    notes = next(one.folder.glob("1.*.handouts"))
    data = notes.read_bytes()
    notes.write_bytes(data + data[:cut] if cut > 0 else data[:cut])
    (one.folder / "2.page").write_bytes(b"\0" * 100)
    (one.folder / "x.page").write_bytes(b"")
    recovered(path)
    assert set(kept(path)) == ({"a"} if cut > 0 else set())
    assert not one.folder.exists()


def test_garbage_in_a_log_costs_only_its_own_outcomes(path, worker, caplog):
    die(path)
    one, two = worker(1, ["a"]), worker(2, ["b"])
    one.log.write(b"\xff" * 50)
    two.done(1, 6)
    recovered(path)
    assert set(kept(path)) == {"b"}
    assert "cannot be read" in caplog.text


def test_a_run_that_has_ended_left_nothing_to_save(path, worker):
    Session(path).close()
    worker(1, ["a"]).done(1, 6)
    assert recovered(path).outcomes == 0
    assert kept(path) == {}
    assert not _folder(path).exists()


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_a_recovery_that_is_killed_is_done_again(path, worker, when):
    die(path, retried("c", 1, ordinal=3))
    one = worker(1, ["a", "b", "c", "c"])
    one.done(1, [1])
    one.failed(2, ValueError("bad"))
    one.failed(3, ValueError("attempt 1"))
    one.failed(4, ValueError("attempt 2"))
    child = os.fork()
    if child == 0:
        die_at = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        if when == "before the commit":
            Store.transaction = lambda self, connection=None: Fatal(self._connection)
        else:
            _recovery.clear_folder = die_at
        recovered(path, Retry(errors=9))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    recovered(path, Retry(errors=9))
    assert kept(path) == {"a": ("done", [1], 1, 1)}
    store = Store(path)
    assert [end.number for end in store.standing(['"c"'])['"c"'].history] == [1, 2]
    assert [end.number for end in store.standing(['"b"'])['"b"'].history] == [1]
    store.close()


class Fatal(_store.Transaction):
    def __exit__(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)


# Suspects


def after_a_reboot(monkeypatch):
    monkeypatch.setattr(_store, "machine_id", lambda: "another life")


def state(path):
    with open_journal(path) as journal:
        return journal.runs()[0].state


def suspects(path):
    with open_journal(path) as journal:
        return {suspect.key: suspect.times for suspect in journal.suspects()}


def test_where_only_the_conductor_died_nobody_is_suspected(path, worker):
    die(path)
    worker(1, ["a", "b"]).executing(1)
    assert recovered(path).suspects == 0
    assert suspects(path) == {}


def test_what_was_executing_when_the_machine_went_down_is_suspected(path, worker, monkeypatch):
    die(path, done([1], keys=["a"]))
    one, two = worker(1, ["a", "b", "c"]), worker(2, ["d"])
    one.done(1, 1)
    one.executing(2)
    two.page[cells.CLAIM] = 0  # it has started nothing
    assert (suspects(path), state(path)) == ({}, "killed")
    after_a_reboot(monkeypatch)
    assert (suspects(path), state(path)) == ({"b": 1}, "down")
    assert recovered(path).suspects == 1
    with Session(path):
        assert (suspects(path), state(path)) == ({"b": 1}, "down")


def test_of_a_run_that_was_broken_off_nobody_is_suspected(path, worker, monkeypatch):
    die(path, why="no room")
    worker(1, ["a"]).executing(1)
    after_a_reboot(monkeypatch)
    assert recovered(path).suspects == 0
    assert (suspects(path), state(path)) == ({}, "broken")


def test_logs_are_not_believed_after_the_machine_went_down(path, worker, monkeypatch):
    die(path)
    worker(1, ["a"]).done(1, 6)
    after_a_reboot(monkeypatch)
    recovered(path)
    assert kept(path) == {}
    assert suspects(path) == {"a": 1}


def test_a_claim_that_had_not_reached_the_disk_points_to_the_next_unfinished_job(
    path, worker, monkeypatch
):
    die(path, done([1, 2], keys=["a", "b"]))
    worker(1, ["a", "b", "c", "d"]).executing(1)
    after_a_reboot(monkeypatch)
    recovered(path)
    assert suspects(path) == {"c": 1}


def test_whatever_a_parallel_worker_may_have_been_executing_is_suspected(path, worker, monkeypatch):
    die(path, done([1], keys=["b"]))
    one = worker(1, ["a", "b", "c", "d"])
    one.page[cells.PARALLEL] = 10
    one.executing(3)
    after_a_reboot(monkeypatch)
    recovered(path)
    assert suspects(path) == {"a": 1, "c": 1}


def test_each_time_counts_once(path, worker, monkeypatch):
    after_a_reboot(monkeypatch)
    for times in (1, 2):
        with monkeypatch.context() as before:
            before.setattr(_store, "machine_id", lambda: "this life")
            die(path)
        for _ in range(2):  # the first one is cut short before it removes the files
            worker(times, ["a"]).executing(1)
            with monkeypatch.context() as cut:
                cut.setattr(_recovery, "clear_folder", lambda _: None)
                recovered(path)
            (_folder(path) / f"{times}.page").unlink()
        recovered(path)
        assert suspects(path) == {"a": times}
