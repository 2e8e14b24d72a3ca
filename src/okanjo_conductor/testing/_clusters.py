"""The conformance suite for clusters: what a run relies on, tried out with real runs.

Each check makes a cluster, runs a conductor or two on it, and says what was not as promised. What a
cluster says that it cannot do is not tried; that it is refused, is.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import tempfile
import threading
import traceback
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okanjo_conductor._conductor import Conductor
from okanjo_conductor._io.assignment import is_worker
from okanjo_conductor._types import Cause, JobState, Recycle, Retry
from okanjo_conductor._wire.byvalue import has_spec
from okanjo_conductor.clusters._base import find_cluster
from okanjo_conductor.errors import (
    ConfigurationError,
    JobTimeoutError,
    UnknownCommandError,
    WorkerCrashError,
    WorkerStartError,
)
from okanjo_conductor.lookups._kinds import ABSENT, Loading, Lookup
from okanjo_conductor.testing import _cluster_jobs
from okanjo_conductor.testing._cluster_jobs import (
    AsyncCheckWorker,
    CannotSetUp,
    CheckWorker,
    Thing,
    make_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from okanjo_conductor._types import JobProgress, Message, Outcome, Report, WorkerExit
    from okanjo_conductor.clusters._base import Capabilities, Cluster

_LARGE = 3 << 20
"""Bytes of a large payload: more than sockets and rings hold."""
_MANY = 50_000
"""Jobs that are not done before something is done about it."""
_BATCHED = 300
"""Jobs after which batches have grown."""


class ClusterCheckError(AssertionError):
    """A cluster does not do what runs rely on.

    Attributes:
        failures: by name of the check, what was wrong.
    """

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        texts = [f"{name}: {text}" for name, text in self.failures.items()]
        return "\n".join([f"{len(texts)} checks of this cluster have failed", *texts])


def cluster_checks() -> tuple[str, ...]:
    """Name the checks, in order: to run each as a test of its own."""
    return tuple(_CHECKS)


def check_cluster(
    make: Callable[[], Cluster | str],
    *,
    only: Iterable[str] | None = None,
    deadline: float = 60.0,
) -> None:
    """Run the conformance suite over a cluster.

    Args:
        make: makes the cluster, for each run a new one; or what ``Conductor(cluster=…)`` takes.
        only: names of checks (`cluster_checks`); None: all.
        deadline: seconds after which a check has failed: what it waits for does not come.

    Raises:
        ClusterCheckError: some checks failed; it tells which and why.
        ConfigurationError: there is no check of that name.
    """
    names = list(_CHECKS) if only is None else list(only)
    for name in names:
        if name not in _CHECKS:
            message = f"there is no check {name!r}; those that exist: {', '.join(_CHECKS)}"
            raise ConfigurationError(message)
    failures: dict[str, str] = {}
    for name in names:
        text = _try(name, make, deadline)
        if text:
            failures[name] = text
    if failures:
        raise ClusterCheckError(failures)


def _try(name: str, make: Callable[[], Cluster | str], deadline: float) -> str:
    """Run a check in a thread, so that one which hangs is seen to; return what is wrong."""
    said: list[str] = []

    def check() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="okanjo-conductor-check-") as folder:
                _CHECKS[name](_Scene(make, Path(folder)))
        except _NotAsPromisedError as error:
            said.append(str(error))
        except BaseException:
            said.append(traceback.format_exc())

    thread = threading.Thread(target=check, name=f"check-{name}", daemon=True)
    thread.start()
    thread.join(deadline)
    if thread.is_alive():
        return f"it did not end within {deadline} s"
    return "".join(said)


class _NotAsPromisedError(Exception):
    """What a check has found."""


def _expect(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        message = f"{what}: {found!r}, expected {expected!r}"
        raise _NotAsPromisedError(message)


def _require(fact: object, what: str) -> None:
    if not fact:
        raise _NotAsPromisedError(what)


class _Scene:
    """What a check works with."""

    def __init__(self, make: Callable[[], Cluster | str], folder: Path) -> None:
        self._make = make
        self.folder = folder
        self.can: Capabilities = find_cluster(make()).capabilities

    @property
    def slots(self) -> int:
        """Workers to ask for: three, or as many as there can be."""
        return min(3, self.can.most_slots or 3)

    def conductor(self, jobs: Any, *, worker: Any = CheckWorker, **options: Any) -> Conductor:
        """Make a conductor with this cluster."""
        options.setdefault("worker_limit", self.slots)
        return Conductor(worker, jobs_queue=jobs, cluster=self._make(), logging=False, **options)

    def run(self, jobs: Any, **options: Any) -> _Ran:
        """Run a conductor."""
        return _Ran(self.conductor(jobs, **options))

    def gate(self, name: str = "gate") -> str:
        """Name a file that jobs wait for."""
        return str(self.folder / name)


class _Ran:
    """A run, and what came of it.

    Args:
        during: called with each outcome while the run goes on.
    """

    def __init__(
        self, conductor: Conductor, during: Callable[[Outcome], None] | None = None
    ) -> None:
        self.outcomes: dict[Any, Outcome] = {}
        self.doubles: list[Any] = []
        self.crashes: list[WorkerExit] = []
        self._during = during
        conductor.on("job_done", self._note)
        conductor.on("job_failed", self._note)
        conductor.on("error", self.crashes.append)
        self.report: Report = conductor.run()
        _expect(self.doubles, [], "keys of jobs with more than one outcome")
        _expect(len(self.outcomes), self.report.jobs, "outcomes that were emitted")

    def _note(self, outcome: Outcome) -> None:
        if outcome.key in self.outcomes:
            self.doubles.append(outcome.key)
        self.outcomes[outcome.key] = outcome
        if self._during is not None:
            self._during(outcome)

    def values(self) -> list[Any]:
        """Return the values, in the order of the jobs; raise what failed one."""
        return [self.outcomes[key].result() for key in range(len(self.outcomes))]


def _first(job: Any) -> Any:
    return job[0]


def _second(job: Any) -> Any:
    return job[1]


# Jobs and their outcomes


def _hand_out(scene: _Scene) -> None:
    ran = scene.run(range(1000))
    _expect(ran.values(), [2 * job for job in range(1000)], "values")
    _expect(ran.report.workers_lost, 0, "workers lost")


def _ordered_outcomes(scene: _Scene) -> None:
    jobs = [number if number % 7 else ("echo", 2 * number) for number in range(200)]
    ordered = scene.conductor(jobs).outcomes(ordered=True)
    _expect([o.value for o in ordered], [2 * n for n in range(200)], "ordered values")
    unordered = scene.conductor(jobs).outcomes()
    _expect(sorted(o.value for o in unordered), [2 * n for n in range(200)], "values")


def _async_start(scene: _Scene) -> None:
    async def main() -> list[Any]:
        report = await scene.conductor(range(50)).start()
        _expect(report.done, 50, "jobs done by start()")
        return [o.value async for o in scene.conductor(range(50)).outcomes(ordered=True)]

    _expect(asyncio.run(main()), [2 * n for n in range(50)], "values of async iteration")


def _values(scene: _Scene) -> None:
    values: list[Any] = [
        *(None, True, 0, -(1 << 80), 1.5, float("inf"), "text", "", b"bytes", (1, (2,)), [3]),
        *({"a": {4}}, frozenset({5}), Thing([6]), range(7), 1 << 63, Cause.CRASH),
    ]
    ran = scene.run([("echo", value) for value in values])
    found = ran.values()
    _expect(found, values, "values that were sent there and back")
    _expect(list(map(type, found)), list(map(type, values)), "their types")
    original = ["as it was"]
    ran = scene.run([("change", original)])
    _expect(ran.values(), [["as it was", "changed"]], "a payload that the job has changed")
    _expect(original, ["as it was"], "the conductor's own object, which no job may change")


def _large_payloads(scene: _Scene) -> None:
    data = bytes(range(256)) * (_LARGE // 256)
    ran = scene.run([("size_of", data)] * 4)
    _expect([size for size, _ in ran.values()], [_LARGE] * 4, "bytes that arrived")
    _require(all(back == data for _, back in ran.values()), "large values came back changed")


def _failures(scene: _Scene) -> None:
    ran = scene.run([("fail", "on purpose"), ("leave", 3), *range(20)])
    error = ran.outcomes[0].error
    _expect((type(error), str(error)), (ValueError, "on purpose"), "the error of a failed job")
    _expect(ran.outcomes[1].state, JobState.FAILED, "the state of a job that calls sys.exit()")
    _expect(ran.report.done, 20, "jobs done beside failing ones")
    _expect(ran.report.workers_lost, 0, "workers lost to jobs that raise")


def _identity(scene: _Scene) -> None:
    ran = scene.run([("identity", n) for n in range(20)], job_key=_second)
    expected = {n: (n, 1, True, True) for n in range(20)}
    found = {key: outcome.result() for key, outcome in ran.outcomes.items()}
    _expect(found, expected, "key, attempt, current_worker() and is_worker() within jobs")
    _require(not is_worker(), "is_worker() is true in the conductor")


def _claims_and_recall(scene: _Scene) -> None:
    """Jobs that wait behind a long one are executed elsewhere: else the gate never opens."""
    if not (scene.can.is_concurrent and scene.slots > 1):
        return
    gate = scene.gate()
    jobs: list[Any] = [*range(_BATCHED), ("wait_for", gate), *range(_BATCHED)]
    left = len(jobs) - 1

    def note(_outcome: Outcome) -> None:
        nonlocal left
        left -= 1
        if not left:
            Path(gate).touch()

    ran = _Ran(scene.conductor(jobs), note)
    _expect(ran.report.done, len(jobs), "jobs done around a long one")
    _expect(ran.outcomes[_BATCHED].value, "passed", "the value of the long job")
    _expect(_charged(ran), [], "jobs charged though no worker died")


# Messages


def _requests(scene: _Scene) -> None:
    conductor = scene.conductor(
        [("ask", "treble", 14), ("ask_later", "treble", 5), ("ask", "fail", 0), ("ask", "?", 0)]
    )
    places: list[bool] = []

    @conductor.command("treble")
    def treble(msg: Message) -> int:
        places.append(is_worker())
        return int(3 * msg.data)

    @conductor.command("fail")
    def fail(_msg: Message) -> None:
        message = "the handler raises"
        raise KeyError(message)

    ran = _Ran(conductor)
    _expect([ran.outcomes[n].result() for n in (0, 1)], [42, 15], "replies to requests")
    _expect(type(ran.outcomes[2].error), KeyError, "the error of a handler, in the worker")
    _expect(type(ran.outcomes[3].error), UnknownCommandError, "the error of an unknown command")
    _expect(places, [False, False], "is_worker() in handlers of the conductor")


def _async_handlers(scene: _Scene) -> None:
    """What needs the loop is answered while a job waits, or refused at once."""
    conductor = scene.conductor([("ask", "later", 4), 5])

    @conductor.command("later")
    async def later(msg: Message) -> int:
        await asyncio.sleep(0)
        return int(msg.data + 1)

    ran = _Ran(conductor)
    _expect(ran.outcomes[1].value, 10, "the value of the job after it")
    if scene.can.is_concurrent:
        _expect(ran.outcomes[0].result(), 5, "the reply of an async handler")
    else:
        said = str(ran.outcomes[0].error)
        _require("async" in said and "threads" in said, f"no helpful error, but {said!r}")


def _notes(scene: _Scene) -> None:
    conductor = scene.conductor([("tell_conductor", "note", n) for n in range(100)])
    notes: list[Any] = []

    @conductor.command("note")
    def note(msg: Message) -> None:
        notes.append(msg.data)

    ran = _Ran(conductor)
    _expect(ran.report.done, 100, "jobs done that tell the conductor something")
    _expect(sorted(notes), list(range(100)), "what they told")


def _messages_to_workers(scene: _Scene) -> None:
    conductor = scene.conductor([("what_was_told", n) for n in range(50)])
    conductor.broadcast_message_to_workers("tell", "first", sticky=True)
    conductor.broadcast_message_to_workers("tell", "second", sticky=True)
    replies: list[Any] = []

    def ask(outcome: Outcome) -> None:
        if not replies and outcome.worker_id is not None:
            replies.append(conductor.request_worker(outcome.worker_id, "double", 21))

    ran = _Ran(conductor, ask)
    for told in ran.values():
        _expect(told[:2], ["first", "second"], "what a worker was told before its first job")
    _expect(replies[0].result(0), 42, "the reply of a worker")


def _progress_and_abort(scene: _Scene) -> None:
    conductor = scene.conductor([("say_progress", 0.5), *range(10)])
    seen: list[JobProgress] = []
    conductor.on("job_progress", seen.append)
    _Ran(conductor)
    _expect([(p.key, p.fraction) for p in seen], [(0, 0.5)], "progress that was told")
    jobs = [("stop_run", "enough"), *range(_MANY)]
    report = scene.conductor(jobs).run()
    _require("enough" in report.stopped, f"a worker's abort() has said {report.stopped!r}")
    _expect(report.jobs + report.unstarted, len(jobs), "jobs with an outcome or left")


def _stats(scene: _Scene) -> None:
    ran = scene.run(range(500), worker_options={"stats": {"mine": 7}})
    stats, workers = ran.report.last_stats, ran.report.workers_started
    _expect(stats.get("jobs_done"), 500, "the sum of the workers' own counters")
    _expect(stats.get("mine"), 7 * workers, "the sum of counters that were given to workers")


class _Keeper(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text."""
        self.texts.append(record.getMessage())


