"""The Node module's manual, point by point: properties, options, methods and events."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, UserDict
from types import SimpleNamespace

import pytest

from okanjo_conductor import Conductor, JobState
from okanjo_conductor._io.cpus import usable_cpus
from okanjo_conductor.errors import UnknownLookupError, WorkerGoneError

from . import programs


def values_of(conductor):
    """Run, and return each job's value or error by key."""
    return {o.key: o.error or o.value for o in conductor.outcomes()}


# Options and properties


def test_a_new_conductor_has_the_defaults_of_the_manual():
    conductor = Conductor(programs.square)

    assert conductor.worker_type == "conductor_worker"
    assert conductor.worker_limit == min(4, usable_cpus())
    assert list(conductor.jobs_queue) == []
    assert conductor.logging is True
    assert conductor.processing is False
    assert conductor.is_processing() is False
    assert conductor.worker_env == {}
    assert conductor.lookups == {}
    assert conductor.last_stats == {}
    assert conductor.worker_stats_report_count == 0


def test_options_become_properties():
    lookups = {"fruits": {"a": "apple"}}
    conductor = Conductor(
        programs.square,
        worker_type="squarer",
        worker_limit=3,
        jobs_queue=[1, 2],
        logging=False,
        worker_env={"COLOUR": "red"},
        lookups=lookups,
    )

    assert conductor.worker_type == "squarer"
    assert conductor.worker_limit == 3
    assert list(conductor.jobs_queue) == [1, 2]
    assert conductor.logging is False
    assert conductor.worker_env == {"COLOUR": "red"}
    assert conductor.lookups is lookups


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "worker_type",
        "worker_limit",
        "worker_env",
        "processing",
        "last_stats",
        "worker_stats_report_count",
    ],
)
def test_what_the_manual_calls_read_only_cannot_be_set(name):
    with pytest.raises(AttributeError):
        setattr(Conductor(programs.square), name, 1)


def test_worker_env_is_a_copy():
    env = {"COLOUR": "red"}
    conductor = Conductor(programs.square, worker_env=env)

    env["COLOUR"] = conductor.worker_env["COLOUR"] = "green"

    assert conductor.worker_env == {"COLOUR": "red"}


def test_every_conductor_has_an_id_of_its_own():
    assert len({Conductor(programs.square).id for _ in range(100)}) == 100


def test_the_state_shows_in_processing_and_repr():
    seen = []
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])
    conductor.on("job_done", lambda _: seen.append((conductor.processing, repr(conductor))))
    new = repr(conductor)

    conductor.run()

    ((was_processing, while_processing),) = seen
    assert was_processing
    assert not conductor.processing
    assert "new" in new
    assert "processing" in while_processing
    assert "over" in repr(conductor)


@pytest.mark.parametrize("logs", [True, False])
def test_logging_says_whether_the_lives_of_workers_are_logged(caplog, logs):
    with caplog.at_level(logging.INFO, logger="okanjo_conductor"):
        Conductor(programs.square, worker_limit=1, jobs_queue=[1], logging=logs).run()

    assert ("worker 1 has started" in caplog.text) is logs


# Basic


def test_basic_every_job_is_processed_and_end_fires_once():
    events = []
    conductor = Conductor(programs.BasicWorker, worker_limit=2)
    conductor.generate_jobs = lambda: conductor.jobs_queue.extend(range(10))
    conductor.once("end", lambda: events.append(("end", conductor.is_processing())))
    conductor.on("worker_exit", lambda e: events.append(("worker_exit", e.id, e.code, e.signal)))

    report = conductor.run()

    assert report.counts[JobState.DONE] == report.jobs == 10
    assert events[-1] == ("end", False)
    assert {e[0] for e in events[:-1]} == {"worker_exit"}
    assert {e[2:] for e in events[:-1]} == {(0, None)}
    assert len(conductor.jobs_queue) == 0


