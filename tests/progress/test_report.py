"""The account of a run: what it counts, that it is bounded, and how it reads."""

from __future__ import annotations

import json
import math

import pytest

from okanjo_conductor import Attempt, Cause, JobState, Report, TimeSplit
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._delivery import ReportBuilder, WorkClock
from okanjo_conductor._largest import Largest
from okanjo_conductor._types import MAX_FAILURE_GROUPS, MAX_WORKER_EXITS
from okanjo_conductor.errors import RemoteTraceback

from .examples import lost


def failed(
    number, error=None, *, place="job.py:1 in job", key=None, cause=Cause.ERROR, seconds=0.5
):
    error = error or ValueError("bad")
    return JobFailed(
        worker_id=1,
        slot=0,
        job=Job(number, number if key is None else key, None, None),
        state=JobState.FAILED,
        cause=cause,
        error=error,
        place=place,
        history=(Attempt(1, cause, error, 1, seconds),),
    )


def done(*nanoseconds):
    ids = range(len(nanoseconds))
    return JobsDone(
        worker_id=1,
        slot=0,
        jobs=Jobs(ids, ids, ids, ids),
        values=list(ids),
        nanoseconds=list(nanoseconds),
        histories={},
    )


def built(builder):
    return builder.build(10.0, 0, {}, payloads=Largest(), now=10.0)


def test_jobs_are_counted_by_state_and_cause_and_attempts_by_cause():
    builder = ReportBuilder()
    builder.add(done(1, 2))
    builder.add(failed(2))
    builder.add(failed(3, cause=Cause.TIMEOUT))
    attempt = Attempt(1, Cause.CRASH, ValueError(), 1, None)
    builder.add(JobRetried(job=Job(4, 4, None, None), attempt=attempt, ordinal=None))
    report = built(builder)
    assert (report.done, report.failed, report.retries) == (2, 2, 1)
    assert report.causes == {Cause.ERROR: 1, Cause.TIMEOUT: 1}
    assert report.retried == {Cause.CRASH: 1}
    assert report.time.work == pytest.approx(1.0)


def test_a_group_of_failures_has_the_first_traceback():
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = RemoteTraceback("Trace 1"), RemoteTraceback("Trace 2")
    builder = ReportBuilder()
    builder.add(failed(1, first))
    builder.add(failed(2, second))
    (group,) = built(builder).failures
    assert (group.count, group.keys, group.error) == (2, (1, 2), "ValueError: one")
    assert group.traceback == "Trace 1"


def test_failures_at_other_places_are_other_failures():
    builder = ReportBuilder()
    builder.add(failed(1, place="job.py:1 in job"))
    for number in (2, 3):
        builder.add(failed(number, place="job.py:2 in job"))
    places = [(group.place, group.count) for group in built(builder).failures]
    assert places == [("job.py:2 in job", 2), ("job.py:1 in job", 1)]


def test_a_million_failures_that_differ_take_no_memory():
    builder = ReportBuilder()
    count, text, trace = 10_000, "x" * 10_000, RemoteTraceback("t" * 100_000)
    for number in range(count):
        error = ValueError(f"{number} {text}")
        error.__cause__ = trace
        builder.add(failed(number, error, place=f"{number}"))
    report = built(builder)
    assert len(report.failures) == MAX_FAILURE_GROUPS
    assert report.failures_not_shown == count - MAX_FAILURE_GROUPS
    assert sum(len(g.error) + len(g.traceback) for g in report.failures) < 50 * 12_000
    assert len(builder.recent_failures) == 5
    assert max(len(f.error) for f in builder.recent_failures) < 3_000


def test_a_long_traceback_keeps_its_beginning_and_its_end():
    error = ValueError()
    error.__cause__ = RemoteTraceback("begin" + "x" * 100_000 + "end")
    builder = ReportBuilder()
    builder.add(failed(1, error))
    trace = built(builder).failures[0].traceback
    assert trace.startswith("begin")
    assert trace.endswith("end")
    assert "\n… 92,008 characters …\n" in trace