def _logs_and_prints(scene: _Scene) -> None:
    handler, prints = _Keeper(), io.StringIO()
    logger = logging.getLogger(_cluster_jobs.__name__)
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(prints):
            scene.run([("speak", n) for n in "ab"])
    finally:
        logger.removeHandler(handler)
    logged = "log records of workers, in the conductor's logging"
    _expect(sorted(handler.texts), ["logged: a", "logged: b"], logged)
    lines = sorted(prints.getvalue().splitlines())
    _expect(lines, ["printed: a", "printed: b"], "lines of workers, in the conductor's own output")


# Lookups


def _lookups(scene: _Scene) -> None:
    lookups = {"n": {"a": 1, ("t", 2): Thing(3)}, "count": {}, "flags": {}}
    ran = scene.run(
        [
            ("look_up", "n", "a"),
            ("look_up", "n", ("t", 2)),
            ("look_up", "n", "missing"),
            ("look_up_many", "n", ["a", "missing"]),
            ("write", "n", "new", [4]),
            *[("count", "count", "x")] * 60,
            *[("swap", "flags", "f", ABSENT, n) for n in range(20)],
        ],
        lookups=lookups,
    )
    values = ran.values()
    _expect(values[:5], [1, Thing(3), "none", {"a": 1}, [4]], "what jobs have read and written")
    _expect(sorted(values[5:65]), list(range(1, 61)), "numbers that were counted up")
    _expect(values[65:].count(True), 1, "how many of 20 have set what was to be set once")
    _expect(lookups["n"]["new"], [4], "an entry that a job has set, in the conductor")


