"""Runs with a journal: what is skipped, executed again, numbered or refused when it is resumed."""

from __future__ import annotations

import asyncio
import errno
import sqlite3

import numpy as np
import pytest

from okanjo_conductor import Cause, Conductor, JobState, Retry, open_journal
from okanjo_conductor.errors import (
    ConfigurationError,
    DuplicateKeyError,
    IntakeError,
    JobKeyError,
    JournalFullError,
    JournalLockedError,
    MachineCrashError,
    SerialisationError,
)
from okanjo_conductor.journal import _writer
from okanjo_conductor.journal._handouts import Notes
from okanjo_conductor.journal._store import Store
from system import journaled


class Program:
    """A program that is started again and again, with the same journal."""

    def __init__(self, folder):
        self.path = folder / "run.db"

    def conductor(self, jobs, worker=journaled.work, **options):
        options = {"logging": False, "worker_limit": 2, **options}
        return Conductor(worker, jobs_queue=jobs, journal=self.path, **options)

    def run(self, jobs, worker=journaled.work, **options):
        """Run; return the outcomes by key, and the report."""
        conductor = self.conductor(jobs, worker, **options)
        return by_key(conductor.outcomes()), conductor.report

    def kept(self):
        with open_journal(self.path) as journal:
            return {entry.key: entry.state for entry in journal.outcomes()}


def by_key(outcomes):
    found = list(outcomes)
    made = {outcome.key: outcome for outcome in found}
    assert len(made) == len(found)
    return made


def values(outcomes):
    return {key: outcome.value for key, outcome in outcomes.items()}


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


def test_what_is_done_is_skipped_and_can_be_read_back(program):
    first, report = program.run([1, 2, 3])
    assert values(first) == {1: 2, 2: 4, 3: 6}
    assert (report.done, report.skipped) == (3, 0)

    second, report = program.run([3, 5, 1])  # shuffled, grown, shrunk
    assert values(second) == {5: 10}
    assert (report.done, report.skipped) == (1, 2)
    with open_journal(program.path) as journal:
        assert {e.key: e.value for e in journal.outcomes()} == {1: 2, 2: 4, 3: 6, 5: 10}
        assert journal.value(3) == 6


@pytest.mark.parametrize("source", [list, iter], ids=["container", "iterator"])
def test_thousands_that_are_skipped_are_no_reason_to_stop(program, source):
    program.run(range(3000))
    made, report = program.run(source([*range(3003)]))
    assert set(made) == {3000, 3001, 3002}
    assert report.skipped == 3000


@pytest.mark.parametrize(
    ("rerun", "again"),
    [
        (None, set()),
        ("failed", {"bad", "deadly"}),
        (["good", "bad"], {"good", "bad"}),
        (lambda entry: entry.cause is Cause.CRASH, {"deadly"}),
    ],
    ids=["nothing", "failed", "keys", "predicate"],
)
def test_jobs_that_have_ended_are_executed_again_when_that_is_asked_for(program, rerun, again):
    jobs, retry = ["good", "bad", "deadly"], Retry(crashes=0)
    first, _ = program.run(jobs, retry=retry)
    assert first["deadly"].state is JobState.QUARANTINED

    second, report = program.run(jobs, retry=retry, rerun=rerun)
    assert set(second) == again
    assert report.skipped == 3 - len(again)
    assert all(outcome.attempts == 1 for outcome in second.values())


def test_a_job_that_was_cancelled_is_executed_by_the_next_run(program):
    conductor = program.conductor(["first", "late"], worker_limit=1)
    conductor.on("worker_start", lambda *_: conductor.cancel("late"))
    made = by_key(conductor.outcomes())
    assert made["late"].state is JobState.CANCELLED

    again, report = program.run(["first", "late"])
    assert set(again) == {"late"}
    assert report.skipped == 1


def test_what_a_stopped_run_has_given_back_is_executed_by_the_next(program):
    conductor = program.conductor(range(100_000))
    conductor.once("job_done", lambda _: conductor.drain())
    report = conductor.run()
    assert report.unstarted

    made, second = program.run(range(100_000))
    assert second.skipped == report.done
    assert len(made) + report.done == 100_000


# Keys


def test_jobs_are_told_apart_by_what_they_are(program):
    jobs = [{"a": 1, "b": [2]}, {"b": [2], "a": 2}, (1, 2), "1", 1]
    program.run(jobs, repr)
    _, report = program.run([{"b": [2], "a": 1}, *jobs[1:]], repr)
    assert report.skipped == 5


class Order:
    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("jobs", [[{"number": 7, "at": 1}], [Order(7)]], ids=["field", "attribute"])
