"""Lookups, whichever way their entries are reached."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import threading
import types
from contextlib import suppress
from pathlib import Path

import pytest

from okanjo_conductor import (
    ABSENT,
    Conductor,
    ConductorWorker,
    JobState,
    Lookup,
    LookupStats,
    Retry,
    conduct,
    current_worker,
)
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    ReadOnlyLookupError,
    UnknownLookupError,
)
from okanjo_conductor.lookups import live

from . import programs
from .test_worker import outcomes_of


def call(job):
    """Call the worker's method that the job names."""
    method, *args = job
    return getattr(current_worker(), method)(*args)


async def call_async(job):
    """The same, awaited."""
    method, *args = job
    return await getattr(current_worker(), method)(*args)


def values_of(jobs, lookups, worker=call, **options):
    """Run in one worker, one job at a time; return the values, in the order of the jobs."""
    if worker is call_async:
        options["concurrency"] = 1
    outcomes = outcomes_of(worker, jobs, lookups=lookups, **options)
    for outcome in outcomes:
        outcome.result()
    return [outcome.value for outcome in outcomes]


def meet_at(conductor, command, count):
    """Have a command answered when so many requests for it are there."""
    met = asyncio.Barrier(count)

    @conductor.command(command)
    async def meet(_msg):
        await met.wait()


# Live


@pytest.mark.parametrize("worker", [call, call_async, programs.Lookups])
@pytest.mark.parametrize("wrap", [lambda data: data, Lookup, lambda d: Lookup(d, cached=True)])
def test_all_verbs_are_there_for_functions_and_classes_of_workers(worker, wrap):
    stock = {"apple": 3}
    jobs = [
        ("lookup", "stock", "apple"),
        ("set_lookup", "stock", "pear", 5),
        ("update_lookup", "stock", {"plum": 1, "apple": 4}),
        ("lookup_many", "stock", ["plum", "fig", "apple", "pear"]),
        ("increment", "stock", "apple"),
        ("increment", "stock", "fig", 0.5),
        ("compare_and_set", "stock", "apple", 4, 0),
        ("compare_and_set", "stock", "apple", 5, 0),
        ("compare_and_set", "stock", "kiwi", None, 1),
        ("compare_and_set", "stock", "kiwi", ABSENT, 1),
        ("compare_and_set", "stock", "kiwi", ABSENT, 2),
        ("lookup", "stock", "kiwi"),
        ("lookup", "stock", "lime", "none"),
        ("lookup", "stock", "apple"),
    ]

    values = values_of(jobs, {"stock": wrap(stock)}, worker)

    assert values == [
        *(3, None, None),
        {"plum": 1, "apple": 4, "pear": 5},
        *(5, 0.5, False, True, False, True, False, 1, "none", 0),
    ]
    assert stock == {"apple": 0, "pear": 5, "plum": 1, "fig": 0.5, "kiwi": 1}


def test_the_conductor_has_the_same_verbs_before_during_and_after_the_run():
    conductor = Conductor(call, worker_limit=1, lookups={"n": Lookup({"a": 1})})
    conductor.jobs_queue = [("lookup", "n", "a"), ("lookup", "n", "b")]
    changed = []

    def change(outcome=None):
        changed.append(outcome and outcome.value)
        conductor.update_lookup("n", {"c": 0, "d": 0})
        conductor.increment_lookup_value("n", "a", 10)
        conductor.set_lookup_value("n", "e", 5)
        assert conductor.compare_and_set_lookup_value("n", "c", 0, len(changed))
        assert not conductor.compare_and_set_lookup_value("n", "c", ABSENT, 9)

    change()
    conductor.on("job_done", change)
    conductor.run()
    change()

    assert changed == [None, 11, None, None]
    assert conductor.get_lookup("n") == {"a": 41, "c": 4, "d": 0, "e": 5}


def test_a_consumer_in_another_thread_may_change_lookups():
    conductor = Conductor(call, worker_limit=1, lookups={"n": Lookup({}, cached=True)})
    conductor.jobs_queue = [("lookup", "n", "a")] * 20

    for outcome in conductor.outcomes():
        assert outcome.is_done
        conductor.increment_lookup_value("n", "a")

    assert conductor.get_lookup_value("n", "a") == 20


