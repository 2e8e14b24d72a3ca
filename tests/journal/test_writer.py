"""The thread that commits: in order, together, and with a word when it cannot."""

from __future__ import annotations

import threading
import time

import pytest

from journal.stores import Session, attempt, done, failed, retried
from okanjo_conductor import open_journal
from okanjo_conductor._core.records import JobFailed, JobsDone
from okanjo_conductor._types import Cause, JobState
from okanjo_conductor.errors import JournalError, JournalFullError, SinkError
from okanjo_conductor.journal import _writer
from okanjo_conductor.sinks import JsonLines, Sink


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


def kept(path):
    with open_journal(path) as journal:
        return [(entry.key, entry.state.value, entry.value) for entry in journal.outcomes()]


def test_records_are_committed_and_told_in_order(path):
    records = [done([1, 2]), failed("a"), done(["x"]), retried("b"), failed("b"), done([None], "n")]
    with Session(path) as session:
        for record in records:
            session.writer.write([record])
        session.flush()
        assert session.batches == [[record] for record in records]
        assert session.writer.backlog == 0
    assert [key for key, _, _ in kept(path)] == [1, 2, "a", "x", "b", "n"]


def test_nothing_is_told_before_it_is_committed(path):
    with Session(path) as session:
        seen = []

        def look(batches):
            with open_journal(path) as journal:
                seen.append((len(batches), len(journal)))

        session.writer._on_commit = look
        session.write(done([1, 2, 3]))
        session.write(done([4]))
        assert seen == [(1, 3), (1, 4)]


