"""Where jobs come from, how outcomes come back, and what runs at once."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from unittest.mock import MagicMock

import pytest

from okanjo_conductor import Conductor, JobState, Outcome, conduct
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    IntakeError,
    WorkerGoneError,
)

from . import programs
from .moments import DEADLINE

SLOTS = 2


def numbers(count):
    yield from range(count)


async def async_numbers(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class AsyncIterable:
    """Is no generator, only has ``__aiter__``."""

    def __aiter__(self):
        return async_numbers(20)


def jobs_of(outcomes):
    return sorted(outcome.job for outcome in outcomes)


# jobs_queue

QUEUES = {
    "list": lambda: list(range(20)),
    "tuple": lambda: tuple(range(20)),
    "range": lambda: range(20),
    "set": lambda: set(range(20)),
    "dict": lambda: dict.fromkeys(range(20)),
    "generator": lambda: numbers(20),
    "map": lambda: map(int, range(20)),
    "async generator": lambda: async_numbers(20),
    "async iterable": AsyncIterable,
}


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_jobs_come_from_any_iterable(make):
    conductor = Conductor(programs.square, worker_limit=SLOTS, jobs_queue=make())

    outcomes = list(conductor.outcomes())

    assert jobs_of(outcomes) == list(range(20))
    assert all(o.value == o.job**2 and o.state is JobState.DONE for o in outcomes)
    assert len(conductor.jobs_queue) == 0


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_jobs_queue_may_be_assigned_before_the_run(make):
    conductor = Conductor(programs.square, worker_limit=SLOTS)
    conductor.jobs_queue = make()

    assert conductor.run().done == 20


def test_a_list_is_appended_to_as_in_the_manual():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[0])
    conductor.jobs_queue.append(1)
    conductor.jobs_queue.extend([2, 3])

    assert len(conductor.jobs_queue) == 4
    assert 3 in conductor.jobs_queue
    assert jobs_of(conductor.outcomes()) == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [list, numbers, async_numbers], ids=["list", "gen", "async gen"])
def test_jobs_may_be_appended_by_a_handler_of_job_done(make):
    conductor = Conductor(programs.square, worker_limit=SLOTS)
    conductor.jobs_queue = make(3) if make is not list else [0, 1, 2]
    done = []

    @conductor.on("job_done")
    def on_done(outcome):
        done.append(outcome.job)
        if outcome.job < 100:
            conductor.jobs_queue.append(outcome.job + 10)

    report = conductor.run()

    assert report.done == 3 * 11
    assert sorted(done) == sorted(t + u for t in range(0, 101, 10) for u in range(3))


def test_jobs_may_be_appended_by_another_thread():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[0])
    threads: list[threading.Thread] = []

    def append():
        for number in range(1, 51):
            conductor.jobs_queue.append(number)

    def on_done(outcome):
        if not threads:
            threads.append(threading.Thread(target=append))
            threads[0].start()
            threads[0].join(DEADLINE)

    conductor.on("job_done", on_done)

    assert conductor.run().done == 51


def test_jobs_appended_while_a_generator_blocks_are_run():
    """The reading thread sits in ``next()``; what is appended does not wait for it."""
    appended_ran = threading.Event()

    def jobs():
        yield 1
        assert appended_ran.wait(DEADLINE)
        yield 2

    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=jobs())

    @conductor.on("job_done")
    def on_done(outcome):
        if outcome.job == 1:
            conductor.jobs_queue.append(10)
        if outcome.job == 10:
            appended_ran.set()

    assert conductor.run().done == 3


def test_jobs_queue_cannot_be_replaced_while_the_run_goes_on():
    raised = []
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])

    @conductor.on("job_done")
    def on_done(_outcome):
        try:
            conductor.jobs_queue = [2]
        except ConductorStateError as error:
            raised.append(str(error))

    conductor.run()

    assert "append to it" in raised[0]


# generate_jobs


class Filling(Conductor):
    def generate_jobs(self):
        self.jobs_queue.extend(range(20))


class Assigning(Conductor):
    def generate_jobs(self):
        self.jobs_queue = range(20)


class Returning(Conductor):
    def generate_jobs(self):
        return range(20)


class Yielding(Conductor):
    def generate_jobs(self):
        yield from range(20)


class AsyncFilling(Conductor):
    async def generate_jobs(self):
        await asyncio.sleep(0)
        self.jobs_queue.extend(range(20))


class AsyncReturning(Conductor):
    async def generate_jobs(self):
        await asyncio.sleep(0)
        return list(range(20))


class AsyncYielding(Conductor):
    async def generate_jobs(self):
        async for number in async_numbers(20):
            yield number


GENERATING = [
    Filling,
    Assigning,
    Returning,
    Yielding,
    AsyncFilling,
    AsyncReturning,
    AsyncYielding,
]


@pytest.mark.parametrize("kind", GENERATING)
def test_generate_jobs_may_be_overridden(kind):
    conductor = kind(programs.square, worker_limit=SLOTS)

    assert jobs_of(conductor.outcomes()) == list(range(20))


@pytest.mark.parametrize("kind", GENERATING)
def test_generate_jobs_may_be_assigned(kind):
    conductor = Conductor(programs.square, worker_limit=SLOTS)
    conductor.generate_jobs = kind.generate_jobs.__get__(conductor)

    assert conductor.run().done == 20


@pytest.mark.parametrize("kind", [Filling, Returning, AsyncReturning, Yielding, AsyncYielding])
def test_generate_jobs_adds_to_the_jobs_there_are(kind):
    conductor = kind(programs.square, worker_limit=SLOTS, jobs_queue=[100, 101])

    assert jobs_of(conductor.outcomes()) == [*range(20), 100, 101]


# Errors of the source


def failing(count):
    yield from range(count)
    raise ValueError("the well is dry")


async def failing_async(count):
    for number in range(count):
        yield number
    raise ValueError("the well is dry")


def failing_iterator(count):
    return (n if n < count else int("the well is dry") for n in itertools.count())


@pytest.mark.parametrize("make", [failing, failing_async, failing_iterator])
def test_an_error_of_the_source_lets_running_jobs_finish_and_ends_the_run(make):
    done = []
    conductor = Conductor(programs.square, worker_limit=SLOTS, jobs_queue=make(7))
    conductor.on("job_done", lambda o: done.append(o.job))

    with pytest.raises(IntakeError, match="the well is dry") as caught:
        conductor.run()

    assert isinstance(caught.value.__cause__, ValueError)
    assert sorted(done) == list(range(7))


def test_an_error_of_generate_jobs_ends_the_run_before_it_begins():
    class Broken(Conductor):
        def generate_jobs(self):
            raise ValueError("no jobs today")

    ends = []
    conductor = Broken(programs.square)
    conductor.on("end", lambda: ends.append(1))

    with pytest.raises(IntakeError, match="no jobs today") as caught:
        conductor.run()

    assert isinstance(caught.value.__cause__, ValueError)
    assert ends == [1]


@pytest.mark.parametrize("is_async", [True, False])
def test_an_error_of_the_source_comes_after_the_outcomes(is_async):
    conductor = Conductor(programs.square, worker_limit=SLOTS, jobs_queue=failing(7))
    outcomes = []

    async def iterate():
        async for outcome in conductor.outcomes():
            outcomes.append(outcome)  # noqa: PERF401 - the loop ends with an exception

    def iterate_synchronously():
        for outcome in conductor.outcomes():
            outcomes.append(outcome)  # noqa: PERF402 - as above

    with pytest.raises(IntakeError):
        asyncio.run(iterate()) if is_async else iterate_synchronously()

    assert jobs_of(outcomes) == list(range(7))


def test_an_error_of_job_key_ends_intake():
    conductor = Conductor(
        programs.square, worker_limit=1, jobs_queue=[1, 2], job_key=lambda job: job["id"]
    )

    with pytest.raises(IntakeError) as caught:
        conductor.run()

    assert isinstance(caught.value.__cause__, TypeError)


def test_two_iterators_at_once_are_refused():
    conductor = Yielding(programs.square, jobs_queue=numbers(3))

    with pytest.raises(ConfigurationError, match="which comes first"):
        conductor.run()


# Lazy intake


class Counted:
    """An endless iterator that counts how often it was read."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.read += 1
        return self.read


