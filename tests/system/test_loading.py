"""Entries that are made when they are asked for, in the conductor or in a worker."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from okanjo_conductor import (
    Cause,
    Conductor,
    ConductorWorker,
    JobState,
    Loading,
    Lookup,
    conduct,
    current_worker,
)
from okanjo_conductor._io.threads import Threads
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    JobTimeoutError,
    RemoteError,
)

from .moments import DEADLINE
from .test_lookups import call, call_async, values_of
from .test_worker import outcomes_of


def double(key):
    return 2 * key


async def double_async(key):
    await asyncio.sleep(0)
    return 2 * key


def double_later(key):
    return double_async(key)


class Doubler:
    async def __call__(self, key):
        return 2 * key

    async def method(self, key):
        return 2 * key


WAYS = {
    "plain": (double, False),
    "async": (double_async, False),
    "plain that gives an awaitable": (double_later, False),
    "async object": (Doubler(), False),
    "async method": (Doubler().method, False),
    "async partial": (functools.partial(double_async), False),
    "in the worker": (double, True),
}


@pytest.mark.parametrize("worker", [call, call_async])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_entries_are_made_once(way, cached, worker):
    function, in_worker = WAYS[way]
    loading = Loading(function, in_worker=in_worker, data={1: "known"})
    jobs = [
        ("lookup", "n", 1),
        ("lookup", "n", 2),
        ("lookup_many", "n", [4, 1, 3, 2, 4]),
        ("set_lookup", "n", 5, "set"),
        ("lookup_many", "n", range(6)),
        ("increment", "n", 3),
    ]

    values = values_of(jobs, {"n": Lookup(loading, cached=cached)}, worker)

    assert values == [
        *("known", 4, {4: 8, 1: "known", 3: 6, 2: 4}, None),
        {0: 0, 1: "known", 2: 4, 3: 6, 4: 8, 5: "set"},
        7,
    ]
    assert loading.data == {0: 0, 1: "known", 2: 4, 3: 7, 4: 8, 5: "set"}


def test_a_function_runs_where_it_was_asked_to():
    def where(_key):
        return os.getpid(), threading.current_thread() is threading.main_thread()

    lookups = {"here": Loading(where), "there": Loading(where, in_worker=True)}
    jobs = [("lookup", "here", 1), ("lookup", "there", 1)]

    (here, is_main_here), (there, is_main_there) = values_of(jobs, lookups)

    assert here == os.getpid()
    assert not is_main_here
    assert there != here
    assert is_main_there


def test_a_slow_function_does_not_hold_up_other_jobs():
    """It ends when the other jobs have: if they had to wait for it, nothing would end."""
    others_are_done = threading.Event()

    def slow(_key):
        return others_are_done.wait(DEADLINE)

    def ask(job):
        return current_worker().lookup("n", "slow") if job == 0 else job

    conductor = Conductor(ask, worker_limit=2, jobs_queue=range(50), lookups={"n": Loading(slow)})
    done = []

    @conductor.on("job_done")
    def on_done(outcome):
        done.append(outcome.value)
        if len(done) == 49:
            others_are_done.set()

    conductor.run()

    assert done[-1] is True
    assert sorted(done[:-1]) == list(range(1, 50))


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_calls_run_at_once_than_there_are_threads(threads):
    running, most = set(), []
    lock = threading.Lock()
    full = threading.Semaphore(0)

    def watch(key):
        with lock:
            running.add(key)
            most.append(len(running))
            if len(running) == threads:
                full.release(100)
        assert full.acquire(timeout=DEADLINE)  # until as many run as may
        with lock:
            running.discard(key)
        return key

    values = values_of([("lookup_many", "n", range(12))], {"n": Loading(watch, threads=threads)})

    assert values == [{n: n for n in range(12)}]
    assert max(most) == threads


class Asking(ConductorWorker):
    """Asks in turn, without waiting; then all go on and wait."""

    def process_job(self, job):
        self.request("may ask", job)
        query = self._lookups["n"].ask(["x"])
        self.request("has asked", job)
        return self.result_of(query, job)

    def result_of(self, query, job):
        ((value,),) = query.result()
        return value


def asking(loading, count=2, worker=Asking, **options):
    """Have workers ask for the same entry, job 0 first; nobody goes on before all have asked."""
    conductor = Conductor(
        worker, worker_limit=count, jobs_queue=range(count), lookups={"n": loading}, **options
    )
    conductor.on("error", lambda _: None)
    turns = [asyncio.Event() for _ in range(count + 1)]
    turns[0].set()
    asked = set()

    @conductor.command("may ask")
    async def wait_for_turn(msg):
        await turns[msg.data].wait()

    @conductor.command("has asked")
    async def wait_for_all(msg):
        asked.add(msg.data)
        turns[len(asked)].set()
        await turns[count].wait()
        conductor.emit("all have asked")

    return conductor


def test_an_entry_is_made_once_however_many_want_it():
    all_have_asked = threading.Event()
    calls = []

    def make(key):
        calls.append(key)
        assert all_have_asked.wait(DEADLINE)
        return len(calls)

    conductor = asking(Loading(make), count=3)
    conductor.on("all have asked", all_have_asked.set)

    assert [o.value for o in conductor.outcomes()] == [1, 1, 1]
    assert calls == ["x"]


@pytest.mark.parametrize("in_worker", [False, True])
def test_what_is_raised_reaches_all_who_wait_and_the_next_one_has_it_made_again(
    in_worker, tmp_path
):
    failed = tmp_path / "failed"
    all_have_asked = None if in_worker else threading.Event()  # it cannot travel

    def make(_key):
        assert in_worker or all_have_asked.wait(DEADLINE)
        if not failed.exists():
            failed.touch()
            raise LookupError("the database is asleep")
        return "made"

    conductor = asking(Loading(make, in_worker=in_worker))
    conductor.on("all have asked", all_have_asked.set if all_have_asked else lambda: None)
    conductor.on("job_failed", lambda _: conductor.jobs_queue or conductor.add_job(0))
    outcomes = list(conductor.outcomes())

    errors = [o.error for o in outcomes if not o.is_done]
    assert [str(error) for error in errors] == ["the database is asleep"] * 2
    assert {type(error) for error in errors} == {LookupError}
    assert {o.value for o in outcomes if o.is_done} == {"made"}


FATES = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exits": lambda: os._exit(0),
    "crashes": lambda: current_worker().crash("no"),
}


@pytest.mark.parametrize("fate", FATES)
def test_where_the_worker_that_makes_it_dies_the_next_who_waits_takes_over(fate, tmp_path):
    died = tmp_path / "died"

    def make(key):
        if not died.exists():
            died.touch()
            FATES[fate]()
        return os.getpid()

    conductor = asking(Loading(make, in_worker=True))

    outcomes = {o.key: o for o in conductor.outcomes()}

    assert [o.state for o in outcomes.values()] == [JobState.DONE] * 2
    assert len({o.value for o in outcomes.values()}) == 1, "made once"
    assert outcomes[0].attempts == 2
    assert outcomes[1].attempts == 1
    assert conductor.report.workers_lost == 1


def test_where_the_job_that_makes_it_has_no_more_time_the_next_who_waits_takes_over(tmp_path):
    began = tmp_path / "began"

    def make(_key):
        if not began.exists():
            began.touch()
            while True:
                time.sleep(0.01)  # interrupted here
        return "made"

    conductor = asking(
        Loading(make, in_worker=True),
        job_timeout=lambda job: 0.5 if job == 0 else None,
        soft_timeout=True,
        timeout_grace=2 * DEADLINE,
    )

    outcomes = {o.key: o for o in conductor.outcomes()}

    assert isinstance(outcomes[0].error, JobTimeoutError)
    assert outcomes[1].value == "made"
    assert conductor.report.workers_lost == 0


def test_who_has_given_up_waiting_is_not_asked_to_make_anything(tmp_path):
    """The second gives up and works on; when the first is killed, the third must make it."""

    class Impatient(Asking):
        def result_of(self, query, job):
            if job == 1:
                with pytest.raises(TimeoutError):
                    query.result(0.001)
                self.request("gave up", None)
                return self.request("was it made?")
            self.request("may go on", job)
            return super().result_of(query, job)

    died = tmp_path / "died"

    def make(_key):
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "made"

    conductor = asking(Loading(make, in_worker=True), count=3, worker=Impatient)
    gave_up, made = asyncio.Event(), asyncio.Event()
    conductor.on("job_done", lambda _: made.set())
    conductor.command("gave up")(lambda _: gave_up.set())

    @conductor.command("may go on")
    async def wait_until_given_up(_msg):
        await gave_up.wait()

    @conductor.command("was it made?")
    async def wait_until_made(_msg):
        await made.wait()
        return "by another"

    outcomes = {o.key: o.value for o in conductor.outcomes()}

    assert outcomes == {0: "made", 1: "by another", 2: "made"}


def test_errors_of_a_function_in_a_worker_are_the_jobs():
    def make(key):
        if key == "exit":
            raise SystemExit(3)
        if key == "unpicklable":
            return threading.Lock()
        raise KeyError(key)

    jobs = [("lookup", "n", "a"), ("lookup", "n", "unpicklable"), ("lookup", "n", "exit")]
    for in_worker in (True, False):
        outcomes = outcomes_of(call, jobs, lookups={"n": Loading(make, in_worker=in_worker)})
        assert isinstance(outcomes[0].error, KeyError)
        assert outcomes[0].error.args == ("a",)
        assert isinstance(outcomes[1].error, TypeError)
        assert "pickle" in str(outcomes[1].error)
        assert isinstance(outcomes[2].error, RemoteError)
        assert outcomes[2].error.type_name == "SystemExit"


class OneWay:
    """A key that can be pickled in a worker only."""

    def __init__(self, pid):
        self.pid = pid

    def __eq__(self, other):
        return isinstance(other, OneWay)

    def __hash__(self):
        return 1

    def __reduce__(self):
        if os.getpid() != self.pid:
            raise TypeError("it does not go back")
        return OneWay, (self.pid,)


def test_a_key_that_does_not_find_back_is_the_jobs_error():
    def ask(_job):
        return current_worker().lookup("n", OneWay(os.getpid()))

    outcomes = outcomes_of(ask, [1, 2], lookups={"n": Loading(double, in_worker=True)})

    assert [str(o.error) for o in outcomes] == ["it does not go back"] * 2


def test_a_function_in_a_worker_may_use_other_lookups_but_not_its_own():
    def make(key):
        if key == 0:
            return current_worker().lookup("n", 1)
        return current_worker().lookup("prices", key) + 1

    lookups = {"n": Loading(make, in_worker=True), "prices": {1: 10, 2: 20}}

    other, own, after = outcomes_of(
        call, [("lookup", "n", 2), ("lookup", "n", 0), ("lookup", "n", 1)], lookups=lookups
    )

    assert other.value == 21
    assert isinstance(own.error, ConductorStateError)
    assert "'n' needs an entry of it" in str(own.error)
    assert after.value == 11


def test_what_was_set_while_it_was_made_stands():
    was_set = threading.Event()

    def make(_key):
        assert was_set.wait(DEADLINE)
        return "made"

    conductor = asking(Loading(make), count=1)

    @conductor.on("all have asked")
    def change():
        conductor.set_lookup_value("n", "x", "set")
        was_set.set()

    assert [o.value for o in conductor.outcomes()] == ["set"]
    assert conductor.get_lookup("n") == {"x": "set"}


def test_the_mapping_may_drop_entries():
    class Forgetful(dict):
        def __setitem__(self, key, value):
            self.clear()
            super().__setitem__(key, value)

        def setdefault(self, key, value):
            self[key] = value
            return value

    loading = Loading(double, data=Forgetful())

    (values,) = values_of([("lookup_many", "n", range(5))], {"n": loading})

    assert values == {n: 2 * n for n in range(5)}
    assert len(loading.data) == 1


def test_a_mapping_that_refuses_is_an_error_of_the_job():
    class Full(dict):
        def setdefault(self, key, value):
            raise OverflowError("full")

    (outcome,) = outcomes_of(
        call, [("lookup", "n", 1)], lookups={"n": Loading(double, data=Full())}
    )

    assert isinstance(outcome.error, OverflowError)


def test_the_run_does_not_wait_for_a_function_that_nobody_waits_for():
    never = threading.Event()

    class Leaving(ConductorWorker):
        def process_job(self, job):
            self._lookups["n"].ask([job])
            self._lookups["m"].ask([job])

    async def wait(_key):
        await asyncio.Event().wait()

    lookups = {"n": Loading(lambda _: never.wait(DEADLINE)), "m": Loading(wait)}
    try:
        report = Conductor(Leaving, worker_limit=2, jobs_queue=range(9), lookups=lookups).run()
    finally:
        never.set()

    assert report.done == 9
    assert report.seconds < DEADLINE


def test_loads_by_many_workers_while_workers_are_killed(tmp_path):
    """Nobody hangs, nobody gets a wrong value, whoever is killed in the middle of it."""

    def make(key):
        flag = tmp_path / f"died-{key}"
        if key % 9 == 4 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return key * key

    def ask(job):
        keys = range(job % 30, job % 30 + 10)
        return current_worker().lookup_many("n", keys) == {key: key * key for key in keys}

    conductor = Conductor(
        ask,
        worker_limit=4,
        jobs_queue=range(120),
        lookups={"n": Lookup(Loading(make, in_worker=True), cached=True)},
        logging=False,
    )
    conductor.on("error", lambda _: None)

    outcomes = list(conductor.outcomes())

    assert all(o.value is True for o in outcomes)
    assert all(a.cause is Cause.CRASH for o in outcomes for a in o.history)
    assert 0 < conductor.report.workers_lost <= 5


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((3,), {}, "a function from key to value"),
        ((double_async,), {"in_worker": True}, "a plain function"),
        ((double,), {"threads": 0}, "threads=0"),
        ((double,), {"threads": True}, "threads=True"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, options, said):
    with pytest.raises(ConfigurationError, match=said):
        Loading(*arguments, **options)


def test_threads_end_when_they_are_closed():
    loop = SimpleNamespace(call_soon_threadsafe=lambda function, *args: function(*args))
    threads = Threads(2, "okanjo-conductor-loading", loop)
    results = []
    arrived = threading.Semaphore(0)

    def take(error, value):
        results.append((error, value))
        arrived.release()

    for number in range(5):
        threads.submit(lambda number=number: 1 // number, take)
    for _ in range(5):
        assert arrived.acquire(timeout=DEADLINE)
    threads.close()

    assert sorted(value for error, value in results if error is None) == [0, 0, 0, 1]
    assert [type(error) for error, _ in results if error] == [ZeroDivisionError]
    for thread in threading.enumerate():
        if thread.name == "okanjo-conductor-loading":
            thread.join(DEADLINE)
            assert not thread.is_alive()


def test_many_jobs_get_what_they_asked_for():
    lookups = {"n": Lookup(Loading(double), cached=True)}

    def ask(job):
        return current_worker().lookup("n", job % 50)

    values = list(conduct(ask, range(500), worker_limit=3, lookups=lookups, ordered=True))

    assert values == [2 * (n % 50) for n in range(500)]
