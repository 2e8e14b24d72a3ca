"""Messages both ways, jobs that workers add, and what else they ask for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter

import pytest

from faults.moments import touch, wait_for_file
from okanjo_conductor import Cause, Conductor, JobState, Retry, current_job, current_worker
from okanjo_conductor._io.light_loop import LightLoop
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    RemoteError,
    SerialisationError,
    UnknownCommandError,
    WorkerGoneError,
    WorkerStartError,
)

from . import talkers
from .moments import DEADLINE
from .talkers import Heir, Hook, Talker


def talk(*jobs, worker=Talker, worker_limit=1, **options):
    return Conductor(worker, jobs_queue=jobs, worker_limit=worker_limit, logging=False, **options)


def values_of(conductor):
    return [o.result() for o in conductor.outcomes(ordered=True)]


def answering(conductor, cmd, ask):
    """Have a plain handler of the conductor reply with what it gets out of the worker."""
    conductor.command(cmd)(lambda msg: ask(msg.worker_id))


# From a worker


def test_notify_expects_no_reply_and_comes_in_order():
    conductor = talk(("say", "count", *range(200)))
    seen = []
    conductor.command("count")(lambda msg: seen.append((msg.data, msg.callback)))

    conductor.run()

    assert seen == [(number, None) for number in range(200)]


def test_nothing_is_kept_of_requests_that_nobody_waits_for_and_their_errors_are_nobodys(caplog):
    conductor = talk(("ask_in_vain", "never", "now"), ("ask_in_vain", "refuse", "now"))

    @conductor.command("never")
    async def never(_msg):
        await asyncio.Event().wait()

    @conductor.command("refuse", thread=False)
    def refuse(_msg):
        raise ValueError

    conductor.command("now", thread=False)(lambda msg: msg.data)

    assert values_of(conductor) == [0, 0]
    assert "nobody waits" not in caplog.text


@pytest.mark.parametrize("kind", ["plain", "thread=False", "async"])
def test_what_the_handler_of_a_notice_raises_is_logged(kind, caplog):
    conductor = talk(("say", "broken", 1), ("nothing",))

    def broken(_msg):
        raise KeyError("so it is")

    async def broken_later(msg):
        broken(msg)

    if kind == "async":
        conductor.command("broken")(broken_later)
    else:
        conductor.command("broken", thread=kind == "plain")(broken)
    report = conductor.run()

    assert report.done == 2
    assert "the handler of command 'broken' raised" in caplog.text
    assert "so it is" in caplog.text


def test_a_notice_that_nobody_handles_is_logged(caplog):
    report = talk(("say", "no such command", 1)).run()

    assert report.done == 1
    assert "nobody handles the command 'no such command' of worker 1" in caplog.text


def test_data_that_cannot_be_unpickled_is_logged_or_raised(caplog):
    conductor = talk(("say_poison",), ("ask_poison",), worker=Poisoner)
    conductor.command("any")(lambda _: None)

    said, asked = conductor.outcomes(ordered=True)

    assert said.is_done
    assert "the data of 'any' cannot be unpickled in the conductor" in caplog.text
    assert isinstance(asked.error, SerialisationError)


class Poisoner(Talker):
    def say_poison(self):
        self.notify("any", talkers.Poison())

    def ask_poison(self):
        self.request("any", talkers.Poison())


# Handlers and the run


def test_a_handler_that_blocks_delays_no_job():
    """It returns when all other jobs are done: were they not handed out, it never would."""
    others = 300
    conductor = talk(("say", "block", 1), *[("nothing", n) for n in range(others)])
    done, all_done, waited = [], threading.Event(), []

    @conductor.on("job_done")
    def note(_outcome):
        done.append(1)
        if len(done) > others:
            all_done.set()

    @conductor.command("block")
    def block(_msg):
        waited.append(all_done.wait(DEADLINE))

    report = conductor.run()

    assert report.done == others + 1
    assert waited == [True]


@pytest.mark.parametrize("how", ["add_job", "append"])
@pytest.mark.parametrize("source", [list, iter])
def test_the_run_is_not_over_before_its_handlers_are(how, source):
    """The job that asked has ended, and nothing else is left, when its handler adds one."""
    conductor = Conductor(
        Talker, jobs_queue=source([("say", "more", 1)]), worker_limit=1, logging=False
    )
    is_done = threading.Event()
    conductor.on("job_done", lambda _: is_done.set())

    @conductor.command("more")
    def more(_msg):
        assert is_done.wait(DEADLINE)
        add = conductor.add_job if how == "add_job" else conductor.jobs_queue.append
        add(("nothing", 7))

    report = conductor.run()

    assert report.done == 2
    assert not report.unstarted


def test_what_a_handler_adds_after_an_abort_is_given_back():
    conductor = talk(("say", "more", 1), ("sit",))
    was_aborted = threading.Event()

    @conductor.command("more")
    def more(_msg):
        conductor.abort()
        assert was_aborted.wait(DEADLINE)
        conductor.add_job(("nothing", 7))

    conductor.on("worker_exit", lambda _: was_aborted.set())
    report = conductor.run()

    assert ("nothing", 7) in conductor.jobs_queue
    assert report.unstarted == len(conductor.jobs_queue)


@pytest.mark.parametrize("kind", ["plain", "thread=False", "async", "hook", "async hook"])
def test_where_handlers_run(kind):
    found = []
    conductor = talk(("say", "here", 1))

    def here(*_):
        found.append(threading.current_thread() is threading.main_thread())

    async def here_later(*_):
        here()

    match kind:
        case "plain":
            conductor.command("here")(here)
        case "thread=False":
            conductor.command("here", thread=False)(here)
        case "async":
            conductor.command("here")(here_later)
        case "hook":
            conductor.on_worker_message = here
        case "async hook":
            conductor.on_worker_message = here_later
    conductor.run()

    assert found == [kind not in {"plain", "hook"}]


def test_a_plain_function_may_return_something_to_await():
    conductor = talk(("ask", "later"))

    async def later():
        await asyncio.sleep(0)
        return "came later"

    conductor.command("later")(lambda _: later())

    assert values_of(conductor) == ["came later"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_reply_that_cannot_be_pickled_is_an_error_of_the_request(is_async, caplog):
    conductor = talk(("ask", "lock"))

    def lock(_msg):
        return threading.Lock()

    async def lock_later(msg):
        return lock(msg)

    conductor.command("lock")(lock_later if is_async else lock)
    (outcome,) = conductor.outcomes()

    assert "pickle" in str(outcome.error)
    assert "the handler of command 'lock' raised" in caplog.text


@pytest.mark.parametrize("times", [1, 2])
def test_who_cancels_the_run_does_not_wait_for_handlers(times, caplog):
    conductor = talk(("say", "block", 1, 2), ("nothing",))
    release, ended = threading.Event(), threading.Event()
    seen = []

    async def main():
        entered = asyncio.Event()
        loop = asyncio.get_running_loop()

        @conductor.command("block")
        def block(msg):
            loop.call_soon_threadsafe(entered.set)
            seen.append(msg.data)
            assert release.wait(DEADLINE)
            ended.set()

        run = asyncio.ensure_future(conductor.start())
        await entered.wait()
        for _ in range(times):
            run.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    assert not conductor.is_processing()
    release.set()
    assert ended.wait(DEADLINE)

    assert seen == [1]
    assert "handlers have not returned: " in caplog.text


# To a worker


def test_a_plain_handler_may_wait_for_a_worker():
    conductor = talk(("ask", "go"), ("burn", "burning"), worker_limit=2)
    is_burning, who = threading.Event(), []

    @conductor.command("burning", thread=False)
    def note(msg):
        who.append(msg.data)
        is_burning.set()

    @conductor.command("go")
    def go(_msg):
        assert is_burning.wait(DEADLINE)
        return conductor.request_worker(who[0], "tell", "x").result()

    first, second = values_of(conductor)

    assert first == ("told", False)
    assert second == ["x"]


def test_an_async_handler_may_await_a_worker():
    conductor = talk(("burn", "go"))
    got = []

    @conductor.command("go")
    async def go(msg):
        got.append(await conductor.request_worker(msg.data, "tell", 21))
        conductor.send_message_to_worker(msg.data, "tell", "enough")

    assert values_of(conductor) == [[21, "enough"]]
    assert got == [("told", False)]


@pytest.mark.parametrize(
    ("cmd", "kind", "text"),
    [
        ("fail", KeyError, "7"),
        ("exit", RemoteError, "SystemExit: 3"),
        ("unpicklable", SerialisationError, "worker 1 replied to 'unpicklable'"),
        ("no such command", UnknownCommandError, r"decorate a method of Talker with @command\("),
    ],
)
def test_what_a_worker_cannot_answer_is_raised_here(cmd, kind, text):
    errors = []
    conductor = talk(("nothing",), ("nothing",))

    def ask(outcome):
        if not errors:
            reply = conductor.request_worker(outcome.worker_id, cmd, 7)
            errors.append(reply)

    conductor.on("job_done", ask)
    conductor.run()

    (reply,) = errors
    with pytest.raises(kind, match=text):
        reply.result()


def test_the_hook_answers_with_what_it_returns():
    conductor = talk("me", worker=Hook)
    replies = []
    conductor.command("me")(
        lambda msg: replies.append(conductor.request_worker(msg.worker_id, "any", 5))
    )

    conductor.run()

    assert replies[0].result() == ("hook", "any", 5, None)


def test_a_subclass_may_handle_commands_otherwise():
    conductor = talk(("nothing",), worker=Heir)
    replies = []
    conductor.on(
        "job_done",
        lambda o: replies.extend(
            conductor.request_worker(o.worker_id, cmd, 7) for cmd in ("double", "fail")
        ),
    )
    conductor.run()

    assert [reply.result() for reply in replies] == [21, 7]


def test_a_command_has_one_handler():
    with pytest.raises(WorkerStartError, match="both one and other handle 'same'"):
        talk(1, worker=talkers.Twice).run()


def test_a_message_goes_to_the_handler_of_its_command():
    conductor = talk(("ask", "go"), ("hear",))
    answering(conductor, "go", lambda me: conductor.send_message_to_worker(me, "note", "noted"))

    assert values_of(conductor)[1] == ["noted"]


def test_a_message_that_no_worker_handles_is_logged(caplog):
    conductor = talk(("ask", "go"), ("nothing",))
    answering(conductor, "go", lambda me: conductor.send_message_to_worker(me, "odd"))

    values_of(conductor)

    assert "nobody handles the command 'odd' in worker 1" in caplog.text


def test_waiting_in_the_thread_of_the_run_is_refused():
    conductor = talk(("nothing",))
    errors = []

    def wait(outcome):
        reply = conductor.request_worker(outcome.worker_id, "double", 2)
        assert not reply.done()
        with pytest.raises(ConductorStateError, match="the thread of the run"):
            reply.result()
        errors.append(reply)

    conductor.on("job_done", wait)
    conductor.run()

    assert errors[0].result() == 4, "it came all the same"


def test_a_request_may_have_a_time_limit():
    conductor = talk(("ask", "go"))
    replies = []

    def go(me):
        reply = conductor.request_worker(me, "double", 2, timeout=0.01)  # it is in this very job
        replies.append(reply)
        with pytest.raises(TimeoutError, match="no reply to 'double'"):
            reply.result()

    answering(conductor, "go", go)
    (outcome,) = conductor.outcomes()

    assert outcome.is_done, outcome.error


@pytest.mark.parametrize("how", ["never was", "before the run", "after the run"])
def test_a_request_to_nobody_ends(how):
    conductor = talk(("ask", "go"))
    if how == "never was":
        replies = []
        answering(conductor, "go", lambda _: replies.append(conductor.request_worker(9, "double")))
        conductor.run()
        reply = replies[0]
    else:
        if how == "after the run":
            conductor.command("go")(lambda _: None)
            conductor.run()
        reply = conductor.request_worker(1, "double")

    with pytest.raises(WorkerGoneError):
        reply.result()


def test_a_request_ends_with_its_worker(tmp_path):
    conductor = talk(("die_once", str(tmp_path / "once"), "go"))
    replies = []
    answering(
        conductor,
        "go",
        lambda me: replies.append(conductor.request_worker(me, "double", 1)),
    )

    report = conductor.run()

    assert report.done == 1
    with pytest.raises(WorkerGoneError, match="worker 1 "):
        replies[0].result()


def test_a_request_ends_with_the_worker_that_handles_it():
    conductor = talk(("burn", "go"))

    @conductor.command("go")
    def go(msg):
        if msg.data == 1:
            with pytest.raises(WorkerGoneError, match="worker 1 "):
                conductor.request_worker(1, "die at once").result(DEADLINE)
            died.append(1)
        else:
            conductor.send_message_to_worker(msg.data, "tell", "enough")

    died = []
    (outcome,) = conductor.outcomes()

    assert died == [1]
    assert [a.cause for a in outcome.history] == [Cause.CRASH]


def test_a_request_ends_with_the_run():
    conductor = talk(("ask", "go"), abort_grace=0.05)
    replies = []

    @conductor.command("go")
    async def go(msg):
        replies.append(conductor.request_worker(msg.worker_id, "double", 1))
        conductor.abort()
        await asyncio.Event().wait()

    conductor.run()

    with pytest.raises(WorkerGoneError):
        replies[0].result()


def test_calls_from_other_threads_end_with_the_run():
    """Threads that ask without pause, until the run is over: none of them hangs."""
    conductor = talk(*[("nothing", n) for n in range(50)], worker_limit=2)
    started, ends = threading.Event(), Counter()

    def ask():
        assert started.wait(DEADLINE)
        while True:
            try:
                conductor.request_worker(1, "double", 4).result(DEADLINE)
            except WorkerGoneError:
                ends["gone"] += 1
                break
        try:
            conductor.send_message_to_worker(1, "note", 1)
        except WorkerGoneError:
            ends["not sent"] += 1

    conductor.on("job_done", lambda _: started.set())
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    conductor.run()
    for thread in threads:
        thread.join(DEADLINE)

    assert ends == {"gone": 4, "not sent": 4}


def test_replies_may_be_awaited_where_the_run_has_its_loop():
    conductor = talk(("burn", "go"))

    async def main():
        asked = asyncio.get_running_loop().create_future()
        conductor.command("go", thread=False)(lambda msg: asked.set_result(msg.data))
        run = asyncio.ensure_future(conductor.start())
        worker_id = await asked
        reply = await conductor.request_worker(worker_id, "tell", 1)
        everybody = await conductor.broadcast("tell", "enough")
        await run
        return reply, everybody

    reply, everybody = asyncio.run(main())

    assert reply == ("told", False)
    assert everybody == {1: ("told", False)}


# During a job


@pytest.mark.parametrize("job", ["burn", "close_and_burn", "fork_and_burn"])
def test_a_handler_runs_while_a_job_burns(job):
    conductor = talk((job, "burning"), ("hear",))

    @conductor.command("burning")
    def burning(msg):
        said.append(conductor.request_worker(msg.data, "tell", "enough").result(DEADLINE))

    said = []
    values = values_of(conductor)

    assert said == [("told", False)]
    assert values == [["enough"]] * 2


def test_an_idle_worker_answers_as_well():
    conductor = talk(("burn",), ("nothing",), worker_limit=2)
    threads = []

    def ask(idle):
        for number in range(50):
            assert conductor.request_worker(idle, "tell", number).result(DEADLINE)
        conductor.send_message_to_worker(3 - idle, "tell", "enough")

    @conductor.on("job_done")
    def start(outcome):
        if not threads:
            threads.append(threading.Thread(target=ask, args=(outcome.worker_id,)))
            threads[0].start()

    report = conductor.run()
    threads[0].join()

    assert report.done == 2


def test_what_was_said_before_a_worker_was_ready_is_urgent_as_well():
    conductor = talk(("burn",))
    conductor.broadcast_message_to_workers("tell", "enough", sticky=True)

    assert values_of(conductor) == [["enough"]]


class Closer(Talker):
    def close_everything(self):
        os.closerange(3, 1000)


def test_a_job_that_closes_everything_costs_its_worker_and_nothing_else():
    conductor = talk(("close_everything",), ("nothing", 1), worker=Closer)

    report = conductor.run()

    assert report.done == 2
    assert report.workers_lost == 1


def test_what_lies_before_an_urgent_message_is_read_first():
    """Megabytes for later fill the link of a worker that does not read; the bell is heard."""
    large = bytes(1 << 20)
    conductor = talk(("burn", "burning"), ("hear",))

    @conductor.command("burning")
    def burning(msg):
        for _ in range(8):
            conductor.send_message_to_worker(msg.data, "note", large)
        conductor.send_message_to_worker(msg.data, "tell", "enough")

    first, second = values_of(conductor)

    assert first == ["enough"]
    assert second == ["enough", *[large] * 8]


def test_urgent_messages_are_handled_in_their_order():
    conductor = talk(("burn", "burning"), ("hear",))

    @conductor.command("burning")
    def burning(msg):
        replies = [conductor.request_worker(msg.data, "tell", n) for n in range(300)]
        assert [r.result(DEADLINE) for r in replies] == [("told", False)] * 300
        conductor.send_message_to_worker(msg.data, "tell", "enough")

    assert values_of(conductor)[1] == [*range(300), "enough"]


def test_an_urgent_handler_may_ask_back():
    conductor = talk(("burn", "burning"))
    conductor.command("square", thread=False)(lambda msg: msg.data**2)

    @conductor.command("burning")
    def burning(msg):
        got.append(conductor.request_worker(msg.data, "ask back", 12).result(DEADLINE))
        conductor.send_message_to_worker(msg.data, "tell", "enough")

    got = []
    conductor.run()

    assert got == [144]


def test_a_job_gets_its_reply_whoever_reads_the_link():
    conductor = talk(*[("ask_behind_the_bell",)] * 50)

    @conductor.command("tell me first")
    def tell(msg):
        conductor.request_worker(msg.worker_id, "tell", "news").result(DEADLINE)
        conductor.send_message_to_worker(msg.worker_id, "tell", "more")
        return "reply"

    values = values_of(conductor)

    assert {reply for reply, _ in values} == {"reply"}
    assert all(len(heard) >= 2 * n + 1 for n, (_, heard) in enumerate(values))


# To all workers


def test_a_broadcast_tells_what_each_worker_said():
    conductor = talk(("burn", "here"), ("burn", "here"), worker_limit=2)
    here = []

    @conductor.command("here")
    def note(msg):
        here.append(msg.data)
        if len(here) == 2:
            said.append(conductor.broadcast("tell", "enough").result(DEADLINE))

    said = []
    conductor.run()

    assert said == [{1: ("told", False), 2: ("told", False)}]


def test_a_broadcast_tells_who_has_died():
    conductor = talk(("burn", "here"), ("burn", "here"), worker_limit=2, retry=Retry(crashes=0))
    here = []

    @conductor.command("here")
    def note(msg):
        here.append(msg.data)
        if len(here) == 2:
            said.append(conductor.broadcast("die at once").result(DEADLINE))

    said = []
    report = conductor.run()

    assert report.counts[JobState.QUARANTINED] == report.jobs == 2
    assert {k: type(v) for k, v in said[0].items()} == {1: WorkerGoneError, 2: WorkerGoneError}


def test_a_broadcast_without_acks_waits_for_nobody():
    conductor = talk(("burn", "here"))
    said = []

    @conductor.command("here")
    def note(_msg):
        said.append(conductor.broadcast("tell", "enough", acks=False).result(0))

    assert values_of(conductor) == [["enough"]]
    assert said == [{}]


def test_a_broadcast_to_nobody_tells_so():
    assert talk().broadcast("tell").result() == {}


def test_sticky_messages_come_before_the_first_job_of_every_worker(tmp_path):
    """In order: those before the run, and those of its time, also to replacements."""
    conductor = talk(("die_once", str(tmp_path / "once"), "more"), ("hear",))
    conductor.broadcast_message_to_workers("note", "passes by")
    conductor.broadcast_message_to_workers("note", 1, sticky=True)
    assert conductor.broadcast("note", 2, sticky=True).result() == {}
    counts = []

    @conductor.command("more")
    def more(msg):
        assert msg.worker_id == 1
        conductor.broadcast_message_to_workers("tell", 3, sticky=True)
        conductor.broadcast("note", 4, acks=False, sticky=True)
        counts.append(conductor.broadcast("tell", 5, sticky=True))

    ordinary = [1, 2, 4]
    first, second = values_of(conductor)

    for heard in (first, second):  # by the replacement
        assert [n for n in heard if n in ordinary] == ordinary
    urgent = [n for n in second if n not in ordinary]
    assert urgent == [3, 5][: len(urgent)], "another thread hears them"
    assert counts[0].result().keys() == {1}


# Jobs that workers add


@pytest.mark.parametrize("worker_limit", [1, 3])
def test_the_run_ends_with_the_last_descendant(worker_limit):
    conductor = talk(("grow", 5, 3), worker_limit=worker_limit)

    values = values_of(conductor)

    assert Counter(values) == {depth: 3 ** (5 - depth) for depth in range(6)}


def test_a_function_adds_jobs_as_well():
    conductor = Conductor(talkers.grow, jobs_queue=[6], worker_limit=2, logging=False)

    outcomes = list(conductor.outcomes(ordered=True))

    assert [o.key for o in outcomes] == [o.value for o in outcomes] == list(range(127))


def test_current_worker_is_refused_elsewhere():
    with pytest.raises(ConductorStateError, match="outside a worker process"):
        current_worker()


@pytest.mark.parametrize("name", ["add_and_die_once", "add_some_and_die_once"])
def test_a_job_that_is_executed_again_adds_nothing_twice(name, tmp_path):
    added = [("nothing", n) for n in range(40)]
    conductor = talk((name, str(tmp_path / "once"), *added), worker_limit=2)

    first, *others = conductor.outcomes(ordered=True)

    assert [a.cause for a in first.history] == [Cause.CRASH]
    assert sorted(o.value for o in others) == list(range(40))


def test_two_jobs_may_add_the_same(tmp_path):
    conductor = talk(("add", ("nothing", 1)), ("add", ("nothing", 1)), ("nothing", 1))

    assert values_of(conductor) == [None, None, 1, 1, 1]


def test_an_added_job_may_have_a_key_and_a_limit():
    conductor = talk(("add_keyed",))

    _, added = conductor.outcomes(ordered=True)

    assert (added.key, added.value) == ("mine", "mine")


def test_added_jobs_are_keyed_as_the_others():
    conductor = talk(("add", ("key_of_this",)), job_key=lambda job: f"key of {job[0]}")

    _, added = conductor.outcomes(ordered=True)

    assert (added.key, added.value) == ("key of key_of_this",) * 2


def test_a_job_that_cannot_be_pickled_is_not_added():
    (outcome,) = talk(("add_unpicklable",)).outcomes()

    assert isinstance(outcome.error, SerialisationError)
    assert "a _thread.lock" in str(outcome.error)


def test_a_job_that_cannot_be_unpickled_is_refused():
    adder, payload, key = talk(("add_poison",)).outcomes(ordered=True)

    assert adder.is_done
    for outcome, what in ((payload, "payload"), (key, "key")):
        assert outcome.cause is Cause.UNSERIALISABLE
        assert f"its {what} cannot be unpickled in the conductor" in str(outcome.error)
    assert (payload.key, key.key) == ("poisoned", 2)


def test_jobs_are_added_by_threads_and_not_by_forks():
    conductor = talk(("add_in_a_thread", ("nothing", 1)), ("add_in_a_fork", ("nothing", 2)))

    assert values_of(conductor) == [None, 3, 1]


def test_jobs_added_in_a_drain_are_given_back(tmp_path):
    running, path = tmp_path / "running", tmp_path / "go on"
    conductor = talk(("add_when", str(running), str(path), ("nothing", 1)))

    def drain():
        wait_for_file(running)
        conductor.drain()
        touch(path)

    thread = threading.Thread(target=drain)
    thread.start()
    report = conductor.run()
    thread.join()

    assert report.done == 1
    assert list(conductor.jobs_queue) == [("nothing", 1)]


# Abort and progress


def test_a_worker_may_stop_the_run():
    conductor = talk(("give_up", "the disk is full"), ("nothing",), abort_grace=0.05)

    report = conductor.run()

    assert report.stopped == "worker 1 in job 0 asked for it: the disk is full"
    assert report.counts[JobState.CANCELLED] == report.jobs == 1
    assert report.unstarted == 1


def test_progress_is_seen_and_what_was_said_last_counts(tmp_path):
    """The job sits there until the last word has come, which was said too early to be sent."""
    path = tmp_path / "seen"
    conductor = talk(("report", str(path), *[n / 1000 for n in range(501)]))
    seen = []

    @conductor.on("job_progress")
    def note(progress):
        seen.append(progress)
        if progress.fraction == 0.5:
            touch(path)

    report = conductor.run()

    assert report.done == 1
    assert 2 <= len(seen) < 100
    assert (seen[-1].worker_id, seen[-1].key, seen[-1].text) == (1, 0, "at 0.5")
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)


def test_progress_is_a_fraction():
    (outcome,) = talk(("report", "/", 1.5)).outcomes()

    assert isinstance(outcome.error, ConfigurationError)
    assert "from 0 to 1" in str(outcome.error)


def test_jobs_that_a_worker_has_added_before_it_died_are_for_others(monkeypatch):
    """Even if the news of its death comes before anything was done about them."""
    call_soon = LightLoop.call_soon

    def neglect(self, callback, *args):
        if getattr(callback, "__name__", "") == "_accept_added":
            callback = id  # it is done ahead of the next event
            args = (None,)
        return call_soon(self, callback, *args)

    def work(job):
        if job == 0 and current_job().attempt == 1:
            current_worker().add_job(1)
            os._exit(1)
        return job

    monkeypatch.setattr(LightLoop, "call_soon", neglect)
    conductor = Conductor(work, jobs_queue=[0], worker_limit=1, logging=False)
    assert sorted(outcome.value for outcome in conductor.outcomes()) == [0, 1]
