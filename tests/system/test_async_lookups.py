"""Lookups that are awaited by many jobs of one worker at a time."""

from __future__ import annotations

import asyncio
import threading

from okanjo_conductor import Conductor, Loading, Lookup, current_worker
from okanjo_conductor.errors import JobTimeoutError

from .moments import DEADLINE


async def look_up(key):
    return await current_worker().lookup("n", key)


def test_many_jobs_wait_for_one_entry_which_is_made_once():
    """The function goes on only when all jobs wait; it blocks a thread, and not the loop."""

    async def look_up_together(_job):
        worker = current_worker()
        waiting = asyncio.ensure_future(worker.lookup("n", "a"))
        await asyncio.sleep(0)
        if await worker.increment("waiting", "count") == 20:
            await worker.request("all wait")
        return await waiting

    made = []

    def make(key):
        made.append(key)
        assert all_wait.wait(DEADLINE)
        return 2 * key

    all_wait = threading.Event()
    lookups = {"n": Loading(make), "waiting": {}}
    conductor = Conductor(
        look_up_together, jobs_queue=range(20), worker_limit=1, concurrency=20, lookups=lookups
    )
    conductor.command("all wait")(lambda _: all_wait.set())

    assert [o.result() for o in conductor.outcomes()] == ["aa"] * 20
    assert made == ["a"]


opened = threading.Event()
"""Of the worker."""


def make_when_opened(_key):
    assert opened.wait(DEADLINE)
    return "made"


async def look_up_or_open(job):
    if job == "open":
        opened.set()
        return "opened"
    return await look_up(job)


def test_who_makes_an_entry_in_the_worker_keeps_nobody_from_working():
    conductor = Conductor(
        look_up_or_open,
        jobs_queue=["a", "b", "a", "open"],
        worker_limit=1,
        concurrency=4,
        lookups={"n": Loading(make_when_opened, in_worker=True)},
    )

    values = [o.result() for o in conductor.outcomes(ordered=True)]

    assert values == ["made", "made", "made", "opened"]


def test_a_job_out_of_time_stops_waiting_and_the_others_go_on():
    async def never(key):
        if key == "never":
            await asyncio.Event().wait()
        return key

    conductor = Conductor(
        look_up,
        jobs_queue=["never", *range(10)],
        worker_limit=1,
        lookups={"n": Loading(never)},
        job_timeout=lambda job: 0.1 if job == "never" else None,
    )

    outcomes = {o.job: o for o in conductor.outcomes()}

    assert isinstance(outcomes.pop("never").error, JobTimeoutError)
    assert [outcomes[n].value for n in range(10)] == list(range(10))
    assert conductor.report.workers_lost == 0


def test_kept_entries_are_read_without_asking():
    async def look_up_often(key):
        return [await look_up(key) for _ in range(100)]

    lookups = {"n": Lookup({"a": 1}, cached=True)}
    conductor = Conductor(look_up_often, jobs_queue=["a", "b"], concurrency=1, lookups=lookups)
    conductor.resize(1)

    values = [o.result() for o in conductor.outcomes(ordered=True)]

    assert values == [[1] * 100, [None] * 100]
    stats = conductor.report.lookups["n"]
    assert (stats.hits, stats.misses, stats.round_trips) == (198, 2, 2)


def test_a_job_handed_out_after_a_change_sees_it():
    conductor = Conductor(
        look_up, jobs_queue=["a"], worker_limit=1, lookups={"n": Lookup({"a": 0}, cached=True)}
    )
    seen = []

    @conductor.on("job_done")
    def change_and_add_another(outcome):
        seen.append(outcome.value)
        if len(seen) < 20:
            conductor.set_lookup_value("n", "a", len(seen))
            conductor.add_job("a")

    conductor.run()

    assert seen == list(range(20))