def test_basic_without_jobs_no_worker_starts():
    started = []
    conductor = Conductor(programs.BasicWorker)
    conductor.on("worker_start", lambda *args: started.append(args))

    report = conductor.run()

    assert report.jobs == 0
    assert started == []


def test_basic_start_is_awaited_in_the_callers_loop():
    conductor = Conductor(programs.BasicWorker, worker_limit=1, jobs_queue=[1, 2])
    loops = []
    conductor.on("job_done", lambda _: loops.append(asyncio.get_running_loop()))

    async def main():
        report = await conductor.start()
        return report, asyncio.get_running_loop()

    report, loop = asyncio.run(main())

    assert report.done == 2
    assert set(loops) == {loop}


# Errors


def test_errors_fail_their_job_and_keep_the_worker():
    conductor = Conductor(
        programs.ErrorsWorker, worker_limit=1, jobs_queue=["fail", "raise", "fine"]
    )

    values = values_of(conductor)

    assert "it was told to fail" in str(values[0])
    assert isinstance(values[1], ValueError)
    assert values[2] == "fine"


def test_errors_a_crash_is_announced_and_the_worker_replaced():
    errors, exits = [], []
    conductor = Conductor(programs.ErrorsWorker, worker_limit=1, jobs_queue=["crash", "fine"])
    conductor.on("error", errors.append)
    conductor.on("worker_exit", exits.append)

    report = conductor.run()

    assert report.counts[JobState.QUARANTINED] == 1
    assert report.done == 1
    assert {(e.type, e.code, e.signal, e.key) for e in errors} == {("worker_crash", 4, None, 0)}
    assert [e.worker_id for e in errors] == [1, 2, 3]
    assert [e.id for e in exits] == [1, 2, 3, 4]
    assert exits[-1].code == 0


def test_errors_without_a_listener_are_logged_and_land_in_the_report(caplog):
    report = Conductor(programs.ErrorsWorker, worker_limit=1, jobs_queue=["crash"]).run()

    assert report.workers_lost == 3
    assert "worker 1 in slot 0 exited with code 4 while it executed job 0" in caplog.text


def test_a_listener_that_raises_is_logged_and_the_run_goes_on(caplog):
    def listen(_outcome):
        raise ValueError("a bad listener")

    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1, 2, 3])
    conductor.on("job_done", listen)

    assert conductor.run().done == 3
    assert "a bad listener" in caplog.text


# Messages


class Hello(Conductor):
    """Handles messages as the manual's example does."""

    def on_worker_message(self, worker_id, msg):
        assert msg.worker_id == worker_id
        assert msg.master_id == self.id
        if msg.cmd == "hello":
            self.send_message_to_worker(worker_id, msg.cmd, {"hello": msg.data}, msg.callback)
        elif msg.callback:
            self.send_message_to_worker(worker_id, msg.cmd, {"ack": True}, msg.callback)


def test_messages_are_answered_through_their_callback():
    conductor = Hello(programs.MessagesWorker, worker_limit=1)
    conductor.jobs_queue = [("hello", "you"), ("fyi", None)]

    values = values_of(conductor)

    assert values[0] == ({"hello": "you"}, [("hello", {"hello": "you"}, True)])
    assert values[1][0] == {"ack": True}


def test_messages_a_callback_fired_by_the_users_handler_is_not_fired_again(caplog):
    conductor = Hello(programs.MessagesWorker, worker_limit=1)
    conductor.jobs_queue = [("fired_by_hand", None)]

    ((value, _heard),) = values_of(conductor).values()

    assert value == "by hand"
    assert "nobody waits" not in caplog.text


def test_on_worker_message_may_be_assigned():
    conductor = Conductor(programs.MessagesWorker, worker_limit=1, jobs_queue=[("x", 1)])
    conductor.on_worker_message = lambda worker_id, msg: conductor.send_message_to_worker(
        worker_id, msg.cmd, "assigned", msg.callback
    )

    assert values_of(conductor)[0][0] == "assigned"


