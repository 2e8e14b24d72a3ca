"""The file of a journal: who may open it, what it refuses, and what it knows of jobs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from journal.stores import Session, attempt, done, failed, retried
from okanjo_conductor import open_journal
from okanjo_conductor._types import Cause, JobState
from okanjo_conductor.errors import (
    ConfigurationError,
    JournalChangedError,
    JournalDamagedError,
    JournalError,
    JournalLockedError,
)
from okanjo_conductor.journal import _lock, _store
from okanjo_conductor.journal._fingerprint import Fingerprint
from okanjo_conductor.journal._store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def beside(path):
    return names_in(path.parent)


def beside_of(path, suffix):
    return path.with_name(f"{path.name}{suffix}")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_after_a_run_there_is_one_file(path):
    with Session(path) as session:
        session.write(done([1, 2, 3]))
        assert {"run.db-live", "run.db-lock"} <= set(beside(path))
    assert beside(path) == ["run.db"]


@pytest.mark.parametrize("durability", ["", "FULL", None])
def test_an_unknown_durability_is_refused(path, durability):
    with pytest.raises(ConfigurationError, match="durability"):
        Store(path, durability=durability)


# The lock


def test_a_second_conductor_is_kept_out_and_told_by_whom(path):
    with Session(path), pytest.raises(JournalLockedError) as caught:
        Store(path)
    assert caught.value.pid == os.getpid()
    assert f"process {os.getpid()} on {os.uname().nodename}, since 2" in str(caught.value)
    Session(path).close()


def run_python(code, *arguments, **options):
    argv = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)


def test_the_kernel_frees_the_lock_of_who_is_killed(path):
    code = """
    import sys, signal
    from okanjo_conductor.journal._store import Store
    store = Store(sys.argv[1]); store.begin(); print("held", flush=True); signal.pause()
    """
    with run_python(code, path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalLockedError) as caught:
            Store(path)
        assert caught.value.pid == holder.pid
        holder.kill()
    with Session(path) as session:
        assert session.store.run == 2
    with open_journal(path) as journal:
        assert [run.state for run in journal.runs()] == ["killed", "done"]


def test_a_forked_child_does_not_keep_the_lock(path):
    code = """
    import os, sys, signal
    from okanjo_conductor.journal._store import Store
    store = Store(sys.argv[1])
    child = os.fork()
    if child:
        print(child, flush=True)
    signal.pause()
    """
    with run_python(code, path) as holder:
        child = int(holder.stdout.readline())
        with pytest.raises(JournalLockedError):
            Store(path)
        holder.kill()
        holder.wait()
        try:
            Store(path).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_looking_whether_a_run_goes_on_keeps_nobody_out(path):
    with Session(path), open_journal(path) as journal:
        assert journal.is_live
    with open_journal(path) as journal:
        assert not journal.is_live
        Session(path).close()


def test_a_lock_file_that_was_removed_in_between_does_not_count(path, monkeypatch):
    """A holder removes the file before it lets go: who has opened it before has the wrong one."""
    flock = _lock.fcntl.flock
    trials = []

    def late_flock(descriptor, how):
        trials.append(descriptor)
        if len(trials) == 1:
            beside_of(path, "-lock").unlink()
        return flock(descriptor, how)

    with monkeypatch.context() as patched:
        patched.setattr(_lock.fcntl, "flock", late_flock)
        lock = _lock.Lock(path)
    assert len(trials) == 2
    with pytest.raises(JournalLockedError):
        _lock.Lock(path)
    lock.release()


# What it is not


def refused(path, kind, match):
    before = path.read_bytes()
    for open_it in (Store, open_journal):
        with pytest.raises(kind, match=match) as caught:
            open_it(path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert not [name for name in beside(path) if name.endswith("-lock")]


def test_a_text_file_is_no_journal(path):
    path.write_text("This is the only copy of my thesis. " * 300)
    refused(path, JournalDamagedError, "not a database")


def test_another_programs_database_is_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine(a)")
    connection.close()
    refused(path, JournalError, "of another program")


def test_a_newer_format_is_left_alone(path):
    Session(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    refused(path, JournalError, "format 99.*update the package")


def test_a_truncated_journal_is_named_and_left_alone(path):
    with Session(path) as session:
        session.write(done(range(5000)))
    os.truncate(path, path.stat().st_size // 2)
    refused(path, JournalDamagedError, "is damaged.*Keep a copy")


def test_a_page_of_garbage_is_named_and_left_alone(path):
    with Session(path) as session:
        session.write(done(range(5000)))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    before = path.read_bytes()
    with pytest.raises(JournalDamagedError, match="Keep a copy"):
        Store(path)
    assert path.read_bytes() == before
    with open_journal(path) as journal, pytest.raises(JournalDamagedError):
        list(journal)


def test_a_journal_whose_making_was_cut_short_is_made_again(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")  # writes a first page
    connection.close()
    with Session(path) as session:
        session.write(done([1]))
    empty = beside_of(path, "2")
    empty.touch()
    Session(empty).close()


def test_an_old_sqlite_is_named(path, monkeypatch):
    monkeypatch.setattr(_store.sqlite3, "sqlite_version_info", (3, 34, 0))
    with pytest.raises(JournalError, match=r"SQLite 3\.37 or newer"):
        Store(path)


def test_a_file_system_without_shared_memory_is_named(path, monkeypatch):
    class Stubborn(sqlite3.Connection):
        def execute(self, statement, *given):
            if statement == "PRAGMA journal_mode = WAL":
                statement = "PRAGMA journal_mode"  # what SQLite does where it cannot
            return super().execute(statement, *given)

    connect = sqlite3.connect
    monkeypatch.setattr(
        _store.sqlite3, "connect", lambda *a, **o: connect(*a, factory=Stubborn, **o)
    )
    with pytest.raises(JournalError, match="put the journal on a local disk"):
        Store(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(JournalError, match="nowhere"):
        Store(tmp_path / "nowhere" / "run.db")
    with pytest.raises(JournalError, match="there is no journal at"):
        open_journal(tmp_path / "run.db")


# The program


def test_another_program_is_refused_with_what_has_changed(path):
    one = Fingerprint({"worker": "RATE = 3"}, {"model": '"a"'}, "1")
    other = Fingerprint({"worker": "RATE = 4"}, {"model": '"b"'}, "2")
    with Session(path) as session:
        session.store.check(one)
        session.store.check(one)
        with pytest.raises(JournalChangedError) as caught:
            session.store.check(other)
        told = str(caught.value)
        for part in ("'1' became '2'", "-RATE = 3", "+RATE = 4", "model", "accept_changed=True"):
            assert part in told
        session.store.check(other, accept_changed=True)
        session.store.check(other)


# What is known of jobs


def test_unknown_jobs_are_missing(path):
    with Session(path) as session:
        session.write(done([1, 2]))
        assert set(session.store.standing(["1", "3", '"x"'])) == {"1"}
        assert session.store.standing([]) == {}


def test_the_state_of_a_job_and_the_last_run_that_met_it_are_known(path):
    with Session(path) as session:
        session.write(done([1, 2]), failed("a"))
    with Session(path) as session:
        known = session.store.standing(["1", "2", '"a"'])
        assert [known[key].state for key in ("1", "2", '"a"')] == ["done", "done", "failed"]
        assert {standing.run for standing in known.values()} == {1}
        session.writer.meet(["1", '"a"'])
        session.flush()
        assert session.met == ["1", '"a"']
        known = session.store.standing(["1", "2", '"a"'])
        assert [known[key].run for key in ("1", "2", '"a"')] == [2, 1, 2]
        assert known["1"].entry().value == 1
    with Session(path) as session:
        assert {s.run for s in session.store.standing(["1", "2", '"a"']).values()} == {1}


def test_bad_ends_of_an_unfinished_job_are_known_to_the_next_run(path):
    with Session(path) as session:
        session.write(retried("a", 1), retried("a", 2), retried("b", 1))
        session.write(done([5], keys=["b"]))
    with Session(path) as session:
        known = session.store.standing(['"a"', '"b"'])
        assert [end.number for end in known['"a"'].history] == [1, 2]
        assert [str(end.error) for end in known['"a"'].history] == ["attempt 1", "attempt 2"]
        assert known['"a"'].state is None
        assert known['"b"'].state is JobState.DONE
        assert known['"b"'].history == ()


def test_suspicion_lasts_until_a_job_is_done(path):
    with Session(path) as session:
        for key in ('"a"', '"b"', '"c"'):
            session.writer.suspect(key, 2)
        session.flush()
    with Session(path) as session:
        assert session.store.standing(['"a"'])['"a"'].suspicion == 2
        quarantined = failed("b", state=JobState.QUARANTINED, history=(attempt(1, Cause.CRASH),))
        session.write(done([1], keys=["a"]), quarantined)
    with Session(path) as session:
        known = session.store.standing(['"a"', '"b"', '"c"'])
        assert [known[key].suspicion for key in ('"a"', '"b"', '"c"')] == [0, 1, 2]
    with open_journal(path) as journal:
        assert [(s.key, s.times) for s in journal.suspects()] == [("c", 2), ("b", 1)]


def test_files_of_values_that_were_not_committed_are_removed_at_the_next_start(path):
    with Session(path, spill_over=100) as session:
        session.write(done([list(range(100)), "x" * 200], keys=["a", "b"]))
        session.write(failed("c", payload=list(range(200))))
    folder = beside_of(path, "-values")
    kept = names_in(folder)
    assert len(kept) == 3
    for name in ("0123.json", "4567.pickle.new"):
        (folder / name).write_text("[]")
    Session(path).close()
    assert names_in(folder) == kept
    with open_journal(path) as journal:
        assert journal.value("a") == list(range(100))
        assert journal.get("c").payload == list(range(200))


def test_why_a_run_could_not_go_on_is_noted_with_what_was_kept_for_it(path):
    with Session(path) as session:
        (reserve,) = session.store.live.glob("reserve")
        assert reserve.stat().st_blocks * 512 >= 1 << 16
        session.store.break_off("no room")
        assert not reserve.exists()
        session.close(state=None)
    with open_journal(path) as journal:
        (run,) = journal.runs()
        assert (run.state, run.error) == ("broken", "no room")
        assert run.ended_at is not None