def test_an_endless_source_is_read_little_ahead(moment):
    """Every worker sits in a job, so nothing but the read-ahead can be read."""
    source = Counted()
    begun, may_go_on = moment("begun"), moment("may go on")
    jobs = ((begun, may_go_on, n) for n in source)
    conductor = Conductor(
        programs.meet, worker_limit=SLOTS, jobs_queue=jobs, buffer=1, abort_grace=0.05
    )

    read = []

    def look():
        begun.wait()
        read.append(source.read)
        may_go_on.happen()

    looker = threading.Thread(target=look)
    looker.start()
    for _ in conductor.outcomes():
        break
    looker.join(DEADLINE)

    assert read[0] <= 10 * SLOTS


def test_an_endless_source_is_read_no_further_than_outcomes_are_taken():
    source = Counted()
    conductor = Conductor(
        programs.take_a_while,
        worker_limit=SLOTS,
        jobs_queue=source,
        buffer=2 * SLOTS,
        abort_grace=0.05,
    )

    outcomes = list(itertools.islice(conductor.outcomes(), 20))

    assert len(outcomes) == 20
    assert source.read <= 20 + 10 * SLOTS


def test_an_endless_source_of_tiny_jobs_is_read_a_few_batches_ahead():
    """A buffer bounds the batches too: two held by each worker, one or two on either side."""
    source = Counted()
    conductor = Conductor(
        programs.square, worker_limit=SLOTS, jobs_queue=source, buffer=4, abort_grace=0.05
    )

    outcomes = list(itertools.islice(conductor.outcomes(), 20))

    assert len(outcomes) == 20
    assert source.read <= 20 + 8 * 4 * SLOTS


