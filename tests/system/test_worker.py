"""What a worker can do, and what is seen of it."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
from collections import Counter

import pytest

from okanjo_conductor import Cause, Conductor, ConductorWorker, JobState, Retry
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    RemoteError,
    RemoteTraceback,
    RequestError,
    UnknownCommandError,
    UnknownLookupError,
    WorkerCrashError,
    WorkerGoneError,
    WorkerStartError,
)

from . import programs
from .moments import DEADLINE


def outcomes_of(worker, jobs, **options):
    """Run in one worker, and return the outcomes in the order of the jobs."""
    conductor = Conductor(worker, worker_limit=1, jobs_queue=jobs, **options)
    return list(conductor.outcomes(ordered=True))


def requester(*jobs):
    """Run the requester's methods; the conductor doubles, fails, or never answers."""
    conductor = Conductor(programs.Requester, worker_limit=1, jobs_queue=jobs)
    conductor.lookups["squares"] = {n: n * n for n in range(100)}
    conductor.command("double")(lambda msg: 2 * msg.data)

    @conductor.command("fail")
    def fail(_msg):
        raise programs.PlainError("no", 1)

    @conductor.command("never answered")
    async def never(_msg):
        await asyncio.Event().wait()

    return list(conductor.outcomes(ordered=True))


# Completing jobs


def test_complete_job_during_process_job():
    outcomes = outcomes_of(programs.Completer, ["sync", "sync and return"])

    assert [o.value for o in outcomes] == ["sync", "returned"]


@pytest.mark.parametrize("job", ["later", "thread within"])
def test_complete_job_from_another_thread(job, caplog):
    (outcome, after) = outcomes_of(programs.Completer, [job, "sync"])

    assert outcome.value == "from a thread"
    assert after.value == "sync"
    assert "complete_job(job='another job')" in caplog.text


def test_complete_job_with_an_error_fails_the_job():
    (outcome,) = outcomes_of(programs.Completer, ["thread error"])

    assert outcome.state is JobState.FAILED
    assert isinstance(outcome.error, KeyError)


def test_get_next_job_takes_jobs_within_one_call():
    outcomes = outcomes_of(programs.Batcher, range(200))

    assert [o.value[0] for o in outcomes] == list(range(200))
    calls = outcomes[-1].value[1]
    assert calls < 200


def test_get_next_job_before_complete_job_is_an_error():
    (outcome,) = outcomes_of(programs.GreedyWorker, [1])

    assert isinstance(outcome.error, ConductorStateError)
    assert "after complete_job()" in str(outcome.error)


def test_get_next_job_gives_nothing_that_was_recalled():
    outcomes = outcomes_of(programs.TakesWhatWasRecalled, range(500))

    assert sorted(o.key for o in outcomes) == list(range(500))
    assert [o.value for o in outcomes if o.value] == []
    assert all(o.attempts == 1 for o in outcomes)


def test_what_get_next_job_completes_is_counted():
    conductor = Conductor(programs.Batcher, worker_limit=1, jobs_queue=range(200))

    assert conductor.run().last_stats["jobs_done"] == 200


# Crashes


def test_a_crash_ends_the_worker_with_code_4_and_the_job_is_tried_again():
    errors = []
    conductor = Conductor(programs.Attempts, worker_limit=1, jobs_queue=[2])
    conductor.on("error", errors.append)

    (outcome,) = conductor.outcomes()

    assert outcome.value == (3, 0)
    assert outcome.attempts == 3
    assert [a.cause for a in outcome.history] == [Cause.CRASH] * 2
    assert [e.code for e in errors] == [4, 4]
    assert "attempt 1" in errors[0].detail
    assert "PlainError" in errors[0].detail


def test_a_job_that_keeps_crashing_is_quarantined():
    retries = []
    conductor = Conductor(programs.Attempts, worker_limit=1, jobs_queue=[9, 0])
    conductor.on("job_retry", lambda key, attempt: retries.append((key, attempt.number)))
    conductor.on("error", lambda _: None)

    bad, good = conductor.outcomes(ordered=True)

    assert bad.state is JobState.QUARANTINED
    assert bad.attempts == 3
    assert isinstance(bad.error, WorkerCrashError)
    assert bad.error.code == 4
    assert "crash() was called" in bad.error.detail
    assert good.value == (1, 0)
    assert retries == [(0, 1), (0, 2)]