@pytest.mark.parametrize("fixed", [(1, 2), types.MappingProxyType({0: 1}), "text"])
@pytest.mark.parametrize(
    "verb",
    [
        ("set_lookup", "fixed", 0, 1),
        ("update_lookup", "fixed", {0: 1}),
        ("increment", "fixed", 0),
        ("compare_and_set", "fixed", 0, 1, 2),
    ],
)
def test_a_lookup_that_cannot_be_changed_says_so_and_what_to_do(fixed, verb):
    (outcome,) = outcomes_of(call, [verb], lookups={"fixed": fixed})

    assert isinstance(outcome.error, ReadOnlyLookupError)
    assert (outcome.error.name, outcome.error.kind) == ("fixed", type(fixed).__qualname__)
    assert "'fixed' cannot be changed" in str(outcome.error)
    assert "a dict, for example" in str(outcome.error)


def test_what_the_mapping_raises_reaches_the_worker():
    class Picky(dict):
        def __setitem__(self, key, value):
            raise ValueError(f"no {key} today")

    (outcome,) = outcomes_of(call, [("set_lookup", "picky", "a", 1)], lookups={"picky": Picky()})

    assert isinstance(outcome.error, ValueError)
    assert str(outcome.error) == "no a today"


def test_unknown_lookups_are_refused_whatever_the_verb():
    jobs = [
        ("lookup", "nuts", 1),
        ("lookup_many", "nuts", [1]),
        ("set_lookup", "nuts", 1, 1),
        ("update_lookup", "nuts", {}),
        ("increment", "nuts", 1),
        ("compare_and_set", "nuts", 1, 1, 1),
        ("shared", "nuts"),
    ]

    outcomes = outcomes_of(call, jobs, lookups={"fruits": {}})

    assert {type(o.error) for o in outcomes} == {UnknownLookupError}


def test_current_worker_is_for_workers():
    with pytest.raises(ConductorStateError, match="worker process"):
        current_worker()


def counting(job):
    """Count up, and die now and then."""
    worker = current_worker()
    for step in range(10):
        worker.increment("counts", "attempted by hand")
        worker.increment("counts", ("acknowledged", os.getpid(), job, step))
        if step == job % 10 and job % 7 == 3 and worker.lookup("counts", ("died", job)) is None:
            worker.set_lookup("counts", ("died", job), True)
            os.kill(os.getpid(), signal.SIGKILL)
    return worker.increment("counts", "jobs")


def test_increments_are_counted_once_though_workers_are_killed():
    counts = {}
    conductor = Conductor(
        counting, worker_limit=4, jobs_queue=range(60), lookups={"counts": counts}, logging=False
    )
    conductor.on("error", lambda _: None)

    outcomes = list(conductor.outcomes())

    assert all(o.state is JobState.DONE for o in outcomes)
    assert sorted(o.value for o in outcomes) == list(range(1, 61)), "no number came twice"
    died = sum(1 for key in counts if key[0] == "died")
    assert died == sum(1 for job in range(60) if job % 7 == 3)
    steps = [n for key, n in counts.items() if key[0] == "acknowledged"]
    assert counts["attempted by hand"] == len(steps)
    assert set(steps) == {1}


class Racing(ConductorWorker):
    """Increments until its process is ended from outside, and counts what was acknowledged."""

    def process_job(self, path):
        with open(path, "ab", buffering=0) as log:  # noqa: PTH123 - unbuffered, as it may be killed
            for _ in range(300):
                log.write(b"a")
                self.increment("n", "x")
                log.write(b"b")
        return path


