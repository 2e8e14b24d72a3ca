"""Lookups one after another, which go through the hatch: nothing is overtaken, nobody is lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from okanjo_conductor import Conductor, Lookup, current_worker


def outcomes_of(worker, jobs, *, lookups, worker_limit=1):
    """Run; return the outcomes in the order of the jobs."""
    conductor = Conductor(worker, jobs_queue=jobs, worker_limit=worker_limit, lookups=lookups)
    return list(conductor.outcomes(ordered=True))


def look_until_no_message_is_sent(name, key):
    """Look an entry up until that has taken no message, as it does once the conductor attends."""
    worker = current_worker()
    link = worker._runtime._link
    while True:
        sent = link.sent
        value = worker.lookup(name, key)
        if link.sent == sent:
            return value


def look(job):
    name, key = job
    return look_until_no_message_is_sent(name, key)


@pytest.mark.parametrize("value", [0, 1.5, "text", b"bytes", None, True])
def test_plain_entries_are_read_without_a_message(value):
    (outcome,) = outcomes_of(look, [("stock", "apple")], lookups={"stock": {"apple": value}})

    assert outcome.result() == value


def test_an_entry_that_is_not_there_is_missed_without_a_message():
    (outcome,) = outcomes_of(look, [("stock", "pear")], lookups={"stock": {"apple": 1}})

    assert outcome.result() is None


class Marked(dict):
    """A mapping of the user's own."""

    def __getitem__(self, key):
        return f"{super().__getitem__(key)} read in {os.getpid()}"


def test_a_mapping_of_the_users_own_is_read_in_the_conductor():
    (outcome,) = outcomes_of(look, [("stock", 1)], lookups={"stock": Marked({1: "one"})})

    assert outcome.result() == f"one read in {os.getpid()}"


def look_at_both(_):
    """Look up plain entries and others by turns, once plain ones come without a message."""
    look_until_no_message_is_sent("stock", "plain")
    lookup = current_worker().lookup
    return [
        lookup("stock", key, "none") for _ in range(50) for key in ("list", "plain", "long", (1,))
    ]


def test_entries_that_do_not_fit_are_asked_for_as_ever():
    stock = {"plain": 1, "list": [1, 2], "long": "x" * 10_000, (1,): "by tuple"}

    (outcome,) = outcomes_of(look_at_both, [0], lookups={"stock": stock})

    assert outcome.result() == [[1, 2], 1, "x" * 10_000, "by tuple"] * 50


def tell_and_look(count):
    """Say something before each look."""
    look_until_no_message_is_sent("told", "last")
    worker = current_worker()
    for number in range(count):
        worker.notify("tell", number)
        if worker.lookup("told", "last") != number:
            return number
    return count


def test_what_a_worker_has_said_before_is_heard_before():
    told = {"last": -1}
    conductor = Conductor(tell_and_look, jobs_queue=[2000], worker_limit=1, lookups={"told": told})

    @conductor.command("tell", thread=False)
    def tell(msg):
        told["last"] = msg.data

    (outcome,) = conductor.outcomes()

    assert outcome.result() == 2000


def look_for_the_last(number):
    """Tell which job was done last, as the conductor has noted it."""
    if number == 0:
        return look_until_no_message_is_sent("done", "last")
    return current_worker().lookup("done", "last")


def test_outcomes_of_the_jobs_before_are_known_before():
    done = {"last": -1}
    conductor = Conductor(look_for_the_last, jobs_queue=range(2000), worker_limit=1)
    conductor.lookups["done"] = done

    @conductor.on("job_done")
    def note(outcome):
        done["last"] = outcome.key

    outcomes = list(conductor.outcomes(ordered=True))

    assert [outcome.result() for outcome in outcomes] == list(range(-1, 1999))


def read_in_order(count):
    """Read what is written last, then what is written first and kept: it must not be older."""
    look_until_no_message_is_sent("live", "n")
    worker = current_worker()
    for _ in range(count):
        newer = worker.lookup("live", "n")
        if worker.lookup("kept", "n") < newer:
            return "went back in time"
    return "kept pace"


def write_in_order(count):
    worker = current_worker()
    for number in range(count):
        worker.set_lookup("kept", "n", number)
        worker.set_lookup("live", "n", number)
    return "wrote"


def read_or_write(job):
    act, count = job
    return {"read": read_in_order, "write": write_in_order}[act](count)


def test_a_look_never_goes_back_behind_what_another_one_has_shown():
    lookups = {"live": {"n": -1}, "kept": Lookup({"n": -1}, cached=True)}

    outcomes = outcomes_of(
        read_or_write, [("read", 3000), ("write", 1000)], worker_limit=2, lookups=lookups
    )

    assert {outcome.result() for outcome in outcomes} == {"kept pace", "wrote"}


def look_and_be_killed(job):
    """Look entries up all the time; in the first attempt at job 5, until SIGKILL comes."""
    worker = current_worker()
    look_until_no_message_is_sent("stock", "apple")
    if job == 5 and worker._runtime.job_at_hand().attempt == 1:
        threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGKILL)).start()
        while True:
            worker.lookup("stock", "apple")
    return sum(worker.lookup("stock", "apple") for _ in range(100))


def test_a_worker_killed_at_the_hatch_costs_its_job_and_nobody_elses():
    outcomes = outcomes_of(
        look_and_be_killed, range(20), worker_limit=2, lookups={"stock": {"apple": 1}}
    )

    assert [outcome.result() for outcome in outcomes] == [100] * 20
    assert [outcome.attempts for outcome in outcomes] == [1 + (job == 5) for job in range(20)]


def look_in_a_fork(_):
    """Try to look something up in a process that this job forks."""
    look_until_no_message_is_sent("stock", "apple")
    child = os.fork()
    if not child:
        try:
            current_worker().lookup("stock", "apple")
        except OSError:
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), look_until_no_message_is_sent("stock", "apple")


def test_a_process_that_a_job_forks_is_not_answered():
    (outcome,) = outcomes_of(look_in_a_fork, [0], lookups={"stock": {"apple": 1}})

    assert outcome.result() == (7, 1)


def look_from_threads(count):
    """Look up from four threads at a time; return what each has seen."""
    look_until_no_message_is_sent("stock", 0)
    worker, seen = current_worker(), [[], [], [], []]

    def look_often(number):
        seen[number] += [worker.lookup("stock", number) for _ in range(count)]

    threads = [threading.Thread(target=look_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [set(values) for values in seen]


def test_threads_of_a_job_get_their_own_answers():
    (outcome,) = outcomes_of(
        look_from_threads, [500], lookups={"stock": {n: f"entry {n}" for n in range(4)}}
    )

    assert outcome.result() == [{f"entry {n}"} for n in range(4)]