def test_a_part_of_a_job_can_be_its_key(program, jobs):
    made, _ = program.run(jobs, journaled.number_of, job_key="number")
    assert values(made) == {7: 7}
    _, report = program.run([{"number": 7, "at": 2}], journaled.number_of, job_key="number")
    assert report.skipped == 1


def test_a_job_without_the_part_that_is_its_key_breaks_the_source(program):
    with pytest.raises(IntakeError, match="job_key='number': this job has none"):
        program.conductor([{"at": 1}], job_key="number").run()
    with pytest.raises(ConfigurationError, match="job_key=7"):
        program.conductor([1], job_key=7)


def test_a_key_that_no_journal_can_hold_breaks_the_source(program):
    conductor = program.conductor([1], job_key=lambda job: object())
    with pytest.raises(IntakeError) as caught:
        conductor.run()
    assert isinstance(caught.value.__cause__, JobKeyError)


@pytest.mark.parametrize("again", [1, 2], ids=["first run", "resumed"])
def test_two_jobs_of_the_same_key_are_an_error(program, again):
    for _ in range(again):
        conductor = program.conductor([*range(500), 7])
        with pytest.raises(IntakeError, match='duplicates="skip"') as caught:
            conductor.run()
    assert isinstance(caught.value.__cause__, DuplicateKeyError)
    assert caught.value.__cause__.key == 7


def test_of_two_jobs_of_the_same_key_the_second_is_skipped_where_that_is_asked_for(program):
    jobs = ["a", "b", "a", *range(500), "a", 7]
    made, report = program.run(jobs, duplicates="skip")
    assert len(made) == 502
    assert report.skipped == 3
    _, report = program.run(jobs, duplicates="skip")
    assert (report.jobs, report.skipped) == (0, 505)


def test_jobs_of_the_same_key_are_numbered_where_that_is_asked_for(program):
    jobs = ["a", 7, "a", 7, "a"]
    made, _ = program.run(jobs, duplicates="number")
    assert values(made) == {"a": "aa", "a#2": "aa", "a#3": "aa", 7: 14, "7#2": 14}
    made, report = program.run([*jobs, "a"], duplicates="number")
    assert set(made) == {"a#4"}
    assert report.skipped == 5


# Attempts


def test_budgets_and_histories_go_on_in_the_next_run(program, tmp_path):
    job = str(tmp_path / "there")
    conductor = program.conductor(
        [job], journaled.count_attempts, retry=Retry(errors=3, backoff=lambda attempt: 3600)
    )
    conductor.on("job_retry", lambda *_: conductor.abort())
    conductor.run()
    assert program.kept() == {}

    conductor = program.conductor([job], journaled.count_attempts, retry=Retry(errors=2))
    retried = []
    conductor.on("job_retry", lambda key, attempt: retried.append(attempt.number))
    (outcome,) = conductor.outcomes()
    assert retried == [2]
    assert [str(end.error) for end in outcome.history] == [f"attempt {n}" for n in (1, 2, 3)]

    (tmp_path / "there").touch()
    made, _ = program.run([job], journaled.count_attempts, rerun="failed")
    assert values(made) == {job: []}


def kept_suspicions(program, times):
    """Let the machine go down while a job is being executed, as far as the journal can tell."""
    with sqlite3.connect(program.path) as connection:
        connection.execute("INSERT OR REPLACE INTO suspects VALUES('2', ?, 1)", (times,))
    connection.close()


def test_a_job_that_may_have_brought_the_machine_down_is_executed_alone_and_last(program):
    program.run([0])
    kept_suspicions(program, 1)
    order = []
    conductor = program.conductor([2, *range(3, 60)])
    conductor.on("job_done", lambda outcome: order.append(outcome.key))
    conductor.run()
    assert order[-1] == 2
    _, report = program.run([2])
    assert report.skipped == 1


def test_the_third_time_it_is_not_executed_any_more(program):
    program.run([0])
    kept_suspicions(program, 3)
    made, _ = program.run([2, 3])
    assert made[2].state is JobState.QUARANTINED
    assert made[2].cause is Cause.CRASH
    assert isinstance(made[2].error, MachineCrashError)
    assert made[3].state is JobState.DONE
    assert program.kept()[2] is JobState.QUARANTINED

    made, _ = program.run([2, 3], rerun="failed")
    assert made[2].state is JobState.DONE


# Everything else goes on as ever


def test_who_is_told_of_the_last_outcome_can_still_add_jobs(program):
    conductor = program.conductor([1])
    conductor.on("job_done", lambda outcome: outcome.key < 4 and conductor.add_job(outcome.key + 1))
    assert conductor.run().done == 4