def _cached_lookups(scene: _Scene) -> None:
    """Whoever knows of a change, in whatever way, does not find what was before it."""
    conductor = scene.conductor(
        [("read_around", "n", "k", "change")] * 200, lookups={"n": Lookup({"k": 0}, cached=True)}
    )
    changes = count(1)

    @conductor.command("change")
    def change(_msg: Message) -> int:
        number = next(changes)
        conductor.set_lookup_value("n", "k", number)
        return number

    late = [found for found in _Ran(conductor).values() if not found[0] < found[1] <= found[2]]
    _expect(late, [], "entries read before a change, its number, and entries read after it")


def _made_entries(scene: _Scene) -> None:
    calls: Counter[Any] = Counter()

    def make(key: Any) -> str:
        calls[key] += 1
        return f"made of {key}"

    jobs = [("look_up", name, n % 10) for name in ("here", "there") for n in range(100)]
    lookups = {"here": Loading(make), "there": Loading(make_entry, in_worker=True)}
    ran = scene.run(jobs, lookups=lookups)
    _expect(ran.values(), [f"made of {job[2]}" for job in jobs], "entries that were made")
    _expect(calls, Counter(range(10)), "how often each was made")


def _arrays(scene: _Scene) -> None:
    if not has_spec("numpy"):
        return
    import numpy as np

    array = np.arange(1000.0)
    jobs = [("sum_of", "array"), ("look_up", "array", 7)] * 10
    ran = scene.run(jobs, lookups={"array": array})
    _expect(ran.values()[:2], [(499500.0, False), 7.0], "what jobs have read of an array")


