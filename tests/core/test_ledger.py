"""Where every job stands."""

from __future__ import annotations

from itertools import islice

import pytest

from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor._types import Attempt, Cause
from okanjo_conductor.errors import IllegalEventError

WORKER = 1


def make_jobs(count):
    return [Job(n, n, None, b"") for n in range(count)]


def filled(queued=0, held=0):
    """A ledger with the first jobs held by a worker, as ordinals from 1, and the rest queued."""
    ledger, jobs = Ledger(), make_jobs(held + queued)
    ledger.accept(Jobs.of(jobs))
    ledger.enrol(WORKER)
    if held:
        ledger.hand_out(WORKER, 1, held)
    return ledger, jobs


def queue(ledger):
    return [job.id for job in islice(ledger.waiting(), ledger.queued)]


def attempt(number=1):
    return Attempt(number, Cause.ERROR, ValueError(), WORKER, 0.1)


def test_a_new_ledger_is_empty():
    ledger = Ledger()
    assert ledger.is_empty
    assert repr(ledger) == "<Ledger 0 queued, 0 delayed, 0 aside, 0 held>"


def test_jobs_are_handed_out_in_the_order_of_acceptance():
    ledger, jobs = filled(queued=5)
    assert list(ledger.hand_out(WORKER, 1, 2)) == jobs[:2]
    assert list(ledger.hand_out(WORKER, 3, 3)) == jobs[2:]
    assert ledger.queued == 0
    assert ledger.held(WORKER) == dict(enumerate(jobs, start=1))


def test_a_job_is_not_finished_while_anybody_has_it():
    ledger, (job,) = filled(held=1)
    assert not ledger.is_empty
    ledger.release(WORKER, [1])
    assert ledger.is_empty
    ledger.delay(job, 3.0)
    assert not ledger.is_empty
    ledger.queue_due(3.0)
    assert not ledger.is_empty


def test_the_ledger_says_what_it_holds():
    ledger, jobs = filled(queued=1, held=3)
    (job,) = ledger.release(WORKER, [2])
    ledger.delay(job, 1.0)
    assert repr(ledger) == "<Ledger 1 queued, 1 delayed, 0 aside, 2 held>"
    assert ledger.held_by(WORKER) == 2
    assert job == jobs[1]


def test_the_first_and_the_last_held_job_are_known_by_their_ordinals():
    ledger, _ = filled(held=3)
    ledger.release(WORKER, [1])
    assert (ledger.first_held(WORKER), ledger.last_held(WORKER)) == (2, 3)
    ledger.release(WORKER, [3, 2])
    assert ledger.first_held(WORKER) is None


@pytest.mark.parametrize(
    ("ordinals", "complaint"),
    [
        ([], "names none"),
        ([4], r"does not hold: \[4\]"),
        ([1, 9, 8], r"does not hold: \[8, 9\]"),
        ([2, 2], "one of them twice"),
    ],
)
def test_a_report_of_jobs_the_worker_does_not_hold_is_refused(ordinals, complaint):
    ledger, _ = filled(held=3)
    with pytest.raises(IllegalEventError, match=complaint):
        ledger.require_held(WORKER, ordinals)


@pytest.mark.parametrize("ordinals", [[1], [1, 2, 3], [3, 1]])
def test_a_report_of_held_jobs_is_accepted(ordinals):
    ledger, jobs = filled(held=3)
    ledger.require_held(WORKER, ordinals)
    assert list(ledger.release(WORKER, ordinals)) == [jobs[k - 1] for k in ordinals]


@pytest.mark.parametrize(
    ("first", "last", "taken", "queued"),
    [
        (1, None, 4, [0, 1, 2, 3, 4]),
        (3, None, 2, [2, 3, 4]),
        (2, 3, 2, [1, 2, 4]),
        (5, None, 0, [4]),
        (7, 9, 0, [4]),
    ],
)
def test_what_is_taken_back_comes_first_in_its_old_order(first, last, taken, queued):
    ledger, _ = filled(held=4, queued=1)
    assert ledger.take_back(WORKER, first, last) == taken
    assert queue(ledger) == queued


def test_a_dismissed_worker_holds_nothing_and_is_unknown():
    ledger, _ = filled(held=2, queued=1)
    ledger.dismiss(WORKER)
    assert queue(ledger) == [0, 1, 2]
    with pytest.raises(KeyError):
        ledger.held_by(WORKER)


def test_a_job_that_is_requeued_comes_first():
    ledger, jobs = filled(queued=2)
    ledger.requeue(Job(9, 9, None, b""))
    assert queue(ledger) == [9, *(job.id for job in jobs)]


def test_delayed_jobs_are_queued_when_due_and_the_longest_due_comes_first():
    ledger, _ = filled(queued=1)
    late, early, same = (Job(n, n, None, b"") for n in (10, 11, 12))
    ledger.delay(late, 5.0)
    ledger.delay(same, 2.0)
    ledger.delay(early, 2.0)
    assert ledger.next_due == 2.0
    ledger.queue_due(1.9)
    assert queue(ledger) == [0]
    ledger.queue_due(2.0)
    assert queue(ledger) == [11, 12, 0]
    assert ledger.next_due == 5.0
    ledger.queue_due(9.0)
    assert ledger.next_due is None


def test_what_is_withdrawn_comes_in_the_order_of_acceptance_and_without_a_past():
    ledger, jobs = filled(held=2, queued=1)
    for job in ledger.release(WORKER, [1, 2]):
        ledger.note(job, attempt())
    ledger.delay(jobs[0], 1.0)
    ledger.requeue(jobs[1])
    assert ledger.withdraw() == jobs
    assert ledger.is_empty
    assert len(ledger.history_of(jobs[0])) == len(ledger.history_of(jobs[1])) == 0


def test_a_history_lasts_until_the_job_has_its_outcome():
    ledger, (job,) = filled(queued=1)
    first, second = attempt(1), attempt(2)
    assert len(ledger.history_of(job)) == 0
    assert ledger.note(job, first) == (first,)
    assert ledger.note(job, second) == (first, second)
    assert len(ledger.history_of(job)) == 2
    ledger.close(job)
    assert len(ledger.history_of(job)) == 0
    ledger.close(job)


def test_only_jobs_with_bad_ends_have_a_history():
    ledger, jobs = filled(queued=3)
    assert ledger.histories_of(Jobs.of(jobs)) == {}
    first, second = attempt(1), attempt(2)
    ledger.note(jobs[1], first)
    ledger.note(jobs[1], second)
    assert ledger.histories_of(Jobs.of(jobs)) == {1: (first, second)}


def test_jobs_that_are_done_hand_over_the_histories_there_were():
    ledger, jobs = filled(queued=3)
    assert ledger.close_all(Jobs.of(jobs)) == {}
    bad = attempt()
    ledger.note(jobs[2], bad)
    assert ledger.close_all(Jobs.of(jobs)) == {2: (bad,)}
    assert len(ledger.history_of(jobs[2])) == 0