def never(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(_writer, name, 3600)


def test_what_comes_while_a_commit_goes_on_is_committed_together(path, monkeypatch):
    never(monkeypatch, "_SOON", "_LATER")  # nothing is due but what is waited for
    with Session(path) as session:
        session.write(done([0]))
        commits = []
        commit = session.writer._commit
        session.writer._commit = lambda work: (commits.append(len(work.batches)), commit(work))
        for number in range(1, 50):
            session.writer.write([done([number])])
        session.flush()
        assert commits == [49]
        assert len(session.batches) == 50


def test_after_an_idle_time_a_commit_does_not_wait(path):
    with Session(path) as session:
        session.writer._on_commit = lambda _: session.loop.stop()
        session.loop.call_soon(session.writer.write, [done([1])])
        session.loop.run_forever()


def commit_of(session, *lists):
    """Write lists of records one after another; return how many of them the next commit takes.

    An empty one stands for somebody who is held up.
    """
    known = len(session.batches)
    told = session.writer._on_commit
    session.writer._on_commit = lambda batches: (told(batches), session.loop.stop())
    for records in lists:
        session.writer.write(records) if records else session.writer.hurry()
    session.loop.run_forever()
    session.writer._on_commit = told
    return len(session.batches) - known


def test_outcomes_in_some_number_wait_for_more(path, monkeypatch):
    never(monkeypatch, "_LATER")
    with Session(path) as session:
        session.write(done([0]))
        some = [done(range(1, _writer._FEW + 2))]
        assert commit_of(session, some, [done(range(100, 100 + _writer._MANY))]) == 2


def test_a_few_outcomes_do_not_wait_for_more(path, monkeypatch):
    never(monkeypatch, "_LATER")
    with Session(path) as session:
        session.write(done([0]))
        assert commit_of(session, [done(range(1, _writer._FEW + 1))]) == 1


def test_no_outcome_waits_where_somebody_is_held_up(path, monkeypatch):
    never(monkeypatch, "_SOON", "_LATER")
    with Session(path) as session:
        session.write(done([0]))
        assert commit_of(session, [done([1])], []) == 1


@pytest.mark.parametrize("count", [1, 3, 4, 31, 32, 255, 256, 257, 700])
def test_any_number_of_rows_goes_in(path, count):
    with Session(path) as session:
        session.write(done(range(count)))
    assert [value for _, _, value in kept(path)] == list(range(count))


def test_all_kinds_of_values_come_back(path):
    values = [1, "a", None, 2.5, True, [1, 2], (1, 2), {"a": {1: 2}}, b"x", 1 << 70]
    with Session(path) as session:
        session.write(done(values, keys=range(len(values))))
    assert [(type(v), v) for _, _, v in kept(path)] == [(type(v), v) for v in values]


def test_a_value_that_cannot_be_kept_fails_its_job_and_no_other(path):
    def local():
        pass

    values = [1, local, "b", lambda: 0, local]
    histories = {2: (attempt(),), 3: (attempt(),)}
    with Session(path) as session:
        session.write(done(values, keys="abcde", histories=histories))
        (told,) = session.batches
        assert session.writer.backlog == 0
    assert [type(record) for record in told] == [
        JobsDone,
        JobFailed,
        JobsDone,
        JobFailed,
        JobFailed,
    ]
    assert [record.values for record in told if isinstance(record, JobsDone)] == [[1], ["b"]]
    assert told[2].histories == {2: (attempt(),)} or len(told[2].histories) == 1
    refused = told[3]
    assert (refused.state, refused.cause) == (JobState.FAILED, Cause.UNSERIALISABLE)
    assert [end.number for end in refused.history] == [1, 2]
    assert "cannot be kept in the journal" in str(refused.error)
    with open_journal(path) as journal:
        assert [(entry.key, entry.state.value) for entry in journal.outcomes()] == [
            ("a", "done"),
            ("b", "failed"),
            ("c", "done"),
            ("d", "failed"),
            ("e", "failed"),
        ]
        assert journal.get("c").attempts == 2
        assert journal.get("d").cause is Cause.UNSERIALISABLE


def test_a_failed_job_keeps_its_payload_error_and_history(path):
    history = (attempt(1), attempt(2, Cause.TIMEOUT), attempt(3))
    payload = {"url": "http://example.org", "depth": 3}
    with Session(path) as session:
        session.write(
            failed("a", payload, history=history), failed("b", (1, 2), wire=b"\x80\x05K\x05.")
        )
    with open_journal(path) as journal:
        entry = journal.get("a")
        assert entry.payload == payload
        assert (entry.error_type, entry.error) == ("ValueError", "attempt 3")
        assert isinstance(entry.exception, ValueError)
        assert [end.cause for end in entry.history] == [Cause.ERROR, Cause.TIMEOUT, Cause.ERROR]
        assert (entry.attempts, entry.place) == (3, "work.py:1 in work")
        assert entry.seconds == 0.5
        assert journal.get("b").payload == 5, "as it was when the job was accepted"


def test_a_job_that_is_asked_for_anew_replaces_its_outcome(path):
    with Session(path) as session:
        session.write(failed("a", history=(attempt(1), attempt(2))), done([1], keys="b"))
    with Session(path) as session:
        session.write(done([7], keys="a"))
    with open_journal(path) as journal:
        entry = journal.get("a")
        assert (entry.value, entry.attempts, entry.history, entry.run) == (7, 1, (), 2)
        assert [entry.key for entry in journal] == ["b", "a"]
        assert journal.counts() == {"done": 2}


def test_bad_ends_of_a_job_that_is_asked_for_anew_count_from_the_beginning(path):
    with Session(path) as session:
        session.write(failed("a", history=(attempt(1), attempt(2), attempt(3))))
    with Session(path) as session:
        session.write(retried("a", 1))
    with open_journal(path) as journal:
        assert [end.number for end in journal.get("a").history] == [1]


def test_what_is_known_of_the_source_is_noted(path):
    with Session(path) as session:
        session.writer.note_intake(_writer.Intake(70, 20, 100))
        session.write(done([1]))
        with open_journal(path) as journal:
            (run,) = journal.runs()
            assert (run.total, run.skipped, run.expected, run.finished) == (70, 20, 100, 1)


def test_what_is_known_of_the_source_is_noted_in_idle_time_too(path, monkeypatch):
    turns = threading.Semaphore(0)
    monkeypatch.setattr(_writer, "PERIOD", 0.01)
    monkeypatch.setattr(_writer.Syncing, "sync_if_due", lambda _: turns.release())
    with Session(path) as session:
        session.writer.note_intake(_writer.Intake(70, 20, None))
        for _ in range(3):
            assert turns.acquire(timeout=60)
        with open_journal(path) as journal:
            (run,) = journal.runs()
            assert (run.total, run.skipped, run.expected, run.finished) == (70, 20, None, 0)


def make_full(session):
    """Let the database not grow any more, as on a full disk."""
    (pages,) = session.writer._connection.execute("PRAGMA page_count").fetchone()
    session.writer._connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_told_once_and_what_was_committed_stays(path):
    with Session(path) as session:
        session.write(done(range(10)))
        make_full(session)
        session.write(done(["x" * 1000] * 500, keys=range(100, 600)))
        session.write(done([5], keys="y"))
        assert [type(error) for error in session.errors] == [JournalFullError]
        assert "make room" in str(session.errors[0])
        assert "is safe" in str(session.errors[0])
        assert len(session.batches) == 1
        assert session.writer.backlog == 2
        session.close("stopped")
    assert len(kept(path)) == 10
    with Session(path) as session:
        session.write(done([1], keys="z"))


class Recorder(Sink):
    """Notes what it is asked to do, and fails when told to."""

    name = "recorder"

    def __init__(self):
        self.said = []
        self.fails = False

    def open(self, position, since, *, is_durable=False):
        self.said.append(("open", position))
        return position or 0

    def write(self, outcomes, seq):
        if self.fails:
            raise OSError(28, "no room for the sink")
        self.said.append(("write", [outcome.key for outcome in outcomes], seq))
        return seq

    def rewind(self, position):
        self.said.append(("rewind", position))

    def close(self):
        self.said.append(("close",))
        return "the end"


def test_a_sink_that_fails_stops_everything_and_is_named(path):
    sink = Recorder()
    with Session(path, [sink]) as session:
        session.write(done([1, 2]))
        sink.fails = True
        session.write(done([3]))
        assert [type(error) for error in session.errors] == [SinkError]
        assert "recorder" in repr(session.errors[0]).lower()
        assert "no room for the sink" in str(session.errors[0])
        session.close("stopped")
    assert [key for key, _, _ in kept(path)] == [1, 2]
    assert sink.said == [("open", None), ("write", [1, 2], 2), ("rewind", 2)]


def test_a_sink_forgets_what_could_not_be_committed(path, tmp_path):
    lines = tmp_path / "out.jsonl"
    with Session(path, [JsonLines(lines)]) as session:
        session.write(done([1, 2]))
        before = lines.read_text()
        make_full(session)
        session.write(done(["x" * 1000] * 500, keys=range(100, 600)))
        assert isinstance(session.errors[0], JournalFullError)
        session.close("stopped")
    assert lines.read_text() == before


def test_a_sink_goes_on_where_it_was_and_is_given_what_it_has_missed(path):
    with Session(path) as session:
        session.write(done([1, 2]))
    sink = Recorder()
    with Session(path, [sink]) as session:
        session.write(done([3]), failed("a"), retried("b"))
    assert sink.said[:2] == [("open", None), ("write", [1, 2], 2)]
    assert sink.said[2:] == [("write", [3], 4), ("close",)]
    with Session(path) as session:
        session.write(failed("c"))
    sink.said.clear()
    with Session(path, [sink]) as session:
        session.write(done([9]))
    assert sink.said == [("open", "the end"), ("write", [9], 6), ("close",)]


def test_a_sink_that_wants_failures_is_given_them(path):
    sink = Recorder()
    sink.failures = True
    with Session(path, [sink]) as session:
        session.write(done([1]), failed("a"), retried("b"), done([2]))
    assert sink.said[1] == ("write", [1, "a", 2], 3)


def test_a_sink_that_cannot_be_opened_leaves_the_others_as_they_were(path, tmp_path):
    first = Recorder()
    (tmp_path / "out.jsonl").write_text("mine\n")
    with pytest.raises(SinkError, match="is there already"):
        Session(path, [first, JsonLines(tmp_path / "out.jsonl")])
    assert first.said == [("open", None), ("rewind", 0)]
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


def test_an_error_of_our_own_is_told_as_well(path):
    with Session(path) as session:
        session.writer._rows.add = lambda *_: 1 / 0
        session.write(done([1]))
        assert [type(error) for error in session.errors] == [JournalError]
        assert "ZeroDivisionError" in str(session.errors[0])


def test_writing_never_waits_while_the_thread_does(path):
    """The run goes on while a commit takes its time."""
    sink, gate, is_in = Recorder(), threading.Event(), threading.Event()

    def slow(outcomes, seq):
        is_in.set()
        gate.wait(60)
        return seq

    sink.write = slow
    with Session(path, [sink]) as session:
        session.writer.write([done([1])])
        assert is_in.wait(60)
        began = time.monotonic()
        for number in range(100):
            session.writer.write([done([number])])
        assert session.writer.backlog == 101
        assert time.monotonic() - began < 30
        gate.set()
        session.flush()
        assert len(session.batches) == 101