def test_workers_add_jobs(program):
    made, _ = program.run([0], journaled.add_one_more)
    assert set(made) == {0, 1, 2, 3}
    _, report = program.run([0, 3], journaled.add_one_more)
    assert report.skipped == 2


def make_small(monkeypatch, pages):
    """Let the journal not grow beyond so many pages, as on a full disk."""
    connect = Store.connect

    def connected(store):
        connection = connect(store)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(Store, "connect", connected)


def test_why_a_run_could_not_go_on_is_found_in_the_journal(program, monkeypatch):
    jobs = [f"5000/{number}" for number in range(200)]
    with monkeypatch.context() as full:
        make_small(full, pages=100)
        conductor = program.conductor(jobs, journaled.pad)
        with pytest.raises(JournalFullError, match="make room"):
            conductor.run()
    with open_journal(program.path) as journal:
        (run,) = journal.runs()
        assert run.state == "broken"
        assert "make room" in run.error
    _, report = program.run(jobs, journaled.pad)
    assert report.done + report.skipped == 200


def test_a_disk_that_is_full_at_the_very_end_does_not_keep_a_run_from_ending(program, monkeypatch):
    def end(*_):
        raise JournalFullError("make room")

    with monkeypatch.context() as full:
        full.setattr(Store, "end", end)
        with pytest.raises(JournalFullError):
            program.conductor(["a"]).run()
    assert program.kept() == {"a": JobState.DONE}
    _, report = program.run(["a"])
    assert report.skipped == 1


def test_hand_outs_that_find_no_room_are_said_to_be_of_the_journal(program, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Notes, "write", write)
    with pytest.raises(JournalFullError, match=r"run\.db: writing down .* failed for want of room"):
        program.conductor(["a"]).run()


@pytest.mark.parametrize("size", [3_000, 100_000], ids=["the log is full", "too large for it"])
def test_a_worker_that_is_held_up_has_its_outcomes_committed_at_once(program, size, monkeypatch):
    for pause in ("_SOON", "_LATER"):
        monkeypatch.setattr(_writer, pause, 3600)
    jobs = [f"{size}/{number}" for number in range(3_000_000 // size)]
    outcomes, _ = program.run(jobs, journaled.pad)
    assert {len(outcome.value) for outcome in outcomes.values()} == {size}


def test_async_workers_and_lookups_and_large_values(program):
    made, _ = program.run(range(300), journaled.Slow)
    assert values(made) == {n: n for n in range(300)}
    made, _ = program.run(
        ["x", "y"], journaled.Keeper, lookups={"names": {"x": 1, "y": 2}}, accept_changed=True
    )
    assert values(made) == {"x": 1, "y": 2}
    made, _ = program.run(["large"], accept_changed=True)
    with open_journal(program.path) as journal:
        assert np.array_equal(journal.value("large"), np.arange(100_000))
    assert np.array_equal(made["large"].value, np.arange(100_000))


def test_outcomes_come_in_the_order_of_the_jobs(program):
    program.run([3, 5])
    conductor = program.conductor(range(10))
    keys = [outcome.key for outcome in conductor.outcomes(ordered=True)]
    assert keys == [0, 1, 2, 4, 6, 7, 8, 9]


def test_a_value_that_only_a_script_could_read_fails_its_job(program):
    made, _ = program.run(["a class of a script", "x"])
    assert made["x"].state is JobState.DONE
    assert made["a class of a script"].state is JobState.FAILED
    assert isinstance(made["a class of a script"].error, SerialisationError)


def test_a_run_on_asyncio_has_a_journal_too(program):
    report = asyncio.run(program.conductor(range(50)).start())
    assert report.done == 50
    assert len(program.kept()) == 50


def test_nothing_is_left_of_a_run_but_its_journal(program, tmp_path):
    program.run(["deadly", *range(100)])
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]


# Refusals


def test_two_conductors_cannot_write_to_the_same_journal(program):
    conductor = program.conductor([1, 2])
    caught = []

    def begin_another(_):
        with pytest.raises(JournalLockedError) as error:
            program.conductor([3]).run()
        caught.append(error.value)

    conductor.once("job_done", begin_another)
    conductor.run()
    assert len(caught) == 1
    assert program.run([1, 2, 3])[1].skipped == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"journal": 7}, "journal=7"),
        ({"journal": "run.db", "duplicates": "ignore"}, "duplicates='ignore'"),
        ({"journal": "run.db", "durability": "some"}, "durability='some'"),
        ({"journal": "run.db", "rerun": "all"}, "rerun='all'"),
        ({"rerun": "failed"}, "say journal="),
        ({"version": "2"}, "say journal="),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        Conductor(journaled.work, **options)
    assert not list(tmp_path.iterdir())