def test_lost_workers_are_counted_by_cause_and_listed_up_to_a_limit():
    builder = ReportBuilder()
    for number in range(MAX_WORKER_EXITS + 5):
        builder.worker_lost(lost(number + 1, "job"))
    report = built(builder)
    assert report.lost_causes == {Cause.CRASH: MAX_WORKER_EXITS + 5}
    assert len(report.worker_exits) == MAX_WORKER_EXITS
    assert [end.worker_id for end in builder.recent_exits] == list(range(101, 106))


# The largest


def test_the_ten_largest_are_kept_in_order():
    largest = Largest()
    for number in range(1000):
        largest.note((number * 7919) % 1000, number, f"job-{number}")
    assert [figure for figure, _ in largest.listed()] == list(range(999, 989, -1))
    assert largest.floor == 990


def test_what_is_not_above_the_floor_is_not_kept():
    largest = Largest(1024)
    largest.note(1024, 1, "small")
    largest.note(1025, 2, "large")
    assert largest.listed() == [(1025, "large")]


def test_keys_need_not_be_comparable():
    largest = Largest()
    for number in range(20):
        largest.note(5, number, object())
    assert len(largest.listed()) == 10


# Time


def test_the_workers_time_is_split():
    clock = WorkClock()
    clock.ordered(1, 0.0)
    clock.set_up(1, 2.0, is_parallel=False)
    clock.note_work(10, 3_000_000_000)
    clock.note_attempt(1.0)
    clock.note_attempt(None)
    clock.gone(1, 10.0, 0.5)
    assert clock.mean == pytest.approx(4.0 / 11)
    assert clock.split(12.0) == TimeSplit(10.0, 2.0, 4.0, 0.5, 3.5)


def test_a_worker_that_was_never_set_up_was_starting_all_its_life():
    clock = WorkClock()
    clock.ordered(1, 1.0)
    clock.gone(1, 4.0, 0.0)
    assert clock.split(9.0) == TimeSplit(3.0, 3.0, 0.0, 0.0, 0.0)
    assert clock.mean is None
    assert clock.ready is None


def test_workers_that_are_left_by_a_run_that_gave_up_end_with_it():
    clock = WorkClock()
    clock.ordered(1, 1.0)
    clock.set_up(1, 2.0, is_parallel=False)
    assert clock.split(5.0) == TimeSplit(4.0, 1.0, 0.0, 0.0, 3.0)


def test_what_jobs_overlap_is_not_split():
    clock = WorkClock()
    clock.ordered(1, 0.0)
    clock.set_up(1, 1.0, is_parallel=True)
    clock.note_work(100, 500_000_000_000)
    clock.gone(1, 10.0, 0.0)
    assert clock.split(10.0) == TimeSplit(10.0, 1.0, 500.0, 0.0, None)


def test_the_wait_is_never_less_than_nothing():
    clock = WorkClock()
    clock.ordered(1, 0.0)
    clock.set_up(1, 1.0, is_parallel=False)
    clock.note_work(1, 9_000_001_000)
    clock.gone(1, 10.0, 0.0)
    assert clock.split(10.0).wait == 0.0


# In print


def full_report():
    builder = ReportBuilder()
    builder.add(done(*range(1_000_000, 20_000_000, 1_000_000)))
    for number in range(30):
        error = ValueError(f"{'a very long message ' * 20}\nsecond line")
        place = f"/a/very/long/path{'/folder' * 20}/file_{number // 2}.py:12 in function"
        builder.add(failed(number, error, place=place, key=f"{'key' * 40}-{number}"))
    for number in range(30):
        builder.worker_started()
        builder.worker_lost(lost(number + 1, "k" * 200))
    builder.values.note(84_000_000, 7, "a")
    payloads = Largest()
    payloads.note(5_000_000, 1, ("tuple", "key"))
    payloads.note(5_000, 2, "small")
    builder.clock.ordered(1, 0.0)
    builder.clock.set_up(1, 2.0, is_parallel=False)
    report = builder.build(
        12.5, 40, {"lookups.cities.hits": 5, "n": math.inf}, payloads=payloads, now=10.0
    )
    report.skipped = 1
    report.stopped = "SIGINT received"
    return report


