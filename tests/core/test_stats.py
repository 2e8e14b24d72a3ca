"""The workers' counters, added up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._core.stats import StatsBook
from okanjo_conductor._types import WorkerStats


def test_a_cycle_is_open_from_the_first_report_until_it_is_closed():
    book = StatsBook()
    assert not book.is_cycle_open
    book.note(1, {"a": 1}, 5.0)
    assert book.is_cycle_open
    assert book.has_reported(1)
    assert not book.has_reported(2)
    book.close_cycle()
    assert not book.is_cycle_open
    assert not book.has_reported(1)


def test_a_cycle_is_complete_when_every_live_worker_has_reported():
    book = StatsBook()
    book.note(1, {}, 5.0)
    assert book.is_cycle_complete([1])
    assert not book.is_cycle_complete([1, 2])
    book.note(2, {}, 5.0)
    assert book.is_cycle_complete([1, 2])


def test_a_report_shows_every_worker_and_the_sum():
    book = StatsBook()
    book.note(1, {"a": 1, "b": 2}, 4.0)
    book.note(2, {"a": 10}, 6.0)
    report = book.close_cycle()
    assert report.raw == {
        1: WorkerStats({"a": 1, "b": 2}, {"a": 1, "b": 2}, 4.0),
        2: WorkerStats({"a": 10}, {"a": 10}, 6.0),
    }
    assert report.agg.last == report.agg.diff == {"a": 11, "b": 2}
    assert report.avg_time_span == 5.0


def test_a_diff_is_the_change_since_the_report_before():
    book = StatsBook()
    book.note(1, {"a": 1}, 5.0)
    book.close_cycle()
    book.note(1, {"a": 4, "b": 1}, 5.0)
    report = book.close_cycle()
    assert report.raw[1].diff == report.agg.diff == {"a": 3, "b": 1}


def test_a_worker_that_reported_nothing_in_a_cycle_still_counts_in_the_sum():
    book = StatsBook()
    book.note(1, {"a": 1}, 5.0)
    book.close_cycle()
    book.note(2, {"a": 2}, 5.0)
    report = book.close_cycle()
    assert list(report.raw) == [2]
    assert (report.agg.last, report.agg.diff) == ({"a": 3}, {"a": 2})


def test_a_counter_that_vanished_shows_in_the_diff():
    book = StatsBook()
    book.note(1, {"a": 3, "b": 1}, 5.0)
    book.close_cycle()
    book.note(1, {"b": 1}, 5.0)
    report = book.close_cycle()
    assert report.raw[1].diff == report.agg.diff == {"a": -3, "b": 0}
    assert report.agg.last == {"b": 1}


COUNTERS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


@given(st.lists(st.tuples(st.integers(1, 3), COUNTERS, st.booleans()), min_size=1))
def test_the_diffs_of_a_run_add_up_to_its_last_totals(reports):
    book, sum_of_diffs = StatsBook(), Counter()
    latest = {}
    for worker, totals, closes in [*reports, (9, {}, True)]:
        book.note(worker, totals, 1.0)
        latest[worker] = totals
        if closes:
            report = book.close_cycle()
            sum_of_diffs.update(report.agg.diff)
    expected = sum((Counter(totals) for totals in latest.values()), Counter())
    for name in "abc":
        assert sum_of_diffs[name] == report.agg.last.get(name, 0) == expected[name]