def test_a_source_that_waits_for_outcomes_does_not_hang():
    """Each job but the first is made from the outcome of the one before."""
    found: queue.Queue[int] = queue.Queue()

    def jobs():
        job = 1
        while job < 1000:
            yield job
            job = found.get(timeout=DEADLINE) + 1

    conductor = Conductor(programs.identity, worker_limit=SLOTS, jobs_queue=jobs())
    taken = []
    for outcome in conductor.outcomes():
        taken.append(outcome.value)
        found.put(2 * outcome.value)

    assert taken == [1, 3, 7, 15, 31, 63, 127, 255, 511]


def test_an_async_source_that_waits_for_outcomes_does_not_hang():
    found: asyncio.Queue[int] = asyncio.Queue()

    async def jobs():
        job = 1
        while job < 1000:
            yield job
            job = await found.get() + 1

    async def main():
        taken = []
        conductor = Conductor(programs.identity, worker_limit=SLOTS, jobs_queue=jobs())
        async for outcome in conductor.outcomes():
            taken.append(outcome.value)
            found.put_nowait(2 * outcome.value)
        return taken

    assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == [1, 3, 7, 15, 31, 63, 127, 255, 511]


# Keys and added jobs


def test_job_key_identifies_jobs():
    jobs = [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    conductor = Conductor(
        lambda job: job["n"], worker_limit=1, jobs_queue=jobs, job_key=lambda job: job["id"]
    )

    assert {o.key: o.value for o in conductor.outcomes()} == {"a": 1, "b": 2}


def test_the_key_of_a_job_is_its_number_by_default():
    conductor = Conductor(programs.identity, worker_limit=SLOTS, jobs_queue="abcde")

    assert {o.key: o.job for o in conductor.outcomes()} == dict(enumerate("abcde"))


def test_add_job_before_the_run():
    conductor = Conductor(programs.square, worker_limit=1)
    conductor.add_job(3)

    assert jobs_of(conductor.outcomes()) == [3]


def test_add_job_with_a_key_waits_for_the_run():
    with pytest.raises(ConductorStateError, match="job_key"):
        Conductor(programs.square).add_job(3, key="three")


def test_add_job_while_the_run_goes_on():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[0])

    @conductor.on("job_done")
    def on_done(outcome):
        if outcome.job < 5:
            conductor.add_job(outcome.job + 1, key=f"number {outcome.job + 1}")

    assert [o.key for o in conductor.outcomes()] == [0, *(f"number {n}" for n in range(1, 6))]


