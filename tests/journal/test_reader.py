"""Reading a journal, while its run goes on and afterwards."""

from __future__ import annotations

import sys

import pytest

from journal.stores import Session, attempt, done, failed, retried
from okanjo_conductor import open_journal
from okanjo_conductor._types import Cause, JobState
from okanjo_conductor.errors import JournalError, RemoteError, SerialisationError, UnknownJobError
from okanjo_conductor.journal._reader import rate_of


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


def test_a_live_run_can_be_read_and_is_seen_to_grow(path):
    with Session(path) as session, open_journal(path) as journal:
        assert (len(journal), journal.is_live, journal.counts()) == (0, True, {})
        session.write(done([1, 2]), failed("a"))
        assert len(journal) == 3
        assert journal.counts() == {"done": 2, "failed": 1}
        (run,) = journal.runs()
        assert (run.state, run.ended_at, run.counts) == ("live", None, {"done": 2, "failed": 1})
        assert run.argv == tuple(sys.orig_argv) == journal.program
        session.close()
        assert [run.state for run in journal.runs()] == ["done"]
        assert not journal.is_live


def test_the_rate_is_that_of_a_run_that_goes_on(path):
    with Session(path) as session, open_journal(path) as journal:
        assert journal.rate() is None
        session.write(done([1, 2]))
        assert journal.rate() > 0
        session.close()
        assert journal.rate() is None


@pytest.mark.parametrize(
    ("ends", "rate"),
    [
        ([], 0),
        ([99, 98], 2 / 90),  # since its beginning
        ([100 - n / 100 for n in range(5000)], 100),  # of the last ten seconds
        ([99 - n for n in range(80)], 30 / 31),  # the last ones, as they are few
        ([50 - n for n in range(40)], 30 / 80),  # they come no more
    ],
)
def test_the_rate_is_that_of_the_last_seconds(ends, rate):
    assert (rate_of(ends, now=100, began=10) or 0) == pytest.approx(rate, rel=0.01)


def test_a_reading_that_goes_on_for_long_keeps_the_writer_from_nothing(path):
    with Session(path) as session, open_journal(path) as journal:
        session.write(done(range(1200)))
        entries = iter(journal)
        assert next(entries).key == 0
        session.write(done(range(1200, 1300)))
        (busy, _, _) = session.store._connection.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        ).fetchone()
        assert busy == 0, "no transaction of the reader's is open"
        assert [entry.key for entry in entries] == list(range(1, 1300))


def test_entries_are_listed_by_state(path):
    quarantined = failed("q", state=JobState.QUARANTINED, history=(attempt(1, Cause.CRASH),))
    with Session(path) as session:
        session.write(done([1]), failed("a"), quarantined, done([2]))
    with open_journal(path) as journal:
        assert [e.key for e in journal.outcomes("failed")] == ["a"]
        assert [e.key for e in journal.outcomes(JobState.QUARANTINED)] == ["q"]
        assert [e.key for e in journal.outcomes()] == [1, "a", "q", 2]
        with pytest.raises(ValueError, match="strange"):
            journal.outcomes("strange")


def test_a_job_is_found_by_its_key_or_by_what_somebody_types(path):
    with Session(path) as session:
        session.write(done([1, 2, 3], keys=["Quito", 7, ("a", 1)]))
    with open_journal(path) as journal:
        assert journal.get("Quito").value == 1
        assert journal.value(("a", 1)) == 3
        assert [journal.find(words).value for words in ("Quito", "7", '["a",1]')] == [1, 2, 3]
        assert 7 in journal
        assert 8 not in journal
        assert object() not in journal
        for ask in (journal.get, journal.value, journal.find):
            with pytest.raises(UnknownJobError, match="it holds 'Quito'") as caught:
                ask("Quitto")
            assert caught.value.near == ("Quito",)
        with pytest.raises(KeyError):
            journal.get(object())


def test_only_done_jobs_have_a_value(path):
    with Session(path) as session:
        session.write(failed("a"), done([None], keys=["b"]))
    with open_journal(path) as journal:
        assert journal.value("b") is None
        with pytest.raises(
            JournalError, match=r"job 'a' has no value: it is failed \(ValueError\)"
        ):
            journal.value("a")
        assert journal.get("b").payload is None
        assert journal.get("b").exception is None
        assert (journal.get("b").cause, journal.get("b").error) == (None, "")


def test_a_value_that_cannot_be_rebuilt_harms_no_other(path, monkeypatch):
    class Lost:
        pass

    Lost.__qualname__ = "Lost"
    monkeypatch.setattr(sys.modules[__name__], "Lost", Lost, raising=False)
    with Session(path) as session:
        session.write(done([Lost(), 5], keys="ab"))
    monkeypatch.delattr(sys.modules[__name__], "Lost")
    with open_journal(path) as journal:
        first, second = journal
        assert second.value == 5
        with pytest.raises(SerialisationError, match=r'the value of job "a".*AttributeError'):
            _ = first.value


def test_an_error_that_cannot_be_rebuilt_is_told(path, monkeypatch):
    class LostError(Exception):
        pass

    LostError.__qualname__ = "LostError"
    monkeypatch.setattr(sys.modules[__name__], "LostError", LostError, raising=False)
    with Session(path) as session:
        session.write(failed("a", history=(attempt(error=LostError("where \ud800 am I")),)))
    monkeypatch.delattr(sys.modules[__name__], "LostError")
    with open_journal(path) as journal:
        entry = journal.get("a")
        assert isinstance(entry.exception, RemoteError)
        assert entry.error == "where \\ud800 am I"
        assert entry.error_type.endswith("LostError")


def test_jobs_with_bad_ends_and_no_outcome_are_listed(path):
    with Session(path) as session:
        session.write(retried("a", 1), retried("a", 2), retried("b"), done([1], keys="b"))
    with open_journal(path) as journal:
        ((key, history),) = journal.unfinished()
        assert key == "a"
        assert [end.number for end in history] == [1, 2]


def test_what_a_payload_was_that_could_not_be_pickled_is_said(path):
    with Session(path) as session:
        session.write(failed("a", payload=lambda: 0))
    with open_journal(path) as journal, pytest.raises(JournalError, match="could not be pickled"):
        _ = journal.get("a").payload


def test_an_entry_as_an_outcome(path):
    with Session(path) as session:
        session.write(done([7], keys="b"), failed("a", payload=[1]))
    with open_journal(path) as journal:
        one, other = (entry.as_outcome() for entry in journal)
        assert (one.key, one.value, one.state, one.result()) == ("b", 7, "done", 7)
        assert (other.job, other.attempts, str(other.error)) == ([1], 1, "attempt 1")
        assert "failed" in repr(journal.get("a"))
        assert path in repr(journal)
