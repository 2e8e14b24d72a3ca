"""What a snapshot looks like in lines of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor import Report
from okanjo_conductor import _reporting as words
from okanjo_conductor._progress import layout

from .examples import DONE, FAILED, QUARANTINED, failure, lost, snapshot, worker


def shown(made, width=100, height=24, **options):
    return [layout.text_of(line).rstrip() for line in layout.view(made, width, height, **options)]


def test_a_plain_line_tells_all_that_counts():
    assert layout.plain_line(snapshot(retries=1, workers_lost=2)) == (
        "[17.2 s] 4,213 of 10,000 jobs (42 %), 3 failed, 1 retry, 245 jobs/s, 23.6 s left, "
        "workers: 1 working, 1 idle, 2 lost"
    )


def test_of_what_is_not_known_a_plain_line_says_nothing():
    assert layout.plain_line(snapshot(total=None, eta=None, counts={DONE: 1}, workers=())) == (
        "[17.2 s] 1 job, 245 jobs/s, workers: none"
    )


def test_a_run_that_is_being_stopped_says_so():
    line = layout.plain_line(snapshot(phase="draining"))
    assert "] finishing the jobs in execution, 4,213 of" in line
    assert shown(snapshot(phase="aborting"))[1].startswith("aborting · 3 failed")


def test_a_hundred_percent_are_reached_when_all_has_ended():
    assert "(99 %)" in layout.plain_line(snapshot(counts={DONE: 9_999}))
    assert "(100 %)" in layout.plain_line(snapshot(counts={DONE: 9_999, FAILED: 1}))


def test_skipped_jobs_count_as_ended():
    line = layout.plain_line(snapshot(counts={DONE: 1_000}, skipped=4_000))
    assert "5,000 of 10,000 jobs (50 %), 4,000 skipped" in line


def test_an_empty_run_is_at_its_end():
    assert "0 of 0 jobs (100 %)" in layout.plain_line(snapshot(total=0, counts={}))


def test_the_last_line_tells_how_it_went():
    report = Report(
        counts={DONE: 9_990, FAILED: 3, QUARANTINED: 1},
        seconds=41.3,
        skipped=2,
        workers_started=5,
        workers_lost=1,
        stopped="SIGINT received",
        unstarted=6,
    )
    assert layout.last_line(report) == (
        "9,994 jobs in 41.3 s, 242 jobs/s: 9,990 done, 3 failed, 1 quarantined; 2 skipped; "
        "1 of 5 workers lost; stopped early (SIGINT received); 6 not started"
    )


def test_the_last_line_of_nothing_is_short():
    assert layout.last_line(Report()) == "0 jobs in 0.00 s, 0.0 jobs/s"


EVERYTHING = snapshot(
    workers=(
        worker(0, seconds=75.0),
        worker(1, "idle", executed=1_053),
        worker(2, "starting", rss=None, seconds=0.51, executed=0),
        worker(3, "empty", worker_id=None, pid=None, rss=None, executed=0),
        worker(4, "leaving", key="the last", seconds=2.0, in_flight=1),
        worker(5, key="https://example.com/a", in_flight=400),
    ),
    failures=(failure("job-9"),),
    exits=(lost(4, "job-9"),),
    workers_lost=1,
)


def test_the_view_has_a_bar_counts_a_line_per_worker_and_what_went_wrong():
    assert shown(EVERYTHING, width=80) == [
        "━━━━━━───────── 4,213 of 10,000 jobs (42 %) · 245 jobs/s · 17.2 s · 23.6 s left",
        "3 failed · workers: 2 working, 1 idle, 1 starting, 1 leaving, 1 lost",
        " 0  job-0                                            1:15  84.0 MB        7 jobs",
        " 1  idle                                                   84.0 MB    1,053 jobs",
        " 2  starting                                       0.51 s                 0 jobs",
        " 3  empty",
        " 4  leaving: 'the last'                            2.00 s  84.0 MB        7 jobs",
        " 5  https://example.com/a and 399 more             1.50 s  84.0 MB        7 jobs",
        "lost worker 4 in slot 3: SIGKILL (crash), executing job job-9",
        "failed job-9: ValueError: bad",
    ]


def test_where_there_is_no_room_figures_give_way_to_jobs():
    assert shown(EVERYTHING, width=40)[2:8] == [
        " 0  job-0",
        " 1  idle           84.0 MB    1,053 jobs",
        " 2  starting",
        " 3  empty",
        " 4  leaving: 'the last'",
        " 5  https://example.com/a and 399 more",
    ]


def test_of_many_workers_those_that_take_longest_are_shown():
    workers = [worker(i, seconds=float(i == 17) * 90 + i / 100) for i in range(30)]
    workers[3] = worker(3, "idle")
    lines = shown(snapshot(workers=tuple(workers)), height=6)
    assert [line.split()[:2] for line in lines[2:]] == [
        ["17", "job-17"],
        ["28", "job-28"],
        ["29", "job-29"],
        ["…", "27"],
    ]
    assert lines[-1] == "… 27 more: 26 working, 1 idle"


def test_notes_leave_room_for_workers_and_are_the_newest():
    made = snapshot(
        workers=tuple(map(worker, range(8))),
        failures=tuple(failure(f"job-{i}") for i in range(5)),
        exits=tuple(lost(i) for i in range(1, 6)),
    )
    tall, low = shown(made, height=30), shown(made, height=8)
    assert [line.split(":")[0] for line in tall[10:]] == [
        "lost worker 4 in slot 3",
        "lost worker 5 in slot 4",
        "failed job-3",
        "failed job-4",
    ]
    assert len(low) == 8
    assert [line.split(":")[0] for line in low[-2:]] == ["lost worker 5 in slot 4", "failed job-4"]


def test_notes_of_one_kind_have_all_the_room():
    failures = tuple(failure(f"job-{i}") for i in range(5))
    assert len(shown(snapshot(failures=failures))) == 4 + 4
    exits = tuple(lost(i) for i in range(1, 6))
    assert len(shown(snapshot(exits=exits))) == 4 + 4


def test_without_a_total_there_is_no_bar():
    (first, *_) = shown(snapshot(total=None, eta=None))
    assert first == "4,213 jobs · 245 jobs/s · 17.2 s"


def test_the_whole_bar_is_full():
    (bar, *_) = layout.view(snapshot(counts={DONE: 10_000}, eta=0.0), 100, 9)
    assert bar[:2] == [("━" * len(bar[0][0]), "bar"), ("", "rest")]
    assert len(bar[0][0]) >= 20


def test_an_error_of_many_lines_and_colours_stays_in_its_line():
    lines = shown(snapshot(failures=(failure("a", "E: \x1b[31mred\tish\nsecond line"),)))
    assert lines[-1] == "failed a: E: �[31mred ish"


def test_an_ascii_view_has_no_other_characters():
    made = snapshot(
        workers=tuple(worker(i, key=f"schön-{i}") for i in range(30)), failures=(failure("ü"),)
    )
    lines = shown(made, height=7, ascii_only=True)
    assert all(line.isascii() for line in lines)
    assert lines[0].startswith("####")
    assert "sch?n" in lines[2]


texts = st.text(max_size=60)
seconds = st.none() | st.floats(0, 1e7)
workers = st.builds(
    lambda slot, state, key, seconds, in_flight, rss, executed: worker(
        slot, state, key=key, seconds=seconds, in_flight=in_flight, rss=rss, executed=executed
    ),
    st.integers(0, 5000),
    st.sampled_from(["starting", "idle", "working", "leaving", "empty"]),
    texts | st.integers() | st.tuples(texts, st.none()),
    seconds,
    st.integers(0, 5000),
    st.none() | st.integers(0, 1 << 45),
    st.integers(0, 10**9),
)
snapshots = st.builds(
    lambda phase, done, failed, total, eta, rate, workers, failures, exits: snapshot(
        phase=phase,
        counts={DONE: done, FAILED: failed},
        total=total,
        eta=eta,
        rate=rate,
        workers=tuple(workers),
        failures=tuple(failure(key, text) for key, text in failures),
        exits=tuple(lost(number, "job") for number in exits),
    ),
    st.sampled_from(["new", "running", "ending", "draining", "aborting", "over"]),
    st.integers(0, 10**10),
    st.integers(0, 100),
    st.none() | st.integers(0, 10**10),
    seconds,
    st.floats(0, 1e7),
    st.lists(workers, max_size=40),
    st.lists(st.tuples(texts, texts), max_size=5),
    st.lists(st.integers(1, 9), max_size=5),
)


@given(snapshots, st.integers(1, 200), st.integers(1, 60))
def test_the_view_fits_whatever_the_size(made, width, height):
    lines = shown(made, width, height)
    assert 1 <= len(lines) <= height
    assert all(len(line) <= width and "\n" not in line for line in lines)


@given(snapshots)
def test_a_plain_line_is_one_line(made):
    assert "\n" not in layout.plain_line(made)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (10, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (7384, "2:03:04"),
        (100 * 3600 + 300, "4 d 04:05"),
    ],
)
def test_durations_are_written_as_people_do(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0.0 jobs/s"),
        (123456.7, "123,457 jobs/s"),
        (12.34, "12.3 jobs/s"),
        (0.5, "30.0 jobs/min"),
        (1 / 600, "6.0 jobs/h"),
        (1e-5, "0.0 jobs/h"),
    ],
)
def test_small_rates_are_written_by_the_minute_or_hour(rate, text):
    assert words.rate(rate) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (84_000_000, "84.0 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes_are_written_in_decimal_units(count, text):
    assert words.size(count) == text


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (7, "7"),
        ("plain", "plain"),
        ("two words", "'two words'"),
        ("", "''"),
        ("li\nne", r"'li\nne'"),
        (("a", 1), "('a', 1)"),
        ("x" * 50, "x" * 39 + "…"),
        (Unspeakable(), "a Unspeakable"),
    ],
)
def test_keys_are_written_so_that_they_fit(key, text):
    assert words.shown(key) == text