def test_no_job_is_lost_that_other_threads_add_around_the_end_of_the_run():
    conductor = Conductor(programs.square, jobs_queue=range(3), worker_limit=SLOTS)
    added, begun, over = [0, 0], threading.Barrier(3), threading.Event()

    def add(adder):
        begun.wait(DEADLINE)
        while not over.is_set() and added[adder] < 50_000:
            conductor.add_job(added[adder])
            added[adder] += 1

    adders = [threading.Thread(target=add, args=[adder]) for adder in range(2)]
    for adder in adders:
        adder.start()
    conductor.once("worker_start", lambda *_: begun.wait(DEADLINE))
    report = conductor.run()
    over.set()
    for adder in adders:
        adder.join()
    assert report.done + len(conductor.jobs_queue) == 3 + sum(added)


class DeafLoop:
    """Takes calls and never makes them, like a loop that is about to be closed."""

    def __init__(self):
        self.was_called = threading.Event()

    def call_soon_threadsafe(self, callback, *args):
        self.was_called.set()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda conductor: conductor.cancel(0), False),
        (lambda conductor: conductor.resize(2), None),
        (lambda conductor: conductor.broadcast_message_to_workers("hello"), None),
        (lambda conductor: conductor.send_message_to_worker(1, "hello"), WorkerGoneError),
    ],
)
def test_who_asks_something_of_a_run_that_ends_meanwhile_gets_an_answer(call, answer):
    conductor, answers = Conductor(programs.square), []

    def ask():
        try:
            answers.append(call(conductor))
        except WorkerGoneError as error:
            answers.append(type(error))

    asker, loop = threading.Thread(target=ask), DeafLoop()
    with conductor._life(loop):
        conductor._run = MagicMock()
        asker.start()
        assert loop.was_called.wait(DEADLINE)
    asker.join()
    assert answers == [answer]


def test_add_job_from_the_consumer_of_outcomes():
    """The consumer is another thread than the run's. A job left to be done holds the run open."""
    conductor = Conductor(programs.identity, worker_limit=1, jobs_queue=[0, 1])
    gate = threading.Event()
    conductor.jobs_queue = itertools.chain([0], (1 for _ in range(1) if gate.wait(DEADLINE)))
    taken = []

    for outcome in conductor.outcomes():
        taken.append(outcome.job)
        if outcome.job == 0:
            conductor.add_job(7, key="seven")
            gate.set()

    assert sorted(taken) == [0, 1, 7]


# Outcomes


def test_an_outcome_says_everything_about_its_job():
    (outcome,) = Conductor(programs.square, worker_limit=1, jobs_queue=[6]).outcomes()

    assert outcome == Outcome(
        key=0,
        job=6,
        state=JobState.DONE,
        value=36,
        error=None,
        cause=None,
        attempts=1,
        history=(),
        worker_id=1,
        slot=0,
        seconds=outcome.seconds,
    )
    assert outcome.is_done
    assert outcome.result() == 36
    assert outcome.seconds >= 0


def overtaking(moment):
    """Make jobs of which the first ends only when the third is done."""
    begun, always, third_is_done = moment("begun"), moment("always"), moment("third is done")
    always.happen()
    conductor = Conductor(programs.meet, worker_limit=SLOTS)
    conductor.jobs_queue = [(begun, third_is_done if n == 0 else always, n) for n in range(6)]
    conductor.on("job_done", lambda o: third_is_done.happen() if o.value == 2 else None)
    return conductor


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_outcomes_come_in_the_order_asked_for(moment, ordered, is_async):
    conductor = overtaking(moment)

    async def take():
        return [o.value async for o in conductor.outcomes(ordered=ordered)]

    if is_async:
        values = asyncio.run(take())
    else:
        values = [o.value for o in conductor.outcomes(ordered=ordered)]

    assert sorted(values) == list(range(6))
    if ordered:
        assert values == list(range(6))
    else:
        assert values.index(2) < values.index(0)


def test_ordered_outcomes_include_failures_at_their_place():
    jobs = ["a", "plain", "b", "plain", "c"]
    conductor = Conductor(programs.raise_what_is_asked, worker_limit=SLOTS, jobs_queue=jobs)

    assert [o.job for o in conductor.outcomes(ordered=True)] == jobs


def test_a_slow_consumer_holds_intake_back():
    """With room for one outcome and one taken, the run waits for the consumer."""
    source = Counted()
    conductor = Conductor(
        programs.identity,
        worker_limit=1,
        jobs_queue=(source.__next__() for _ in range(100_000)),
        buffer=1,
    )
    outcomes = iter(conductor.outcomes())

    first = next(outcomes)
    outcomes.close()

    assert first.job == 1
    assert source.read < 100_000