def test_on_worker_message_may_be_a_coroutine():
    class Patient(Conductor):
        async def on_worker_message(self, worker_id, msg):
            await asyncio.sleep(0)
            self.send_message_to_worker(worker_id, msg.cmd, "awaited", msg.callback)

    conductor = Patient(programs.MessagesWorker, worker_limit=1, jobs_queue=[("x", 1)])

    assert values_of(conductor)[0][0] == "awaited"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_command_replies_with_what_its_handler_returns(is_async):
    conductor = Conductor(programs.MessagesWorker, worker_limit=1, jobs_queue=[("double", 21)])
    if is_async:

        @conductor.command("double")
        async def double(msg):
            await asyncio.sleep(0)
            return 2 * msg.data
    else:

        @conductor.command("double")
        def double(msg):
            return 2 * msg.data

    assert values_of(conductor)[0][0] == 42


def test_a_message_to_a_worker_that_never_was_raises():
    conductor = Conductor(programs.square)

    with pytest.raises(WorkerGoneError, match="worker 7 "):
        conductor.send_message_to_worker(7, "anything")


def test_a_message_to_a_worker_that_has_ended_raises():
    raised = []
    conductor = Conductor(programs.ErrorsWorker, worker_limit=1, jobs_queue=["crash"])

    def on_exit(event):
        with pytest.raises(WorkerGoneError) as caught:
            conductor.send_message_to_worker(event.id, "anything")
        raised.append(caught.value.worker_id)

    conductor.on("worker_exit", on_exit)
    conductor.run()

    assert raised == [1, 2, 3]


# Broadcast


def test_broadcast_reaches_every_worker():
    here = []
    conductor = Conductor(programs.BroadcastWorker, worker_limit=2, jobs_queue=range(4))

    @conductor.command("here")
    async def here_i_am(msg):
        here.append(msg.worker_id)
        if len(here) == 2:
            conductor.broadcast_message_to_workers("secret", "xyzzy")
            both_are_here.set()
        await both_are_here.wait()

    both_are_here = asyncio.Event()
    values = values_of(conductor)

    assert sorted(here) == [1, 2]
    assert [v for v in values.values() if v is not None] == ["xyzzy"] * 2


def test_broadcast_without_workers_does_nothing():
    Conductor(programs.square).broadcast_message_to_workers("anything")


# Stats


def test_stats_add_up_over_workers():
    reports = []
    conductor = Conductor(programs.StatsWorker, worker_limit=2, jobs_queue=range(1, 101))
    conductor.on("stats", reports.append)

    report = conductor.run()

    assert report.last_stats == {"jobs_done": 100, "points": 5050}
    assert conductor.last_stats == report.last_stats
    assert reports[-1].agg.last == report.last_stats
    assert conductor.worker_stats_report_count == len(reports[-1].raw)
    assert sum(r.agg.diff["points"] for r in reports) == 5050
    assert all(r.avg_time_span > 0 for r in reports)


def test_stats_may_begin_with_counters_of_ones_own():
    conductor = Conductor(
        programs.StatsWorker,
        worker_limit=1,
        jobs_queue=[5],
        worker_options={"stats": {"points": 100, "name": "not a number"}},
    )

    assert conductor.run().last_stats == {"points": 105, "jobs_done": 1}


# Abort


def test_abort_ends_a_worker_that_sits_in_a_job_and_gives_the_others_back():
    ends, exits = [], []
    conductor = Conductor(
        programs.AbortWorker, worker_limit=1, jobs_queue=["a", "b", "c"], abort_grace=0.5
    )
    conductor.command("sitting")(lambda _: conductor.abort())
    conductor.on("end", lambda: ends.append(1))
    conductor.on("worker_exit", exits.append)

    report = conductor.run()

    assert report.counts[JobState.CANCELLED] == 1
    assert report.unstarted == 2
    assert list(conductor.jobs_queue) == ["b", "c"]
    assert ends == [1]
    assert [e.signal for e in exits] == ["SIGTERM"]