def test_a_report_prints_within_a_hundred_columns():
    lines = str(full_report()).splitlines()
    assert max(map(len, lines)) < 100
    assert lines[0] == "49 jobs: 19 done, 30 failed"
    assert "stopped early: SIGINT received" in lines
    assert "1 job skipped: an earlier run has done them" in lines
    assert "biggest payloads: 5.0 MB ('tuple', 'key')" in lines
    assert "biggest values: 84.0 MB a" in lines
    assert "  and 20 more" in lines
    assert "  and 10 more of other kinds" in lines


def test_a_place_that_is_too_long_is_cut_where_it_begins():
    place = next(line for line in str(full_report()).splitlines() if line.startswith("  " * 4))
    assert place.strip().startswith("at …")
    assert place.endswith(".py:12 in function")


def test_an_empty_report_prints():
    assert str(Report()) == "0 jobs: none\n0.00 s, 0.0 jobs/s, 0 retries"


def test_times_that_overlap_are_printed_in_seconds():
    report = Report(time=TimeSplit(10.0, 1.0, 500.0, 0.5, None))
    assert (
        "workers' time, 10.0 s: 1.00 s starting, 8:20 at work, 0.50 s in jobs that were lost "
        "(jobs overlap)"
    ) in str(report)


# As data

NAMES = {
    "format", "jobs", "states", "causes", "skipped", "recovered", "unstarted", "stopped", "seconds",
    "jobs_per_second", "retries", "retried", "time", "failures", "failures_not_shown", "slowest",
    "biggest_payloads", "biggest_values", "workers", "stats", "lookups",
}  # fmt: skip


def test_a_report_is_plain_data_with_these_names():
    data = json.loads(full_report().as_json())
    assert set(data) == NAMES
    assert data == full_report().as_dict()
    assert data["states"] == {"done": 19, "failed": 30, "quarantined": 0, "cancelled": 0}
    assert set(data["failures"][0]) == {
        "state", "cause", "error", "place", "count", "keys", "traceback",
    }  # fmt: skip
    assert data["biggest_payloads"][0] == {"bytes": 5_000_000, "key": ["tuple", "key"]}
    assert data["workers"]["exits"][0]["signal"] == "SIGKILL"
    assert data["workers"]["causes"] == {"crash": 30}
    assert set(data["time"]) == {"workers", "start", "work", "lost", "wait"}
    assert data["lookups"]["cities"]["hits"] == 5


class Odd:
    def __repr__(self):
        raise RuntimeError

    def __index__(self):
        raise RuntimeError


class Number:
    """As the whole numbers of NumPy: no int."""

    def __index__(self):
        return 7


def test_whatever_is_in_a_report_becomes_plain_data():
    odd = {"inf": math.inf, "odd": Odd(), "seven": Number(), 3: (1, [None, True]), "s": {1}}
    data = Report(last_stats=odd, slowest=[(1.0, "\udc80")]).as_dict()
    assert data["stats"] == {
        "inf": "inf", "odd": "a Odd", "seven": 7, "3": [1, [None, True]], "s": "{1}",
    }  # fmt: skip
    assert json.loads(json.dumps(data)) == data
    assert Report(slowest=[(1.0, "\udc80")]).as_json().isascii()


def test_json_may_be_indented():
    assert Report().as_json(indent=1).splitlines()[1] == ' "format": 1,'


def test_what_a_worker_was_executing_is_told():
    several = lost(2)._replace(keys=("a", "b"))
    report = Report(worker_exits=[lost(1), several], workers_lost=2)
    assert str(report).splitlines()[-2:] == [
        "  worker 1 in slot 0: SIGKILL (crash), executing no job",
        "  worker 2 in slot 1: SIGKILL (crash), executing 2 jobs",
    ]
