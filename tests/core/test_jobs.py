"""Jobs in columns, and the ledger against a simple model of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._core.jobs import Job, Jobs, joined
from okanjo_conductor._core.ledger import Ledger
from okanjo_conductor.errors import IllegalEventError


def plain(first, count):
    """Jobs as they come from a source of numbers: columns that are shared."""
    ids = range(first, first + count)
    payloads = list(ids)
    return Jobs(ids, ids, payloads, payloads)


def own(first, count):
    """Jobs in columns of their own."""
    return Jobs.of(Job(i, f"key {i}", [i], b"%d" % i, 2.0 * i) for i in range(first, first + count))


def told(jobs):
    return [(j.id, j.key, j.payload, j.wire, j.timeout) for j in jobs]


makers = st.sampled_from([plain, own])
runs = st.lists(st.tuples(makers, st.integers(0, 6)), min_size=1, max_size=4)


@given(runs, st.data())
def test_columns_that_are_cut_and_joined_hold_the_same_jobs(parts, data):
    made, first = [], 0
    for make, count in parts:
        made.append(make(first, count))
        first += count
    whole = joined(made)
    expected = [row for part in made for row in told(part)]
    assert told(whole) == expected
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert told(whole.cut(start, stop)) == expected[start:stop]
    assert [whole[i].id for i in range(len(whole))] == list(whole.ids)


def test_columns_that_are_shared_stay_so():
    part = plain(0, 5).cut(1, 4)
    assert part.keys is part.ids == range(1, 4)
    assert part.wires is part.payloads
    both = joined([part, plain(9, 1)])
    assert both.keys is both.ids
    assert both.wires is both.payloads
    assert both.timeouts is None


def test_a_job_is_its_number():
    job = Job(3, "key", None, None)
    assert job == Job(3, "other", 1, 2)
    assert job != Job(4, "key", None, None)
    assert job != 3
    assert len({job, Job(3, 1, 1, 1)}) == 1
    assert repr(job) == "Job(3, 'key')"
    assert repr(Jobs.of([job])) == "<Jobs [3]>"


moves = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 6)), max_size=60)


@given(moves)
def test_the_ledger_is_a_queue_and_a_table_of_ordinals(steps):
    """The model: a list of ids, and a dict from ordinal to id per worker."""
    ledger, queue, held = Ledger(), [], {1: {}, 2: {}}
    ordinals = {1: 1, 2: 1}
    accepted = 0
    for worker in held:
        ledger.enrol(worker)
    for move, place, count in steps:
        worker = 1 + place % 2
        table = held[worker]
        if move == 0:
            ledger.accept((plain if place % 3 else own)(accepted, count))
            queue += range(accepted, accepted + count)
            accepted += count
        elif move == 1 and 0 < count <= len(queue):
            first = ordinals[worker]
            assert list(ledger.hand_out(worker, first, count).ids) == queue[:count]
            table.update(zip(range(first, first + count), queue[:count], strict=True))
            del queue[:count]
            ordinals[worker] += count
        elif move in (2, 3) and table:
            ones = sorted(table)[place % len(table) :][: count or 1]
            ones = ones[::-1] if move == 3 else ones
            ledger.require_held(worker, ones)
            assert list(ledger.release(worker, ones).ids) == [table.pop(k) for k in ones]
        elif move == 4:
            last = None if count == 6 else place + count
            back = [k for k in sorted(table) if k >= place and (last is None or k <= last)]
            assert ledger.take_back(worker, place, last) == len(back)
            queue[:0] = [table.pop(k) for k in back]
        elif move == 5:
            wrong = [place, *sorted(table)[:count]]
            if place not in table or place in wrong[1:]:
                with pytest.raises(IllegalEventError):
                    ledger.require_held(worker, wrong)
        check(ledger, queue, held)


def check(ledger, queue, held):
    assert [job.id for job in ledger.waiting()] == queue
    assert ledger.queued == len(queue)
    assert ledger.has_held == any(held.values())
    for worker, table in held.items():
        assert {k: job.id for k, job in ledger.held(worker).items()} == table
        assert ledger.held_by(worker) == len(table)
        assert ledger.first_held(worker) == min(table, default=None)
        if table:
            assert ledger.last_held(worker) == max(table)
        for ordinal, job_id in table.items():
            assert ledger.peek(worker, ordinal).id == job_id
            assert ledger.holder_of(job_id) == (worker, ordinal)
    assert ledger.peek(1, 10_000) is None