def _tables(scene: _Scene) -> None:
    if not has_spec("lmdb"):
        return
    from okanjo_conductor.lookups.table import LookupTable

    path = str(scene.folder / "table")
    with LookupTable.build({n: [n] for n in range(100)}, path) as table:
        ran = scene.run(
            [*[("look_up", "t", n) for n in range(100)], ("look_up", "t", "no")],
            lookups={"t": table},
        )
        _expect(ran.values(), [*([n] for n in range(100)), "none"], "entries of a table")


# Deaths


def _charged(ran: _Ran) -> list[Any]:
    """Keys of jobs that were charged with anything, in order."""
    free = {Cause.PREEMPTED, Cause.SUSPECT}
    return sorted(
        key
        for key, outcome in ran.outcomes.items()
        if not free.issuperset(attempt.cause for attempt in outcome.history)
    )


def _crash_and_blame(scene: _Scene) -> None:
    jobs: list[Any] = [*range(_BATCHED), ("crash_until", 2), *range(_BATCHED), ("crash_until", 99)]
    ran = scene.run(jobs, retry=Retry(crashes=1))
    first, last = ran.outcomes[_BATCHED], ran.outcomes[len(jobs) - 1]
    _expect(first.value, 2, "the attempt in which a job that crashes once is done")
    _expect([a.cause for a in first.history], [Cause.CRASH], "what it was charged with")
    _expect(last.state, JobState.QUARANTINED, "the state of a job that always crashes")
    _expect(ran.report.done, len(jobs) - 1, "jobs done around those that crash")
    _expect(_charged(ran), [_BATCHED, len(jobs) - 1], "jobs that were charged")
    _expect({crash.code for crash in ran.crashes}, {4}, "exit codes of crash()")
    _require("attempt 1" in ran.crashes[0].detail, "the words of crash() did not arrive")
    _expect(len(ran.crashes), 3, "workers that crashed")