def test_conduct_yields_values():
    assert sorted(conduct(programs.square, range(10), worker_limit=SLOTS)) == [
        n * n for n in range(10)
    ]


def test_conduct_yields_values_in_order():
    values = conduct(lambda job: job + 1, range(50), worker_limit=SLOTS, ordered=True)

    assert list(values) == list(range(1, 51))


def test_conduct_raises_the_first_failure_and_ends_everything():
    values = conduct(programs.raise_what_is_asked, ["plain", *range(100)], worker_limit=1)

    with pytest.raises(programs.PlainError):
        list(values)


def test_conduct_does_nothing_before_it_is_iterated():
    source = Counted()
    conduct(programs.square, source)

    assert source.read == 0


@pytest.mark.parametrize("is_async", [True, False])
def test_leaving_the_loop_ends_everything(is_async):
    """The check after each test sees to it that no worker is left."""
    ends = []
    conductor = Conductor(
        programs.square, worker_limit=SLOTS, jobs_queue=Counted(), abort_grace=0.05
    )
    conductor.on("end", lambda: ends.append(1))

    async def leave():
        outcomes = aiter(conductor.outcomes())
        async for _ in outcomes:
            break
        await outcomes.aclose()

    if is_async:
        asyncio.run(leave())
    else:
        for _ in conductor.outcomes():
            break

    assert ends == [1]
    assert not conductor.processing


def test_an_exception_in_the_loop_ends_everything():
    def consume():
        conductor = Conductor(programs.square, worker_limit=SLOTS, jobs_queue=Counted())
        for outcome in conductor.outcomes():
            raise LookupError(outcome.job)

    with pytest.raises(LookupError):
        consume()


def test_cancelling_the_task_ends_everything():
    async def main():
        conductor = Conductor(programs.square, worker_limit=SLOTS, jobs_queue=Counted())
        is_going = asyncio.Event()
        conductor.on("job_done", lambda _: is_going.set())
        task = asyncio.create_task(conductor.start())
        await asyncio.wait_for(is_going.wait(), DEADLINE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return conductor.processing

    assert asyncio.run(main()) is False


# Several conductors, and loops


def test_two_conductors_at_once_see_only_their_own():
    seen = {}

    def make(name):
        conductor = Conductor(
            programs.MessagesWorker, worker_limit=1, jobs_queue=[("who", name)] * 20
        )
        seen[name] = conductor, []
        conductor.command("who")(
            lambda msg: seen[name][1].append((msg.master_id, msg.data)) or conductor.id
        )
        return conductor

    async def main():
        return await asyncio.gather(make("a").start(), make("b").start())

    reports = asyncio.run(main())

    assert [r.done for r in reports] == [20, 20]
    for name, (conductor, messages) in seen.items():
        assert messages == [(conductor.id, name)] * 20


def test_two_conductors_in_two_threads():
    results = {}

    def run(name):
        results[name] = Conductor(programs.square, worker_limit=1, jobs_queue=range(50)).run().done

    threads = [threading.Thread(target=run, args=(n,)) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert results == {"a": 50, "b": 50}


def test_conductors_one_after_another():
    pids = set()
    for _ in range(3):
        (outcome,) = Conductor(programs.my_pid, worker_limit=1, jobs_queue=[1]).outcomes()
        pids.add(outcome.value)

    assert len(pids) == 3


@pytest.mark.asyncio_loop
def test_run_works_inside_a_running_loop():
    """As in a notebook."""

    async def main():
        return Conductor(programs.square, worker_limit=1, jobs_queue=range(5)).run()

    assert asyncio.run(main()).done == 5


@pytest.mark.asyncio_loop
def test_outcomes_work_synchronously_inside_a_running_loop():
    async def main():
        return list(conduct(programs.square, range(5), worker_limit=1, ordered=True))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


@pytest.mark.asyncio_loop
def test_a_handler_finds_the_loop_where_asyncio_is_loaded():
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])
    found = []
    conductor.on("job_done", lambda _: found.append(asyncio.get_running_loop()))

    conductor.run()

    assert len(found) == 1
