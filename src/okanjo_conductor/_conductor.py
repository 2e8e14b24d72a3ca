"""Conductor: the object in the main process that owns jobs and lookups.

What users see and subclass. The work of a run is done by `_run.Run`; asyncio is loaded with it,
when a run begins, and not before.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pyee.base import EventEmitter

from okanjo_conductor._core.events import AbortRequested, DrainRequested
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._io import assignment, loops
from okanjo_conductor._io.bootstrap import Boot
from okanjo_conductor._io.loggers import log
from okanjo_conductor._options import (
    DEFAULT_TYPE,
    Keeping,
    check_choices,
    check_keeping,
    check_policy,
    checked_concurrency,
    checked_env,
    checked_key,
    checked_limit,
    checked_lookups,
    checked_progress,
    checked_seconds,
    checked_timeout,
    encoded_options,
    find_target,
)
from okanjo_conductor._signals import StopSignals
from okanjo_conductor._types import Recycle, Retry
from okanjo_conductor.clusters._base import Program, find_cluster, refuse_what_it_lacks
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    IntakeError,
    UnknownCommandError,
    UnknownLookupError,
    WorkerGoneError,
)
from okanjo_conductor.lookups import _changes as changes
from okanjo_conductor.lookups._kinds import mapping_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator
    from concurrent.futures import Future

    from okanjo_conductor._delivery import OutcomeBuffer
    from okanjo_conductor._intake import JobsQueue
    from okanjo_conductor._io.light_loop import LightLoop
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._journaling import JournalPlan
    from okanjo_conductor._outcomes import Outcomes
    from okanjo_conductor._posts import Handler, WorkerReply
    from okanjo_conductor._progress.view import View
    from okanjo_conductor._run import Run
    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Key, Message, Report, StatsReport
    from okanjo_conductor._wire.codec import Encoded
    from okanjo_conductor.clusters._base import Cluster
    from okanjo_conductor.journal import JournalEntry
    from okanjo_conductor.sinks import Feed

_STUCK_AFTER = 300.0
"""Seconds, by default."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Conductor(EventEmitter):
    """Hands jobs to worker processes and sees every one of them through.

    Args:
        worker: a `ConductorWorker` subclass, a function from job to value, plain or ``async``, or
            ``"module:name"`` of either. None: the main script is run again in each worker and
            starts its own (see `is_worker`); then name a `worker_type`.
        worker_type: name of these workers, in the worker's environment as ``worker_type``.
        worker_limit: how many workers at most; default: the usable CPUs, but no more than 4; on
            clusters of nodes, as many as those have room for, also when nodes join or leave.
        jobs_queue: the jobs, any iterable or async iterable; read lazily.
        logging: whether the lives of workers are logged, at level INFO.
        worker_env: environment variables for the workers, set before they import anything.
        lookups: reference data by name, reachable from all workers: any mapping, a `Lookup` that
            says how it is kept, a `Loading` that makes entries when asked, a `LookupTable` that is
            mapped by all, or a NumPy array, which is placed in shared memory.
        worker_options: keyword arguments for the worker class.
        concurrency: how many jobs are in flight at a time in each worker, if that is an ``async
            def`` function or an `AsyncConductorWorker`; default: 100, or what the class says.
        cluster: where workers live: ``"processes"``; ``"threads"`` of this process; ``"inline"``,
            in the thread of the run, for debuggers and profilers; or a `Cluster`, such as
            `LocalCluster`. Options that a cluster cannot honour are refused.
        start_method: ``"fork"`` from a clean template process, or ``"spawn"`` each worker afresh;
            default: from a template where that is possible.
        job_key: what identifies a job: a function of it, or the name of an item or attribute;
            default: the ``key`` of `jobs_queue` where that has one (see
            `okanjo_conductor.sources`); else, with a journal, the job itself or a stable hash of
            it, and without one its number, from 0.
        retry: how often a job may be executed again after a bad end.
        job_timeout: seconds that an attempt may take, or a function of the job that gives them or
            None; the clock starts when the job does. Then the worker's stack is taken and the
            worker is ended, by SIGTERM, and after `timeout_grace` by SIGKILL to its process group.
            In an async worker the job's task is cancelled first, and the worker ended only if that
            does not end the job in half of `timeout_grace`.
        timeout_grace: seconds from the first of these to the last.
        soft_timeout: whether `JobTimeoutError` is raised in the job first, where that is possible;
            half of `timeout_grace` is then left for it to end, and the worker lives on.
        start_timeout: seconds that a worker may take to start, `setup` included; then its stack is
            taken and it is killed, and three such starts running end the run. None: no limit.
        stuck_after: seconds of one job, or one start, after which ``worker_stuck`` is emitted;
            None: never.
        max_rss: bytes of memory that a worker may hold while it executes a job; beyond, it is
            ended at once and the job charged with `Cause.MEMORY`.
        recycle: when a worker makes room for a fresh one.
        max_failures: more failed jobs than that, a number, or a share of the finished jobs below
            1.0, end the run: jobs in execution are finished, the rest is given back.
        abort_grace: seconds that a worker in a job is given at an abort before SIGTERM, and again
            before SIGKILL.
        buffer: outcomes that may wait for a consumer of `outcomes` before no further job is read;
            default: a few batches.
        journal: path of a file that makes the run survive the death of this process: every outcome
            is in it before it is seen, and the same program, started again, goes on.
        duplicates: of jobs with the same key, in a run with a journal: ``"error"`` ends the run,
            ``"skip"`` executes the first only, ``"number"`` executes all, as ``key#2`` and so on.
        rerun: which of the jobs that have their outcome from an earlier run are executed again:
            ``"failed"``, keys, or a function of a `JournalEntry`; default: none. Jobs that were
            cancelled, or never ended, are executed in any case.
        version: of your code, for the journal: a run with another one is not resumed.
        accept_changed: resume also where the worker, its options or `version` have changed.
        durability: ``"full"``: what is in the journal survives a power cut, too.
        sink: where values are written to, one or several of `okanjo_conductor.sinks`, or a
            function of an `Outcome`; with a journal each exactly once, however often a run dies.
        progress: whether to show on standard error how the run stands: on a terminal as a live
            view with a line per worker (where ``rich`` is installed, extra ``cli``), or as a bar
            (``tqdm``, extra ``progress``, also in notebooks), elsewhere as a line now and then. A
            number: seconds between such lines.

    Raises:
        ConfigurationError: an option makes no sense.

    Events (payloads in `okanjo_conductor._types`):
        ``worker_start`` (worker id, pid), ``worker_exit`` and ``error`` (a `WorkerExit`),
        ``worker_stuck`` (a `WorkerStuck`),
        ``stats`` (a `StatsReport`), ``job_done`` and ``job_failed`` (an `Outcome`), ``job_retry``
        (key, `Attempt`), ``job_progress`` (a `JobProgress`), ``end`` (nothing). Listeners run in
        the thread of the run, between steps.
    """

    def __init__(
        self,
        worker: type[Any] | Callable[[Any], Any] | str | None = None,
        *,
        worker_type: str = DEFAULT_TYPE,
        worker_limit: int | None = None,
        jobs_queue: Iterable[Any] | AsyncIterable[Any] = (),
        logging: bool = True,
        worker_env: Mapping[str, str] | None = None,
        lookups: dict[str, Any] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        cluster: str | Cluster = "processes",
        start_method: str | None = None,
        job_key: Callable[[Any], Key] | str | None = None,
        retry: Retry | None = None,
        job_timeout: float | Callable[[Any], float | None] | None = None,
        timeout_grace: float = 1.0,
        soft_timeout: bool = False,
        start_timeout: float | None = None,
        stuck_after: float | None = _STUCK_AFTER,
        max_rss: int | None = None,
        recycle: Recycle | None = None,
        max_failures: float | None = None,
        abort_grace: float = 1.0,
        buffer: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        duplicates: str = "error",
        rerun: str | Iterable[Key] | Callable[[JournalEntry], bool] | None = None,
        version: str | None = None,
        accept_changed: bool = False,
        durability: str = "normal",
        sink: Any = None,
        progress: bool | float = False,
    ) -> None:
        super().__init__()
        self._cluster = find_cluster(cluster)
        travels = self._cluster.capabilities.is_isolated
        self._target = find_target(worker, worker_type, travels=travels)
        self._job_key = checked_key(job_key)
        self._program = worker, dict(worker_options or {}), self._job_key
        """What the outcomes depend on."""
        self._worker_type = worker_type
        self._worker_limit = self._limited(worker_limit)
        self._fills_cluster = worker_limit is None and self._cluster.slots is None
        """Whether there are to be as many workers as there is room for, where that changes."""
        self._worker_env = checked_env(worker_env or {})
        self._worker_options = encoded_options(worker_options or {})
        if worker_options and self._target.script is not None:
            message = "worker_options: the script makes its own worker; give them there"
            raise ConfigurationError(message)
        self._concurrency = checked_concurrency(concurrency, worker)
        check_choices(start_method, buffer)
        self._start_method = start_method
        self._job_timeout = checked_timeout(job_timeout)
        self._policy = Policy(
            retry=retry or Retry(),
            recycle=recycle or Recycle(),
            abort_grace=abort_grace,
            timeout_grace=timeout_grace,
            soft_timeout=soft_timeout,
            start_timeout=start_timeout,
            stuck_after=stuck_after,
            max_rss=max_rss,
            max_failures=max_failures,
        )
        check_policy(self._policy)
        refuse_what_it_lacks(self._cluster, self._asked())
        self._buffer_limit = buffer
        self._keeping = Keeping(
            path=journal,
            duplicates=duplicates,
            rerun=rerun,
            version=version,
            accept_changed=accept_changed,
            durability=durability,
            sink=sink,
        )
        check_keeping(self._keeping)
        self._progress = checked_progress(progress)
        self.logging = logging
        self.lookups = {} if lookups is None else checked_lookups(lookups)
        self.jobs_queue = jobs_queue
        self._id = os.urandom(16).hex()
        self._commands: dict[str, tuple[Callable[[Message], Any], bool]] = {}
        """By name: the function, and whether it may run in the thread of handlers."""
        self._sticky: list[tuple[str, Encoded]] = []
        """What every new worker is sent first."""
        self._last_stats: dict[str, Any] = {}
        self._report_count = 0
        self._report: Report | None = None
        self._has_started = False
        self._is_processing = False
        self._stop: AbortRequested | DrainRequested | None = None
        """What was asked for before the run could take it."""
        self._run: Run | None = None
        self._loop: Loop | None = None
        self._thread = 0
        self._calls: set[Future[Any]] = set()
        """What other threads wait for the run to do."""

    def __repr__(self) -> str:
        state = "processing" if self._is_processing else "over" if self._has_started else "new"
        return f"<Conductor {self._worker_type} {self._id[:8]}: {state}, {self.jobs_queue}>"

    # Properties

    @property
    def id(self) -> str:
        """Unique id of this conductor; its workers see it as ``master_id``."""
        return self._id

    @property
    def worker_type(self) -> str:
        """The name given to the workers."""
        return self._worker_type

    @property
    def worker_limit(self) -> int:
        """How many workers there may be."""
        return self._worker_limit

    @property
    def worker_env(self) -> dict[str, str]:
        """The environment variables given to the workers, a copy."""
        return dict(self._worker_env)

    @property
    def processing(self) -> bool:
        """Whether the run has begun and is not over."""
        return self._is_processing

    @property
    def last_stats(self) -> dict[str, Any]:
        """Sum of all workers' counters in the last report cycle."""
        return self._last_stats

    @property
    def worker_stats_report_count(self) -> int:
        """How many workers reported in the last cycle."""
        return self._report_count

    @property
    def report(self) -> Report | None:
        """How the run went, also when it raised; None until it is over."""
        return self._report

    @property
    def jobs_queue(self) -> JobsQueue:
        """The jobs that no worker has been given yet; append to it, or assign any iterable."""
        return self._jobs_queue

    @jobs_queue.setter
    def jobs_queue(self, jobs: Iterable[Any] | AsyncIterable[Any]) -> None:
        from okanjo_conductor._intake import JobsQueue

        if getattr(self, "_run", None) is not None:
            message = "jobs_queue cannot be replaced while the run goes on; append to it"
            raise ConductorStateError(message)
        self._jobs_queue = jobs if isinstance(jobs, JobsQueue) else JobsQueue(jobs)

    def is_processing(self) -> bool:
        """Return whether the run has begun and is not over."""
        return self._is_processing

    # Write these in a subclass, or assign them

    def generate_jobs(self) -> Any:
        """Make the jobs, when the run begins.

        Append to ``self.jobs_queue``, or return or yield them; plain or ``async``. A function is
        run to its end before the first worker starts, a generator is read lazily.
        """

    def on_worker_message(self, worker_id: int, msg: Message) -> Any:
        """Handle a message from a worker; may be ``async``.

        Runs where the functions of `command` do. To reply, call `send_message_to_worker` with
        ``msg.callback``. Not called for commands that have a handler made with `command`.
        """
        message = (
            f"nobody handles the command {msg.cmd!r} of worker {worker_id}: override "
            "Conductor.on_worker_message, or decorate a function with @conductor.command"
            f"({msg.cmd!r})"
        )
        raise UnknownCommandError(message)

    def command(self, name: str, *, thread: bool = True) -> Callable[[_Function], _Function]:
        """Decorate a function of a `Message` that handles a command; it may be ``async``.

        What it returns is the data of the reply; what it raises, the requester gets to see.

        Plain functions are called one after another, in the order of the messages, in a thread for
        them: one that takes long delays other handlers, and never the handing out of jobs. The run
        does not end before they have returned. ``async`` functions run in the event loop of the
        run, many at a time; those that still wait when the last job is done are cancelled.

        Args:
            thread: False has a plain function called in the thread of the run, as listeners to
                events are: for what belongs to a thread, as a connection to SQLite does. No job
                is handed out while it runs.
        """

        def register(function: _Function) -> _Function:
            self._commands[name] = function, thread
            return function

        return register

    # Run

    def run(self) -> Report:
        """Run until every job has its outcome; block meanwhile.

        Listeners run in this thread, unless an event loop runs in it already, as in a notebook.

        In the main thread, the first SIGINT or SIGTERM to this process drains the run, the second
        aborts it, the third kills the workers. Then the signal takes its usual course: SIGINT
        raises `KeyboardInterrupt` here, and `report` says how far the run came.

        Raises:
            TooManyFailuresError: more jobs failed than `max_failures` allows.
            IntakeError: the source of jobs raised; the jobs it gave before were carried out.
            WorkerStartError: workers cannot start.
            ConductorStateError: this conductor has run already, or this is a worker.
        """
        with StopSignals(self._on_first_signal, self._on_second_signal, self._on_further_signal):
            return self._run_blocking(None)

    async def start(self) -> Report:
        """Run until every job has its outcome. Raises what `run` raises."""
        return await self._start(None)

    def outcomes(self, *, ordered: bool = False) -> Outcomes:
        """Run, and iterate over the outcomes, with ``for`` or ``async for``.

        In completion order, or in the order of the jobs. What `run` raises is raised at the end.
        Leaving the loop aborts the run.
        """
        from okanjo_conductor._outcomes import Outcomes

        is_alone = not self._cluster.capabilities.is_concurrent
        return Outcomes(
            self._start,
            self._run_blocking,
            self.abort,
            ordered=ordered,
            steps=self._run_in_steps if is_alone else None,
        )

    def cancel(self, key: Key) -> bool:
        """Cancel a job: it ends as cancelled, also if it is being executed.

        A worker that executes it is ended, by SIGTERM, and after `timeout_grace` by SIGKILL; an
        async worker cancels its task, and is ended only if that does not help. The outcome of a
        job that ends by itself in between stands.

        Returns:
            Whether there is an unfinished job of that key. A job that was not read from the source
            yet is unknown.
        """
        run = self._run
        if run is None:
            return False
        try:
            return bool(self._call(run.cancel, key))
        except _RunIsOverError:
            return False

    def resize(self, worker_limit: int) -> None:
        """Let there be more workers, or fewer; surplus ones finish the job at hand and leave."""
        self._worker_limit, self._fills_cluster = self._limited(worker_limit), False
        if self._run is not None:
            with suppress(_RunIsOverError):
                self._call(self._run.resize, self._worker_limit)

    def set_job_timeout(self, seconds: float) -> None:
        """Give jobs that have no time limit one, also those that are being executed.

        For who finds out only while the run goes on how long jobs may take. Called again, the last
        one counts. Before the run there is `job_timeout`.

        Raises:
            ConductorStateError: no run goes on.
            ConfigurationError: the cluster cannot end a worker.
        """
        run, limit = self._run, checked_seconds("seconds", seconds)
        refuse_what_it_lacks(self._cluster, {"job_timeout": limit})
        if run is None or limit is None:
            message = "set_job_timeout(seconds) is for a run that goes on; before, use job_timeout"
            raise ConductorStateError(message)
        self._soon(run.set_limit, limit)

    def drain(self, deadline: float | None = None) -> None:
        """Stop softly: finish the jobs in execution, start no other, give back the rest.

        Args:
            deadline: seconds after which what is still being executed is ended as by `abort`.
        """
        self._request_stop(
            DrainRequested(seconds=checked_seconds("deadline", deadline), why="drain() was called")
        )

    def abort(self) -> None:
        """Stop now: hand out nothing more, end the workers, also those in a job.

        A worker in a job is given `abort_grace` seconds, then SIGTERM, then as many again, then
        SIGKILL; a job ended that way is cancelled. Jobs not started are back in `jobs_queue`.
        """
        self._request_stop(AbortRequested(why="abort() was called"))

    def add_job(self, job: Any, *, key: Key | None = None, timeout: float | None = None) -> None:
        """Add a job while the run goes on, or before it.

        Args:
            key: what identifies it; None: as for the others.
            timeout: seconds that it may take; None: as for the others.
        """
        run = self._run
        checked_seconds("timeout", timeout)
        if run is not None and threading.get_ident() == self._thread:
            run.intake.add_job(job, key, timeout)
        elif run is not None and run.intake.post_job(job, key, timeout):
            return
        elif key is None and timeout is None:
            self.jobs_queue.append(job)
        else:
            message = (
                "add_job(key=…, timeout=…) before the run: use job_key and job_timeout, or add "
                "the job when the run goes on"
            )
            raise ConductorStateError(message)

    def snapshot(self) -> Snapshot:
        """Say how the run stands: counts, rate, time left, what each worker does.

        From any thread, at any time; it waits until the thread of the run takes a breath. It costs
        that thread about as much as handing out a few jobs, and nothing when nobody asks. Before
        the run it is empty; afterwards it tells the end.
        """
        from okanjo_conductor import _snapshot as snapshots

        run = self._run
        if run is not None:
            length = self._jobs_queue._length()
            with suppress(_RunIsOverError):
                taken: Snapshot = self._call(run.snapshot, length)
                return snapshots.with_memory(taken)
        if self._report is not None:
            return snapshots.of_report(self._report)
        return snapshots.of_nothing()

    # Messages

    def send_message_to_worker(
        self, worker_id: int, command_name: str, data: Any = None, callback_id: str | None = None
    ) -> None:
        """Send a worker a message; with the callback id of its message, as the reply.

        Raises:
            WorkerGoneError: that worker has ended, or never was.
        """
        from okanjo_conductor._wire.byvalue import encode_by_value

        run = self._run
        if run is None:
            raise WorkerGoneError(worker_id)
        value = encode_by_value(data)
        try:
            self._call(run.posts.send, worker_id, command_name, value, callback_id)
        except _RunIsOverError:
            raise WorkerGoneError(worker_id) from None

    def broadcast_message_to_workers(
        self, command_name: str, data: Any = None, *, sticky: bool = False
    ) -> None:
        """Send all workers there are now a message.

        Args:
            sticky: send it to every later worker too, before its first job, in the order of such
                messages. Before the run, it is kept for the first workers. It is never forgotten.
        """
        from okanjo_conductor._wire.byvalue import encode_by_value

        value = encode_by_value(data)
        run = self._run
        if run is not None:
            with suppress(_RunIsOverError):
                self._call(partial(run.posts.broadcast, sticky=sticky), command_name, value)
        elif sticky:
            from okanjo_conductor._posts import kept

            self._sticky.append((command_name, kept(value)))

    def request_worker(
        self,
        worker_id: int,
        command_name: str,
        data: Any = None,
        *,
        timeout: float | None = None,
    ) -> WorkerReply:
        """Ask a worker, and get what its handler returns: await it, or call ``.result()``.

        The worker answers between jobs, or at once where the handler is marked ``during_job``. A
        worker that waits for a reply to a request of its own is in a job, too.

        Args:
            timeout: seconds after which `TimeoutError` is what comes; None: no limit.

        Returns:
            A future, to be awaited in any event loop. ``result(timeout)`` waits in any thread but
            that of the run; so it may be called in plain handlers of commands. It always ends:
            with the reply, with what the handler raised, or with `WorkerGoneError`.
        """
        return self._ask(
            lambda run, value, reply: run.posts.request(
                worker_id, command_name, value, timeout, reply
            ),
            data,
            otherwise=lambda reply: reply.resolve(WorkerGoneError(worker_id), None),
        )

    def broadcast(
        self,
        command_name: str,
        data: Any = None,
        *,
        acks: bool = True,
        sticky: bool = False,
        timeout: float | None = None,
    ) -> WorkerReply:
        """Send all workers there are now a message, and get what each of them replies.

        Args:
            acks: False: do not wait for replies.
            sticky: as for `broadcast_message_to_workers`.
            timeout: seconds for each of the replies.

        Returns:
            A future, as that of `request_worker`, of a dict: by worker id the reply, or the
            exception that stands for it, such as `WorkerGoneError`. Empty without `acks`.
        """
        if not acks or self._run is None:
            from okanjo_conductor._posts import WorkerReply

            self.broadcast_message_to_workers(command_name, data, sticky=sticky)
            nobody = WorkerReply()
            nobody.resolve(None, {})
            return nobody
        return self._ask(
            lambda run, value, reply: run.posts.request_all(
                command_name, value, timeout, reply, sticky=sticky
            ),
            data,
            otherwise=lambda reply: reply.resolve(None, {}),
        )

    def _ask(
        self,
        ask: Callable[[Run, Encoded, WorkerReply], None],
        data: Any,
        *,
        otherwise: Callable[[WorkerReply], None],
    ) -> WorkerReply:
        """Have workers asked; without a run, resolve the reply otherwise."""
        from okanjo_conductor._posts import WorkerReply
        from okanjo_conductor._wire.byvalue import encode_by_value

        run, reply = self._run, WorkerReply(self._thread)
        value = encode_by_value(data)
        try:
            if run is None:
                otherwise(reply)
            else:
                self._call(ask, run, value, reply)
        except _RunIsOverError:
            otherwise(reply)
        return reply

    # Lookups

    def get_lookup(self, name: str) -> Any:
        """Return a lookup; of a `Lookup` or a `Loading`, the mapping that holds its entries.

        Raises:
            UnknownLookupError: there is none of that name.
        """
        try:
            return mapping_of(self.lookups[name])
        except KeyError:
            raise UnknownLookupError(name, tuple(self.lookups)) from None

    def get_lookup_value(self, name: str, key: Any, default: Any = None) -> Any:
        """Return one entry of a lookup. Raises as `get_lookup`."""
        return changes.get_entry(self.get_lookup(name), key, default)

    def set_lookup_value(self, name: str, key: Any, value: Any) -> None:
        """Set one entry of a lookup.

        When this has returned, no job that is handed out finds the old entry.

        Raises:
            UnknownLookupError: there is none of that name.
            ReadOnlyLookupError: it cannot be changed.
        """
        self._change_lookup(name, [key], changes.set_entry, key, value)

    def update_lookup(self, name: str, entries: Mapping[Any, Any]) -> None:
        """Set many entries of a lookup, in one step. Raises as `set_lookup_value`."""
        self._change_lookup(name, list(entries), changes.update, entries)

    def increment_lookup_value(self, name: str, key: Any, by: Any = 1) -> Any:
        """Add to an entry of a lookup, which is 0 where there is none; return what it is then.

        Raises as `set_lookup_value`.
        """
        return self._change_lookup(name, [key], changes.increment, key, by)

    def compare_and_set_lookup_value(self, name: str, key: Any, expected: Any, value: Any) -> bool:
        """Set an entry of a lookup if it equals `expected`; say whether that was so.

        `ABSENT` as `expected`: if there is no such entry. Raises as `set_lookup_value`.
        """
        return bool(self._change_lookup(name, [key], changes.compare_and_set, key, expected, value))

    # For the run

    def _change_lookup(
        self, name: str, keys: list[Any], change: Callable[..., Any], *args: Any
    ) -> Any:
        """Change a lookup, in the thread of the run if there is one."""
        lookup, run = self.get_lookup(name), self._run
        changes.require_writable(name, lookup)
        if run is None:
            return change(lookup, *args)
        desk = run.lookups

        def act() -> Any:
            desk.require_writable(name)
            try:
                return change(lookup, *args)
            finally:
                desk.note_change(name, keys)

        try:
            return self._call(act)
        except _RunIsOverError:
            return change(lookup, *args)

    async def _start(self, buffer: OutcomeBuffer | None) -> Report:
        import asyncio

        loop = asyncio.get_running_loop()
        with self._life(loop):
            generated = self._generate()
            if hasattr(generated, "__await__"):
                generated = await _generated(generated)
            self._run = run = self._make_run(loop, buffer)
            done = asyncio.Event()
            run.begin(generated, self._stop, done.set)
            try:
                await done.wait()
            except asyncio.CancelledError:
                run.interrupt("the task of the run was cancelled")
                try:
                    await done.wait()
                except asyncio.CancelledError:
                    run.give_up()
                    await done.wait()
                raise
            return run.result()

    def _run_blocking(self, buffer: OutcomeBuffer | None) -> Report:
        """Run in this thread; on asyncio's loop only where that is loaded already."""
        if loops.is_asyncio_loaded():
            report: Report = loops.run_coroutine(self._start(buffer))
            return report
        from okanjo_conductor._io.light_loop import LightLoop

        with closing(LightLoop()) as loop, self._life(loop):
            generated, run = self._prepare(loop, buffer)
            try:
                run.begin(generated, self._stop, loop.stop)
                _run_until_closed(loop, run)
            except BaseException:  # a KeyboardInterrupt, most likely
                run.interrupt("the run was interrupted")
                try:
                    _run_until_closed(loop, run)
                except BaseException:
                    run.give_up()
                    _run_until_closed(loop, run)
                raise
            return run.result()

    def _prepare(self, loop: LightLoop, buffer: OutcomeBuffer | None) -> tuple[Any, Run]:
        """Make what is to run on a loop of our own: the jobs that were generated, and the run."""
        generated = self._generate()
        if hasattr(generated, "__await__"):
            generated = loop.upgrade().run_until_complete(_generated(generated))
        self._run = run = self._make_run(loop, buffer)
        return generated, run

    def _run_in_steps(
        self, buffer: OutcomeBuffer, stops: list[Callable[[], None]]
    ) -> Generator[None]:
        """Run in this thread, and pause whenever the loop is stopped by one of `stops`."""
        from okanjo_conductor._io.light_loop import LightLoop

        with closing(LightLoop()) as loop, self._life(loop):
            generated, run = self._prepare(loop, buffer)
            stops.append(loop.stop)
            try:
                run.begin(generated, self._stop, loop.stop)
                while not run.is_closed:
                    loop.run_forever()
                    yield
            except BaseException:  # the iteration was left, most likely
                run.interrupt("the iteration over outcomes was left")
                buffer.discard()
                _run_until_closed(loop, run)
                raise
            yield
            run.result()

    @contextmanager
    def _life(self, loop: Loop) -> Generator[None]:
        self._check_start()
        self._has_started = self._is_processing = True
        self._loop = loop
        self._thread = threading.get_ident()
        view = self._open_view()
        try:
            yield
        finally:
            self._run = self._loop = None
            for call in tuple(self._calls):
                call.cancel()
            self._is_processing = False
            if view is not None:
                view.close(self._report)
            self._emit("end")

    def _open_view(self) -> View | None:
        if self._progress is False:
            return None
        from okanjo_conductor._progress.view import View

        return View(self.snapshot, None if self._progress is True else self._progress)

    def _make_run(self, loop: Loop, buffer: OutcomeBuffer | None) -> Run:
        boot = Boot(self._target, list(sys.path), list(sys.argv))
        worker, *_ = self._program
        program = Program(worker, boot, self._environment(), self._start_method, self._worker_limit)
        launch = self._cluster.launch(program)  # a template boots while this process loads the rest
        plan = feed = None
        try:
            from okanjo_conductor._run import Run

            if self._keeping.path is not None:
                plan = self._open_journal()
            elif self._keeping.sink is not None:
                feed = self._open_feed()
            return Run(
                self,
                loop,
                launch=launch,
                options=self._worker_options,
                concurrency=self._concurrency,
                slots=self._worker_limit,
                largest_batch=self._cluster.capabilities.largest_batch,
                policy=self._policy,
                jobs_queue=self._jobs_queue,
                job_key=self._job_key,
                job_timeout=self._job_timeout,
                buffer=buffer,
                buffer_limit=self._buffer_limit,
                sticky=self._sticky,
                journal=plan,
                feed=feed,
            )
        except BaseException:
            launch.abandon()
            if plan is not None:
                plan.store.close()
            if feed is not None:
                feed.close()
            raise

    def _open_feed(self) -> Feed:
        from okanjo_conductor.sinks import Feed, as_sinks  # only for those who have sinks

        return Feed(as_sinks(self._keeping.sink))

    def _open_journal(self) -> JournalPlan:
        from okanjo_conductor import _resuming as resuming  # only for those who have a journal

        return resuming.open_journal(self._keeping, self._program, self._policy)

    def _wants_all_of(self, slots: int) -> bool:
        """Say whether there shall be as many workers as a cluster has room for, and note it."""
        if self._fills_cluster:
            self._worker_limit = slots
        return self._fills_cluster

    def _limited(self, worker_limit: int | None) -> int:
        """Count the workers there may be, in this cluster."""
        cluster = self._cluster
        limit = checked_limit(cluster.slots if worker_limit is None else worker_limit)
        most = cluster.capabilities.most_slots
        return limit if most is None else min(limit, most)

    def _asked(self) -> dict[str, Any]:
        """Return the options that not every cluster can honour, where they were asked for."""
        policy = self._policy
        return {
            "job_timeout": self._job_timeout,
            "soft_timeout": policy.soft_timeout,
            "start_timeout": policy.start_timeout,
            "stuck_after": policy.stuck_after if policy.stuck_after != _STUCK_AFTER else None,
            "max_rss": policy.max_rss,
            "recycle.rss": policy.recycle.rss,
            "worker_env": self._worker_env,
            "start_method": self._start_method,
            "worker=None": self._target.script is not None,
        }

    def _check_start(self) -> None:
        if assignment.is_worker():
            message = (
                "a Conductor is started in a worker process. A script that is run again in its "
                "workers must ask is_worker() first and call start() on its ConductorWorker"
            )
            raise ConductorStateError(message)
        if self._has_started:
            message = "this conductor has been started already; make another one"
            raise ConductorStateError(message)

    def _generate(self) -> Any:
        try:
            return self.generate_jobs()
        except Exception as error:
            raise _generator_error(error) from error

    def _environment(self) -> dict[str, str]:
        identity = {"worker_type": self._worker_type, "master_id": self._id}
        return {**os.environ, **self._worker_env, **identity}

    def _handler_of(self, cmd: str) -> Handler:
        from okanjo_conductor._posts import Handler
        from okanjo_conductor._wire.functions import is_async

        function, in_thread = self._commands.get(cmd, (None, True))
        if function is not None:
            in_thread = in_thread and not is_async(function)
            return Handler(function, replies=True, in_thread=in_thread)
        hook = self.on_worker_message
        is_written = getattr(hook, "__func__", hook) is not Conductor.on_worker_message
        return Handler(
            lambda post: hook(post.worker_id, post),
            replies=False,
            in_thread=is_written and not is_async(hook),
        )

    def _note_stats(self, report: StatsReport) -> None:
        self._last_stats = report.agg.last
        self._report_count = len(report.raw)
        self._emit("stats", report)

    def _note_report(self, report: Report) -> None:
        self._report = report

    def _has_listeners(self, event: str) -> bool:
        return bool(self.listeners(event))

    def _emit(self, event: str, *args: Any) -> None:
        """Tell listeners; what they raise is logged, and an unheard error is too."""
        if not self.listeners(event):
            if event == "error":
                log().warning("%s", args[0])
            return
        try:
            self.emit(event, *args)
        except Exception:
            log().exception("a listener to %r raised", event)

    def _say(self, text: str, *args: Any) -> None:
        if self.logging and "logging" in sys.modules:  # else nobody has asked to hear it
            log().info(text, *args)

    def _request_stop(self, request: AbortRequested | DrainRequested) -> None:
        self._note_stop(request)
        if self._run is not None:
            self._soon(self._run.post, request)

    def _note_stop(self, request: AbortRequested | DrainRequested) -> None:
        if not isinstance(self._stop, AbortRequested):
            self._stop = request

    def _soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in the thread of the run."""
        loop = self._loop
        if threading.get_ident() == self._thread:
            function(*args)
        elif loop is not None:
            loops.call_soon(loop, function, *args)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the thread of the run; return or raise here what it does.

        Raises:
            _RunIsOverError: it was not called.
        """
        if threading.get_ident() == self._thread:
            return function(*args)
        from concurrent.futures import CancelledError, Future

        done: Future[Any] = Future()

        def call() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(function(*args))
                except BaseException as error:
                    done.set_exception(error)

        self._calls.add(done)  # before it is seen whether the run goes on: its end looks here after
        try:
            self._soon(call)
            if self._loop is None:
                done.cancel()
            return done.result()
        except CancelledError:
            raise _RunIsOverError from None
        finally:
            self._calls.discard(done)

    # Signals to this process: in the main thread, between any two steps

    def _on_first_signal(self, name: str) -> None:
        # Asked for before it is said: who reads it may send the second signal, into this handler.
        self._request_stop_soon(DrainRequested(why=f"{name} received"))
        log().warning(
            "%s: finishing the jobs in execution; once more aborts them, a third time kills", name
        )

    def _on_second_signal(self, name: str) -> None:
        self._request_stop_soon(AbortRequested(why=f"{name} received again"))

    def _on_further_signal(self, _name: str) -> None:
        if self._run is not None:
            self._run.kill_workers()
        raise KeyboardInterrupt

    def _request_stop_soon(self, request: AbortRequested | DrainRequested) -> None:
        loop, run = self._loop, self._run
        self._note_stop(request)
        if loop is not None and run is not None:
            loops.call_soon(loop, run.post, request)


class _RunIsOverError(Exception):
    """The run has ended before it could do what another thread wanted of it."""


def conduct(
    function: type[Any] | Callable[[Any], Any] | str,
    jobs: Iterable[Any],
    *,
    worker_limit: int | None = None,
    ordered: bool = False,
    **options: Any,
) -> Iterator[Any]:
    """Run a function over jobs in worker processes; yield its values.

    Args:
        function: what a `Conductor` accepts as worker.
        ordered: in the order of the jobs, not of completion.
        options: those of `Conductor`.

    Raises:
        Exception: what failed the first job that failed; the run is aborted then.
    """
    conductor = Conductor(function, worker_limit=worker_limit, jobs_queue=jobs, **options)
    for outcome in conductor.outcomes(ordered=ordered):
        yield outcome.result()


async def _generated(made: Awaitable[Any]) -> Any:
    try:
        return await made
    except Exception as error:
        raise _generator_error(error) from error


def _generator_error(error: Exception) -> IntakeError:
    return IntakeError(f"generate_jobs() raised {type(error).__name__}: {error}")


def _run_until_closed(loop: LightLoop, run: Run) -> None:
    while not run.is_closed:
        loop.run_forever()