def _deaths(scene: _Scene) -> None:
    if not scene.can.is_isolated:
        return
    jobs: list[Any] = [*range(_BATCHED), ("die_until", 2), *range(_BATCHED), ("die_until", 99)]
    ran = scene.run(jobs, retry=Retry(crashes=1))
    _expect(ran.outcomes[_BATCHED].value, 2, "the attempt in which a job that dies once is done")
    error = ran.outcomes[len(jobs) - 1].error
    _expect(type(error), WorkerCrashError, "the error of a job that always dies")
    _expect(_charged(ran), [_BATCHED, len(jobs) - 1], "jobs that were charged")
    _expect({crash.code for crash in ran.crashes}, {9}, "exit codes")


def _failing_start(scene: _Scene) -> None:
    try:
        scene.conductor(range(5), worker=CannotSetUp).run()
    except WorkerStartError as error:
        _require("never meant to work" in str(error), f"the error does not say why: {error}")
    else:
        _require(fact=False, what="a worker whose setup() raises does not end the run")


def _adding_jobs(scene: _Scene) -> None:
    ran = scene.run([("add", 5), ("add_and_crash", "x")], job_key=_first)
    tree = [key for key in ran.outcomes if set(key.removeprefix("add")) <= {"a", "b"}]
    _expect(len(tree), 2**6 - 1, "jobs in a tree of jobs that add jobs")
    _expect(ran.outcomes["added by x"].value, "x", "a job that was added before a crash")
    _expect(ran.report.jobs, 2**6 + 1, "jobs, though a job that adds one was executed twice")


def _recycling(scene: _Scene) -> None:
    ran = scene.run(range(200), recycle=Recycle(jobs=20))
    _expect(ran.values(), [2 * n for n in range(200)], "values")
    _require(ran.report.workers_started > scene.slots, "no worker was recycled")
    _expect(_charged(ran), [], "jobs that were charged")


# Limits


def _timeouts(scene: _Scene) -> None:
    if not scene.can.can_kill:
        return
    gate = scene.gate()
    jobs = [*range(20), ("wait_for", gate), *range(20)]
    ran = scene.run(jobs, job_timeout=0.3, timeout_grace=0.2)
    error = ran.outcomes[20].error
    _expect(type(error), JobTimeoutError, "the error of a job that takes too long")
    _require(isinstance(error, JobTimeoutError) and "wait_for" in error.stack, "it has no stack")
    _expect(ran.report.done, 40, "jobs done around it")
    _expect(_charged(ran), [20], "jobs that were charged")