def test_a_crash_budget_of_none_quarantines_at_once():
    (outcome,) = outcomes_of(programs.Attempts, [1], retry=Retry(crashes=0))

    assert outcome.state is JobState.QUARANTINED
    assert outcome.attempts == 1


# Exceptions


@pytest.mark.parametrize("job", ["plain", "unpicklable", "SystemExit", "KeyboardInterrupt"])
def test_an_exception_fails_its_job_and_keeps_the_worker(job):
    failed, after = outcomes_of(programs.raise_what_is_asked, [job, "fine"])

    assert failed.state is JobState.FAILED
    assert failed.cause is Cause.ERROR
    assert failed.attempts == 1
    assert (after.value, after.worker_id) == ("fine", failed.worker_id)
    assert isinstance(failed.error.__cause__, RemoteTraceback)
    assert "in raise_what_is_asked" in str(failed.error.__cause__)
    with pytest.raises(type(failed.error)):
        failed.result()


def test_an_exception_keeps_its_type_and_arguments():
    (outcome,) = outcomes_of(programs.raise_what_is_asked, ["plain"])

    assert type(outcome.error) is programs.PlainError
    assert outcome.error.args == ("plain", 7)


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("unpicklable", f"{programs.__name__}.UnpicklableError"),
        ("SystemExit", "SystemExit"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_an_exception_that_cannot_come_back_is_stood_in_for(job, name):
    (outcome,) = outcomes_of(programs.raise_what_is_asked, [job])

    assert type(outcome.error) is RemoteError
    assert outcome.error.type_name == name


def test_failures_are_grouped_in_the_report_by_exception_and_place():
    conductor = Conductor(
        programs.raise_what_is_asked, worker_limit=1, jobs_queue=["plain", "plain", "SystemExit"]
    )

    report = conductor.run()

    assert [(g.count, g.keys) for g in report.failures] == [(2, (0, 1)), (1, (2,))]
    assert "in raise_what_is_asked" in report.failures[0].place
    assert "PlainError" in str(report)
    assert "jobs: 0, 1" in str(report)


# Life


def test_setup_and_teardown_are_called_once_per_process(tmp_path):
    path = tmp_path / "life"
    Conductor(
        programs.Lifecycle,
        worker_limit=1,
        jobs_queue=["a", "raise", "b"],
        worker_options={"path": str(path), "stats_interval": 1000.0},
    ).run()

    assert path.read_text().splitlines() == [
        "1 setup",
        "1 job_done",
        "1 error",
        "1 job_done",
        "1 job_done",
        "1 teardown",
        "1 stats",
        "1 completed",
    ]


def test_a_worker_that_cannot_start_ends_the_run():
    exits = []
    conductor = Conductor(programs.BrokenSetup, worker_limit=1, jobs_queue=[1, 2])
    conductor.on("worker_exit", exits.append)

    with pytest.raises(WorkerStartError, match="no setup today") as caught:
        conductor.run()

    assert caught.value.starts == 3
    assert "Traceback" in caught.value.detail
    assert len(exits) == 3
    assert list(conductor.jobs_queue) == [1, 2]


# Requests


def test_a_request_returns_the_replys_data():
    (outcome,) = requester("blocking")

    assert outcome.value == 42


def test_a_request_is_a_future():
    (outcome,) = requester("future")

    assert outcome.value == (True, "double", 8, True)


def test_several_requests_may_be_under_way():
    (outcome,) = requester("several_at_once")

    assert outcome.value == [2 * n for n in reversed(range(50))]


def test_requests_and_lookups_work_in_threads_of_a_job():
    (outcome,) = requester("pool")

    assert outcome.value == [(2 * n, n * n) for n in range(40)]


def test_a_thread_gets_its_reply_while_the_main_thread_sits_in_the_job():
    (outcome,) = requester("background")

    assert outcome.value == 16


def test_a_request_may_time_out():
    outcomes = requester("late", "blocking")

    assert [o.value for o in outcomes] == ["timed out", 42]


def test_an_unknown_command_is_answered_with_an_error():
    (outcome,) = requester("unknown")

    assert isinstance(outcome.error, UnknownCommandError)
    assert isinstance(outcome.error, RequestError)
    assert "on_worker_message" in str(outcome.error)
    assert "'no such command'" in str(outcome.error)


def test_what_the_handler_raises_is_raised_by_the_request(caplog):
    (outcome,) = requester("failing")

    assert type(outcome.error) is programs.PlainError
    assert "the handler of command 'fail' raised" in caplog.text


def test_a_callback_id_nobody_waits_for_is_logged_and_crashes_nobody(caplog):
    conductor = Conductor(programs.Listener, worker_limit=1, jobs_queue=["call me", "after"])
    conductor.command("call me")(
        lambda msg: conductor.send_message_to_worker(msg.worker_id, "strange", 1, "no such id")
    )

    outcomes = list(conductor.outcomes(ordered=True))

    assert [o.state for o in outcomes] == [JobState.DONE] * 2
    assert ("strange", 1) in outcomes[-1].value


def test_fire_request_callback_for_nobody_is_logged(caplog):
    class Firing(ConductorWorker):
        def process_job(self, job):
            self.fire_request_callback("no such id")
            return job

    (outcome,) = outcomes_of(Firing, [1])

    assert outcome.is_done
    assert "nobody waits for callback 'no such id'" in caplog.text


def test_messages_without_callback_are_handled_between_jobs():
    conductor = Conductor(programs.Listener, worker_limit=1, jobs_queue=["call me", "after"])

    @conductor.command("call me")
    def call(msg):
        for number in range(3):
            conductor.send_message_to_worker(msg.worker_id, "note", number)

    first, after = conductor.outcomes(ordered=True)

    assert first.value == [("call me", None)], "the reply alone came during the job"
    assert after.value == [("call me", None), ("note", 0), ("note", 1), ("note", 2)]


def test_a_message_may_be_sent_from_another_thread():
    """The consumer of outcomes is in another thread than the run."""
    conductor = Conductor(programs.square, worker_limit=1, jobs_queue=[1])

    for _ in conductor.outcomes():
        with pytest.raises(WorkerGoneError):
            conductor.send_message_to_worker(99, "anything")


@pytest.mark.parametrize("call", [lambda w: w.request("x"), lambda w: w.lookup("x", 1)])
def test_a_worker_object_outside_a_worker_process_cannot_talk(call):
    worker = programs.Lookups()

    with pytest.raises(ConductorStateError, match="outside a worker process"):
        call(worker)


# Lookups


def test_lookups_are_reached_from_a_worker():
    jobs = [
        ("lookup", "fruits", "a"),
        ("lookup", "fruits", "z"),
        ("lookup", "fruits", "z", "default"),
        ("lookup_many", "fruits", ["a", "z", "b", "n"]),
        ("read_own_write", "fruits", "c", "cherry"),
        ("lookup", "fruits", "c"),
    ]
    lookups = {"fruits": {"a": "apple", "b": "banana", "n": None}}

    outcomes = outcomes_of(programs.Lookups, jobs, lookups=lookups)

    assert [o.value for o in outcomes] == [
        "apple",
        None,
        "default",
        {"a": "apple", "b": "banana", "n": None},
        "cherry",
        "cherry",
    ]
    assert lookups["fruits"]["c"] == "cherry"


@pytest.mark.parametrize(
    "job",
    [
        ("lookup", "nuts", "a"),
        ("lookup_many", "nuts", ["a"]),
        ("set_lookup", "nuts", "a", 1),
    ],
)
def test_an_unknown_lookup_is_an_error_in_the_worker_too(job):
    (outcome,) = outcomes_of(programs.Lookups, [job], lookups={"fruits": {}, "veggies": {}})

    assert isinstance(outcome.error, UnknownLookupError)
    assert outcome.error.known == ("fruits", "veggies")
    assert "'fruits', 'veggies'" in str(outcome.error)


def test_a_lookup_that_cannot_be_written_says_so():
    (outcome,) = outcomes_of(
        programs.Lookups, [("set_lookup", "fixed", 0, 1)], lookups={"fixed": (1, 2)}
    )

    assert isinstance(outcome.error, TypeError)


# Stats


def test_stats_are_reported_at_intervals():
    outcomes = outcomes_of(programs.Intervals, ["a", "b"])

    assert [o.value["points"] for o in outcomes] == [1, 2]


def test_monitoring_can_be_stopped_and_started():
    stopped, started = outcomes_of(programs.Intervals, ["stop", "start"])

    assert stopped.value is True
    assert started.value["points"] == 2


def test_start_monitoring_twice_is_start_monitoring_once():
    worker = programs.Lookups(stats_interval=1000.0)
    worker.start_monitoring()
    first = worker._monitor
    worker.start_monitoring()
    second = worker._monitor
    worker.stop_monitoring()
    first.join(DEADLINE)

    assert first is second


def test_the_last_report_of_a_worker_that_stopped_monitoring_is_sent():
    class Silent(ConductorWorker):
        def setup(self):
            self.stats["silent"] = 1

        def process_job(self, job):
            self.stop_monitoring()

    report = Conductor(Silent, worker_limit=1, jobs_queue=[1, 2]).run()

    assert report.last_stats == {"jobs_done": 2, "silent": 1}


def test_the_sum_of_all_diffs_is_the_last_totals_though_workers_are_killed():
    reports = []
    conductor = Conductor(programs.Chancy, worker_limit=2, jobs_queue=range(100))
    conductor.on("stats", reports.append)
    conductor.on("error", lambda _: None)

    report = conductor.run()

    sums = Counter()
    for cycle in reports:
        sums.update(cycle.agg.diff)
    assert report.done == 100
    assert report.workers_lost == 2
    assert dict(sums) == report.last_stats == reports[-1].agg.last
    by_worker = {}
    for cycle in reports:
        by_worker.update({number: raw.stats for number, raw in cycle.raw.items()})
    totals = Counter()
    for stats in by_worker.values():
        totals.update(stats)
    assert dict(totals) == report.last_stats


def test_a_crash_is_preceded_by_a_last_report():
    conductor = Conductor(programs.Attempts, worker_limit=1, jobs_queue=[0, 0, 9])

    report = conductor.run()

    assert report.last_stats["jobs_done"] == 2


# Logs and prints


def test_log_records_arrive_with_worker_and_job(caplog):
    outcomes_of(programs.Logger, ["a", "b"], job_key=lambda job: job * 2)

    records = [r for r in caplog.records if r.name == "tests.worker"]
    assert [(r.getMessage(), r.worker_id, r.job_key) for r in records] == [
        ("job a says hello", 1, "aa"),
        ("job a failed", 1, "aa"),
        ("job b says hello", 1, "bb"),
        ("job b failed", 1, "bb"),
    ]
    assert "PlainError" in records[1].exc_text
    assert records[0].process != records[0].worker_id


def test_log_levels_of_the_conductor_hold_for_workers(caplog):
    with caplog.at_level(logging.ERROR, logger="tests.worker"):
        outcomes_of(programs.Logger, ["a"])

    assert {r.levelno for r in caplog.records if r.name == "tests.worker"} == {logging.ERROR}


@pytest.mark.parametrize("capture", ["capsys", "capfd"])
def test_prints_arrive_line_by_line_untorn(capture, request):
    captured = request.getfixturevalue(capture)
    report = Conductor(programs.print_lines, worker_limit=2, jobs_queue=range(6)).run()

    out, err = captured.readouterr()
    assert report.done == 6
    lines = out.splitlines()
    assert all(re.fullmatch(r"<\d:\d+:x{300}>", line) for line in lines)
    assert len(set(lines)) == len(lines) == 6 * 200
    assert sorted(err.splitlines()) == [f"<{n}:err>" for n in range(6)]


def test_a_line_without_end_is_passed_on_at_the_end(capsys):
    outcomes_of(lambda job: sys.stdout.write(f"no end {job}"), [1])

    assert capsys.readouterr().out == "no end 1\n"


# The environment


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_the_environment_is_there_before_the_workers_module_is_imported(start_method):
    conductor = Conductor(
        programs.tell_surroundings,
        worker_type="painter",
        worker_limit=1,
        worker_env={"COLOUR": "red"},
        jobs_queue=[1],
        start_method=start_method,
    )

    (outcome,) = conductor.outcomes()

    assert outcome.value == {
        "is_worker": True,
        "worker_type": "painter",
        "master_id": conductor.id,
        "COLOUR": "red",
    }


def test_the_conductors_own_environment_is_left_alone():
    assert programs.SEEN_AT_IMPORT == {
        "is_worker": False,
        "worker_type": None,
        "master_id": None,
        "COLOUR": None,
    }


def test_a_worker_knows_its_identity():
    class Who(ConductorWorker):
        def process_job(self, job):
            return self.worker_id, self.slot, self.master_id, self.job.key, self.job.attempt

    conductor = Conductor(Who, worker_limit=1, jobs_queue=["x"], job_key=lambda job: job + "!")

    (outcome,) = conductor.outcomes()

    assert outcome.value == (1, 0, conductor.id, "x!", 1)
    assert (outcome.worker_id, outcome.slot) == (1, 0)


# What a worker may be


class Doubler(ConductorWorker):
    """Is defined in the test's own module."""

    def process_job(self, job):
        return 2 * job


def double(job):
    return 2 * job


def local_class():
    factor = 2

    class Local(ConductorWorker):
        def process_job(self, job):
            return factor * job

    return Local


WORKERS = {
    "class": Doubler,
    "function": double,
    "lambda": lambda job: 2 * job,
    "local class": local_class(),
    "builtin": "operator:index",
    "name of a class": f"{__name__}:Doubler",
    "name of a function": f"{__name__}:double",
}


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_worker_may_be_a_class_a_function_or_a_name(worker, start_method):
    outcomes = outcomes_of(worker, [1, 2], start_method=start_method)

    factor = 1 if worker == "operator:index" else 2
    assert [o.value for o in outcomes] == [factor, 2 * factor]


def test_options_reach_the_worker():
    class Optional(ConductorWorker):
        def __init__(self, *, factor, **options):
            super().__init__(**options)
            self.factor = factor

        def process_job(self, job):
            return self.factor * job, self.stats_interval

    (outcome,) = outcomes_of(
        Optional, [3], worker_options={"factor": 5, "stats_interval": 7.0, "logging": False}
    )

    assert outcome.value == (15, 7.0)


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_a_stats_interval_is_more_than_nothing(interval):
    with pytest.raises(ConfigurationError, match="stats_interval"):
        ConductorWorker(stats_interval=interval)


def test_a_killed_worker_is_announced_with_its_signal():
    errors = []
    conductor = Conductor(programs.StatsWorker, worker_limit=1, jobs_queue=["die", 1])
    conductor.command("sync")(lambda _: None)
    conductor.on("error", errors.append)

    bad, good = conductor.outcomes(ordered=True)

    assert bad.state is JobState.QUARANTINED
    assert bad.error.signal == signal.SIGKILL.name
    assert good.value == 1
    assert {(e.signal, e.code, e.key) for e in errors} == {("SIGKILL", None, 0)}


class Answering(Conductor):
    """Replies with what it was sent."""

    def on_worker_message(self, worker_id, msg):
        self.send_message_to_worker(worker_id, msg.cmd, msg.data, msg.callback)


@pytest.mark.parametrize("worker", [programs.AsksInACallback, programs.AsksInAHandler])
def test_a_request_may_be_made_while_a_reply_is_handled(worker):
    lookups = {"words": {n: str(n) for n in range(50)}}
    conductor = Answering(worker, worker_limit=2, jobs_queue=range(50), lookups=lookups)

    assert {o.key: o.value for o in conductor.outcomes()} == lookups["words"]