def test_abort_kills_a_worker_that_ignores_sigterm():
    exits = []
    conductor = Conductor(
        programs.AbortWorker, worker_limit=1, jobs_queue=["stubborn"], abort_grace=0.2
    )
    conductor.on("worker_exit", exits.append)
    conductor.command("sitting")(lambda _: conductor.abort())

    conductor.run()

    assert [e.signal for e in exits] == ["SIGKILL"]


def test_abort_before_the_start_gives_every_job_back():
    conductor = Conductor(programs.square, jobs_queue=[1, 2, 3])
    conductor.abort()

    report = conductor.run()

    assert report.jobs == 0
    assert list(conductor.jobs_queue) == [1, 2, 3]


def test_abort_reaches_a_worker_that_is_starting():
    conductor = Conductor(programs.square, worker_limit=2, jobs_queue=range(100))
    conductor.on("worker_start", lambda *_: conductor.abort())

    report = conductor.run()

    assert report.jobs + report.unstarted + len(conductor.jobs_queue) >= 100
    assert report.done + len(conductor.jobs_queue) == 100


def test_abort_reaches_a_replacement():
    conductor = Conductor(programs.ErrorsWorker, worker_limit=1, jobs_queue=["crash", "x"])
    conductor.on("worker_start", lambda worker_id, _: worker_id == 2 and conductor.abort())

    report = conductor.run()

    assert report.workers_started == 2
    assert report.jobs + len(conductor.jobs_queue) == 2


def test_abort_twice_ends_once():
    ends = []
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=range(10))
    conductor.on("end", lambda: ends.append(1))
    conductor.on("job_done", lambda _: (conductor.abort(), conductor.abort()))

    conductor.run()
    conductor.abort()

    assert ends == [1]


# Lookups in the conductor

MAPPINGS = {
    "dict": dict,
    "ordered dict": OrderedDict,
    "user dict": UserDict,
}


@pytest.mark.parametrize("make", MAPPINGS.values(), ids=MAPPINGS)
def test_lookups_may_be_any_mapping(make):
    conductor = Conductor(programs.Lookups, worker_limit=1)
    conductor.lookups = {"fruits": {"a": "apple"}, "veggies": make({"c": "carrot", "d": "dill"})}
    conductor.set_lookup_value("veggies", "e", "eggplant")
    conductor.jobs_queue = [
        ("lookup", "veggies", "c"),
        ("lookup", "veggies", "e"),
        ("lookup", "fruits", "z"),
        ("read_own_write", "veggies", "f", "fennel"),
    ]

    values = values_of(conductor)

    assert list(values.values()) == ["carrot", "eggplant", None, "fennel"]
    assert conductor.get_lookup_value("veggies", "f") == "fennel"
    assert conductor.get_lookup_value("fruits", "z") is None
    assert conductor.get_lookup_value("fruits", "z", 0) == 0
    assert conductor.get_lookup("fruits") == {"a": "apple"}


def test_lookups_may_be_anything_that_is_indexed():
    computed = SimpleNamespace()
    conductor = Conductor(programs.Lookups, worker_limit=1, lookups={"list": ["a", "b"]})
    conductor.jobs_queue = [("lookup", "list", 1), ("lookup", "list", 9, computed)]

    values = values_of(conductor)

    assert values[0] == "b"
    assert values[1] == computed


@pytest.mark.parametrize(
    "call",
    [
        lambda conductor: conductor.get_lookup("nuts"),
        lambda conductor: conductor.get_lookup_value("nuts", "a"),
        lambda conductor: conductor.set_lookup_value("nuts", "a", 1),
    ],
)
def test_an_unknown_lookup_is_an_error_that_names_the_known(call):
    conductor = Conductor(programs.Lookups, lookups={"fruits": {}, "veggies": {}})

    with pytest.raises(UnknownLookupError, match=r"'nuts'.*'fruits', 'veggies'") as caught:
        call(conductor)

    assert caught.value.known == ("fruits", "veggies")