def _soft_timeouts(scene: _Scene) -> None:
    if not scene.can.can_interrupt:
        return
    jobs = [*range(20), ("wait_for", scene.gate()), *range(20)]
    ran = scene.run(jobs, job_timeout=0.3, soft_timeout=True, timeout_grace=20.0)
    _expect(type(ran.outcomes[20].error), JobTimeoutError, "the error of an interrupted job")
    _expect(ran.report.workers_lost, 0, "workers lost to a soft time limit")


def _stuck(scene: _Scene) -> None:
    if not scene.can.is_concurrent:
        return
    gate = scene.gate()
    conductor = scene.conductor([*range(20), ("wait_for", gate)], stuck_after=0.05)
    stuck: list[Any] = []

    def note(news: Any) -> None:
        if news.key is not None:  # else it is the start of a worker, on a busy machine
            stuck.append(news)
            Path(gate).touch()

    conductor.on("worker_stuck", note)
    ran = _Ran(conductor)
    _expect(ran.report.done, 21, "jobs done")
    _expect([news.key for news in stuck], [20], "jobs that were told to take long")
    _require("wait_for" in stuck[0].stack, f"its stack does not show the job: {stuck[0].stack!r}")


def _refusals(scene: _Scene) -> None:
    for capability, options in _ASKING_FOR.items():
        if getattr(scene.can, capability):
            continue
        for option in options:
            try:
                scene.conductor([], **option)
            except ConfigurationError as error:
                _require("processes" in str(error), f"it does not say what to use: {error}")
            else:
                message = f"{option} is not refused, though the cluster lacks {capability}"
                raise _NotAsPromisedError(message)


_ASKING_FOR: dict[str, list[dict[str, Any]]] = {
    "can_kill": [{"job_timeout": 5.0}, {"start_timeout": 5.0}],
    "can_interrupt": [{"soft_timeout": True}],
    "is_isolated": [
        {"max_rss": 1 << 30},
        {"recycle": Recycle(rss=1 << 30)},
        {"worker_env": {"A": "b"}},
        {"start_method": "spawn"},
    ],
    "is_concurrent": [{"stuck_after": 5.0}],
}


# Ends


def _abort(scene: _Scene) -> None:
    """Whatever a job does, the run ends soon after an abort."""
    conductor = scene.conductor(range(_MANY))
    ran = _Ran(conductor, lambda _: conductor.abort())
    _expect(ran.report.jobs + len(conductor.jobs_queue), _MANY, "jobs with an outcome or left")
    _require(ran.report.stopped, "the report does not say that it was aborted")


def _abort_in_a_job(scene: _Scene) -> None:
    if not scene.can.is_concurrent:
        return
    gate = scene.gate()
    conductor = scene.conductor(
        [0, ("wait_for", gate), *range(100)], abort_grace=0.05, worker_limit=1
    )
    _when_waiting(conductor, gate, conductor.abort)
    ran = _Ran(conductor)
    Path(gate).touch()  # for the worker, if it could not be ended
    _expect(ran.outcomes[1].state, JobState.CANCELLED, "the state of the job that was executed")
    _expect(ran.report.jobs + len(conductor.jobs_queue), 102, "jobs with an outcome or left")
    _expect(_charged(ran), [], "jobs that were charged")


def _when_waiting(conductor: Conductor, gate: str, act: Callable[[], object]) -> None:
    """Do something in another thread, once a job waits at a gate."""

    def look() -> None:
        while not Path(f"{gate}.waiting").exists():
            if conductor.report is not None:
                return
            pause.wait(0.002)
        act()

    pause = threading.Event()
    threading.Thread(target=look, daemon=True).start()


def _cancel(scene: _Scene) -> None:
    """A job that waits for its turn is cancelled."""
    gate = scene.gate()
    first: Any = ("wait_for", gate) if scene.can.is_concurrent else 0
    conductor = scene.conductor([first, *range(1, 100)], worker_limit=1)
    said: list[bool] = []

    def cancel() -> None:
        said.extend((conductor.cancel(1), conductor.cancel("no such key")))

    def open_gate(outcome: Outcome) -> None:
        if outcome.key == 1:  # not earlier: taking it back may take a moment
            Path(gate).touch()

    if scene.can.is_concurrent:
        _when_waiting(conductor, gate, cancel)
        ran = _Ran(conductor, open_gate)
    else:
        ran = _Ran(conductor, lambda _: cancel() if not said else None)
    _expect(said, [True, False], "what cancel() has said")
    _expect(ran.outcomes[1].state, JobState.CANCELLED, "the state of a cancelled job")
    _expect((ran.report.jobs, ran.report.done), (100, 99), "jobs with an outcome, and done")


