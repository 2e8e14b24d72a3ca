"""How fast jobs end, and how long the rest will take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._snapshot import MEMORY, Pace, memory_for, time_left


def paced(looks, per_second, memory=MEMORY):
    pace = Pace(0.0)
    for now in looks:
        pace.note(now, round(now * per_second), memory)
    return pace.rate


def test_before_anything_was_seen_the_rate_is_nothing():
    assert Pace(5.0).rate == 0.0


def test_a_steady_rate_is_told_as_it_is():
    assert paced([1.0, 2.0, 3.0], 100) == pytest.approx(100)


@given(st.lists(st.integers(1, 1000), min_size=1, unique=True).map(sorted))
def test_how_often_somebody_looks_makes_no_difference(looks):
    assert paced(map(float, looks), 50) == pytest.approx(50)


def test_looking_twice_at_the_same_time_changes_nothing():
    pace = Pace(0.0)
    pace.note(1.0, 10, MEMORY)
    pace.note(1.0, 99, MEMORY)
    assert pace.rate == pytest.approx(10)


def test_what_is_long_ago_is_forgotten():
    pace = Pace(0.0)
    pace.note(100.0, 10_000, MEMORY)
    pace.note(110.0, 10_000, MEMORY)
    assert pace.rate == pytest.approx(100 * 0.368, rel=0.01)
    pace.note(200.0, 10_000, MEMORY)
    assert pace.rate < 0.01


def test_where_jobs_take_long_the_rate_looks_back_further():
    assert memory_for(None) == memory_for(0.1) == MEMORY
    assert memory_for(60.0) == 180.0


def test_what_nobody_knows_is_not_guessed():
    assert time_left(None, 10.0, 1.0, []) is None
    assert time_left(5, 0.0, None, []) is None


def test_nothing_left_takes_no_time():
    assert time_left(0, 0.0, None, []) == 0.0


def test_the_rest_is_done_at_the_rate():
    assert time_left(100, 10.0, 0.5, [0.1, 0.2]) == 10.0


def test_the_last_job_takes_what_a_job_takes_however_many_were_at_work():
    assert time_left(1, 8.0, 60.0, [20.0]) == 40.0


def test_a_job_that_takes_longer_than_most_is_no_debt():
    assert time_left(1, 2.0, 60.0, [80.0]) == 0.5