def test_a_total_lies_between_what_was_acknowledged_and_what_was_attempted(tmp_path):
    """Linearisable: nothing acknowledged is lost, nothing is counted that was not asked for."""
    paths = [str(tmp_path / str(number)) for number in range(4)]
    conductor = Conductor(
        Racing,
        worker_limit=4,
        jobs_queue=paths,
        retry=Retry(crashes=3, backoff=lambda *_: 0.0),
        logging=False,
    )
    conductor.on("error", lambda _: None)
    pids = {}
    conductor.on("worker_start", pids.__setitem__)
    kills = [50, 130, 260, 400]

    class Watched(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            if kills and value >= kills[0]:
                kills.pop(0)
                with suppress(ProcessLookupError):  # it has done its job and left
                    os.kill(pids[max(pids)], signal.SIGKILL)

    numbers = conductor.lookups["n"] = Watched()

    report = conductor.run()

    logs = b"".join(Path(path).read_bytes() for path in paths)
    assert report.done == 4
    assert report.workers_lost >= 1
    assert logs.count(b"b") <= numbers["x"] <= logs.count(b"a")
    assert logs.count(b"b") >= 1200


# Kept by workers


def test_a_kept_entry_is_asked_for_once():
    conductor = Conductor(
        call,
        worker_limit=1,
        jobs_queue=[("lookup", "n", "a")] * 50 + [("lookup_many", "n", ["a", "b", "z"])] * 2,
        lookups={"n": Lookup({"a": 1, "b": 2}, cached=True)},
    )

    report = conductor.run()

    stats = report.lookups["n"]
    assert (stats.hits, stats.misses, stats.round_trips) == (49 + 1 + 3, 3, 2)
    assert 0 < stats.seconds < report.seconds
    assert "n: 53 hits, 3 misses, 2 round trips" in str(report)


def test_what_is_not_kept_is_a_miss_each_time_and_nothing_is_reported_of_the_unused():
    conductor = Conductor(
        call,
        worker_limit=1,
        jobs_queue=[("lookup", "a.b", 1), ("lookup", "a.b", 1), ("increment", "a.b", 2)],
        lookups={"a.b": {}, "unused": {}},
    )

    report = conductor.run()

    assert report.lookups == {
        "a.b": LookupStats(misses=2, round_trips=3, seconds=report.lookups["a.b"].seconds)
    }
    assert report.last_stats["lookups.a.b.misses"] == 2


def test_a_report_without_lookups_says_nothing_of_them():
    report = Conductor(abs, worker_limit=1, jobs_queue=[1], lookups={"unused": {}}).run()

    assert report.lookups == {}
    assert "lookups" not in str(report)


def read_and_tell(job):
    return current_worker().lookup("n", "a")


def test_a_job_handed_out_after_a_change_sees_it():
    """Each job is added in the step after the change, so it is handed out after it."""
    conductor = Conductor(
        read_and_tell,
        worker_limit=2,
        jobs_queue=[0, 0],
        lookups={"n": Lookup({"a": 0}, cached=True)},
    )
    expected, seen = {}, []

    @conductor.on("job_done")
    def on_done(outcome):
        seen.append((outcome.value, expected.get(outcome.key, 0)))
        if len(seen) < 300:
            now = conductor.increment_lookup_value("n", "a")
            key = ("after", now)
            expected[key] = now
            conductor.add_job(now, key=key)

    report = conductor.run()

    assert len(seen) >= 300
    assert all(value >= least for value, least in seen)
    assert report.lookups["n"].misses > 100, "they did have to ask again"


def writing(job):
    worker = current_worker()
    for number in range(20):
        worker.set_lookup("n", job, number)
        assert worker.lookup("n", job) == number
        assert worker.lookup_many("n", [job, "other"]) == {job: number, "other": "x"}
        assert worker.increment("n", job, 0.5) == number + 0.5
        assert worker.lookup("n", job) == number + 0.5


def test_a_worker_sees_its_own_writes():
    lookups = {"n": Lookup({"other": "x"}, cached=True)}

    for _ in conduct(writing, range(20), worker_limit=2, lookups=lookups):
        pass


class Watching(ConductorWorker):
    """Reads two numbers that only grow, the first never behind the second, again and again."""

    def process_job(self, job):
        if job % 2:
            for _ in range(20):
                self.increment("n", "first")
                self.increment("n", "second")
            return True
        pairs = []
        for _ in range(200):
            if not len(pairs) % 10:
                self.lookup("other", "anything")  # news comes with the answer
            second = self.lookup("n", "second", 0)
            pairs.append((self.lookup("n", "first", 0), second))
        return pairs == sorted(pairs) and all(first >= second for first, second in pairs)


def test_time_never_goes_back_in_a_worker_not_even_across_entries():
    """Who was told of a change, by an answer about whatever, reads nothing of before it."""
    lookups = {"n": Lookup({}, cached=True), "other": {}}

    assert all(conduct(Watching, range(40), worker_limit=2, lookups=lookups))


@pytest.mark.parametrize(
    ("make", "key", "changes"),
    [
        (dict, "a", lambda c: c.set_lookup_value("n", "a", 2)),
        (dict, ("a", 1), lambda c: c.set_lookup_value("n", ("a", 1), 2)),
        (dict, 1.5, lambda c: c.set_lookup_value("n", 1.5, 2)),
        (dict, programs.Colour.RED, lambda c: c.set_lookup_value("n", programs.Colour.RED, 2)),
        (dict, "a", lambda c: c.update_lookup("n", {str(n): n for n in range(1000)} | {"a": 2})),
        (lambda items: [0, 0, items["x"]], 2, lambda c: c.set_lookup_value("n", -1, 2)),
        (collections.UserDict, "a", lambda c: c.compare_and_set_lookup_value("n", "a", 1, 2)),
    ],
)
def test_every_kind_of_change_is_told(make, key, changes):
    data = make({key: 1, "x": 1})
    conductor = Conductor(
        call,
        worker_limit=1,
        jobs_queue=[("lookup", "n", key)],
        lookups={"n": Lookup(data, cached=True)},
    )
    seen = []

    @conductor.on("job_done")
    def on_done(outcome):
        seen.append(outcome.value)
        if len(seen) == 1:
            changes(conductor)
        if len(seen) < 3:
            conductor.add_job(("lookup", "n", key))

    conductor.run()

    assert seen == [1, 2, 2]


def test_that_there_is_no_entry_is_kept_too_and_forgotten():
    conductor = Conductor(
        call,
        worker_limit=1,
        jobs_queue=[("lookup", "n", "a")] * 3,
        lookups={"n": Lookup({}, cached=True)},
    )
    seen = []

    @conductor.on("job_done")
    def on_done(outcome):
        seen.append(outcome.value)
        if len(seen) == 3:
            conductor.set_lookup_value("n", "a", 1)
            conductor.add_job(("lookup", "n", "a"))

    report = conductor.run()

    assert seen == [None, None, None, 1]
    assert report.lookups["n"].misses == 2


def test_a_worker_keeps_no_more_than_it_may():
    def read(_job):
        worker = current_worker()
        for number in range(100):
            worker.lookup("n", number)
            worker.lookup_many("n", range(number, number + 5))
        worker.lookup_many("n", range(200))
        return len(worker._lookups["n"]), worker.lookup("n", 199)

    lookups = {"n": Lookup(list(range(200)), cached=True, max_entries=10)}

    assert list(conduct(read, [0], worker_limit=1, lookups=lookups)) == [(10, 199)]


@pytest.mark.parametrize("most", [0, -1, 1.5, True, None])
def test_a_bound_that_makes_no_sense_is_refused(most):
    with pytest.raises(ConfigurationError, match="max_entries"):
        Lookup({}, max_entries=most)


def test_threads_of_a_job_share_what_is_kept():
    def read(_job):
        worker = current_worker()
        values = []

        def work(first):
            for number in range(200):
                worker.set_lookup("n", (first, number % 7), number)
                values.append(worker.lookup("n", (first, number % 7)) == number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(values), all(values)

    lookups = {"n": Lookup({}, cached=True)}

    assert list(conduct(read, [0], worker_limit=1, lookups=lookups)) == [(800, True)]


def test_news_names_keys_up_to_a_number_and_then_the_lookup():
    news = live.News()
    assert not news
    news.add("a", ["x", "y"])
    news.add("a", ["y"])
    news.add("b", ["x"])
    news.add("b", None)
    news.add("b", ["z"])
    news.add("c", range(live._MOST_KEYS))
    assert news

    messages = {m.name: m.keys for m in news.take()}

    assert sorted(messages["a"]) == ["x", "y"]
    assert messages["b"] is None
    assert len(messages["c"]) == live._MOST_KEYS
    assert not news
    assert news.take() == []
    news.add("c", range(live._MOST_KEYS + 1))
    assert [m.keys for m in news.take()] == [None]
