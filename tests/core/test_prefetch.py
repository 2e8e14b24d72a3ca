"""How many jobs a worker is handed at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._core.prefetch import CROWD, MAX_BATCH, PER_WORKER, TARGET, BatchSizer

MS = 1_000_000


def batches(*observations, round_trip=0.0, workers=1):
    """The sizes after each (jobs, nanoseconds)."""
    sizer = BatchSizer()
    sizer.round_trip = round_trip
    sizes = []
    for jobs, nanoseconds in observations:
        sizer.observe(jobs, nanoseconds, workers)
        sizes.append(sizer.batch)
    return sizes


def test_the_first_batch_is_one_job():
    assert BatchSizer().batch == 1


@pytest.mark.parametrize(
    ("milliseconds", "size"), [(10_000, 1), (10, 1), (5.1, 1), (5, 2), (2.5, 4)]
)
def test_a_batch_is_about_ten_milliseconds_of_work(milliseconds, size):
    assert batches((1, int(milliseconds * MS))) == [size]


def test_a_batch_grows_fourfold_at_most():
    assert batches(*[(1, 1_000)] * 4) == [4, 16, 64, 256]


def test_a_batch_never_passes_its_limit_even_if_jobs_take_no_time_at_all():
    assert batches(*[(1, 0)] * 8)[-2:] == [MAX_BATCH, MAX_BATCH]


def test_a_batch_shrinks_at_once_when_jobs_become_long():
    assert batches(*[(1, 1_000)] * 4, (1, 50 * MS))[-1] == 1


def test_one_fast_job_after_a_slow_one_is_not_believed():
    assert batches((1, 10 * MS), (1, 1_000)) == [1, 1]


def test_the_pace_of_a_batch_is_that_of_its_mean_job():
    assert batches((1, 2 * MS), (10, 20 * MS)) == [4, 5]


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 10**12)), max_size=30))
def test_a_batch_is_within_its_bounds_whatever_was_observed(observations):
    before = 1
    for size in batches(*observations):
        assert 1 <= size <= min(MAX_BATCH, 4 * before)
        before = size


def test_a_steady_pace_leads_to_the_target():
    assert batches(*[(10, 10 * 50_000)] * 10)[-1] == int(TARGET / 50e-6)


def test_a_batch_for_a_worker_far_away_lasts_until_the_next_one_has_come():
    assert batches(*[(1, MS)] * 5, round_trip=0.05)[-1] == 100


def test_a_batch_is_larger_where_there_are_many_workers():
    assert batches(*[(1, MS)] * 5, workers=1000)[-1] == round(1000 * PER_WORKER * 1000)


@pytest.mark.parametrize("workers", [1, 64, 1000, 10 * CROWD])
def test_the_batches_of_all_workers_are_bounded(workers):
    largest = batches(*[(1, 0)] * 8, workers=workers)[-1]
    assert largest <= MAX_BATCH
    assert largest == 1 or largest * workers <= CROWD


def test_a_sizer_knows_the_pace():
    sizer = BatchSizer()
    assert sizer.seconds_per_job == 0
    sizer.observe(10, 20 * MS)
    assert sizer.seconds_per_job == 0.002