def _drain(scene: _Scene) -> None:
    conductor = scene.conductor(range(_MANY))
    ran = _Ran(conductor, lambda _: conductor.drain())
    _expect(ran.report.jobs + len(conductor.jobs_queue), _MANY, "jobs with an outcome or left")
    _expect(ran.report.failed, 0, "jobs that failed by a drain")
    _require(len(conductor.jobs_queue), "a drain does not stop the run")


def _resize(scene: _Scene) -> None:
    """Three jobs meet, for which one worker is too few; later one is enough."""
    if scene.slots < 3:  # noqa: PLR2004 - as many as meet below
        return
    meeting = [("meet", str(scene.folder), n, 3) for n in range(3)]
    conductor = scene.conductor([*range(50), *meeting, *range(200)], worker_limit=1)
    absent = {50, 51, 52}

    def resize(outcome: Outcome) -> None:
        absent.discard(outcome.key)
        if conductor.worker_limit != (3 if absent else 1):
            conductor.resize(3 if absent else 1)

    ran = _Ran(conductor, resize)
    _expect(ran.report.done, 253, "jobs done")
    _require(ran.report.workers_started >= 3, "resize() has started no workers")  # noqa: PLR2004
    _expect(_charged(ran), [], "jobs that were charged")


# Async workers


def _async_worker(scene: _Scene) -> None:
    jobs: list[Any] = [*range(50), *[("ask", "meet", n) for n in range(20)], ("fail", "x")]
    conductor = scene.conductor(
        [*jobs, *[("look_up", "n", "a")] * 10],
        worker=AsyncCheckWorker,
        concurrency=20,
        worker_limit=1,
        lookups={"n": {"a": 1}},
    )
    here: list[Any] = []
    all_here: list[asyncio.Event] = []

    @conductor.command("meet")
    async def meet(msg: Message) -> int:
        if not all_here:
            all_here.append(asyncio.Event())
        here.append(msg.data)
        if len(here) == 20:  # noqa: PLR2004 - as many as there are
            all_here[0].set()
        await all_here[0].wait()
        return int(msg.data)

    ran = _Ran(conductor)
    found = [ran.outcomes[key].value for key in range(len(ran.outcomes))]
    expected = [*(2 * n for n in range(50)), *range(20), None, *[1] * 10]
    _expect(found, expected, "values of jobs that are in flight together")


def _async_crash(scene: _Scene) -> None:
    jobs = [*range(40), ("crash_until", 3), *range(40)]
    ran = scene.run(jobs, worker=AsyncCheckWorker, concurrency=10, retry=Retry(crashes=2))
    outcome = ran.outcomes[40]
    _expect(outcome.value, 3, "the attempt in which a job is done that crashes twice")
    _expect(ran.report.done, 81, "jobs done around it")
    _expect(_charged(ran), [40], "jobs that were charged")


_CHECKS: dict[str, Callable[[_Scene], None]] = {
    "hand_out": _hand_out,
    "ordered_outcomes": _ordered_outcomes,
    "async_start": _async_start,
    "values": _values,
    "large_payloads": _large_payloads,
    "failures": _failures,
    "identity": _identity,
    "claims_and_recall": _claims_and_recall,
    "requests": _requests,
    "async_handlers": _async_handlers,
    "notes": _notes,
    "messages_to_workers": _messages_to_workers,
    "progress_and_abort": _progress_and_abort,
    "stats": _stats,
    "logs_and_prints": _logs_and_prints,
    "lookups": _lookups,
    "cached_lookups": _cached_lookups,
    "made_entries": _made_entries,
    "arrays": _arrays,
    "tables": _tables,
    "crash_and_blame": _crash_and_blame,
    "deaths": _deaths,
    "failing_start": _failing_start,
    "adding_jobs": _adding_jobs,
    "recycling": _recycling,
    "timeouts": _timeouts,
    "soft_timeouts": _soft_timeouts,
    "stuck": _stuck,
    "refusals": _refusals,
    "abort": _abort,
    "abort_in_a_job": _abort_in_a_job,
    "cancel": _cancel,
    "drain": _drain,
    "resize": _resize,
    "async_worker": _async_worker,
    "async_crash": _async_crash,
}
