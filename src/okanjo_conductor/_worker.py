"""ConductorWorker: what users subclass. One object per worker process."""

from __future__ import annotations

import threading
from time import monotonic

from pyee.base import EventEmitter

from okanjo_conductor import _runtime
from okanjo_conductor._io import assignment
from okanjo_conductor.errors import ConductorStateError, ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._runtime import Reply, Runtime
    from okanjo_conductor._types import JobInfo, Message


class ConductorWorker(EventEmitter):
    """Runs jobs in a process of its own. Subclass it and write `process_job`.

    Args:
        stats: counters to begin with, name to number; ``jobs_done`` is counted for you.
        stats_interval: seconds between reports of the counters to the conductor.
        logging: whether this worker's life is logged, at level INFO.

    Events:
        ``stats`` (the counters), in the thread that reports them; ``job_done``; ``error`` (an
        exception that failed a job); ``completed``, when there is no more work.
    """

    def __init__(
        self,
        *,
        stats: dict[str, Any] | None = None,
        stats_interval: float = 5.0,
        logging: bool = True,
    ) -> None:
        super().__init__()
        if not stats_interval > 0:
            message = f"stats_interval={stats_interval!r}: seconds, more than 0"
            raise ConfigurationError(message)
        self.stats: dict[str, Any] = {"jobs_done": 0} if stats is None else stats
        self.last_stats: dict[str, Any] = {}
        """The counters as last reported."""
        self.stats_interval = stats_interval
        self.logging = logging
        self.worker_id = 0
        """Number of this worker, from 1; set when it starts."""
        self.master_id = ""
        """Id of the conductor that this worker belongs to; set when it starts."""
        self.slot = -1
        """The place this worker fills, from 0; its replacement gets the same."""
        self._runtime: Runtime | None = None
        self._reported_at = monotonic()
        self._monitor: threading.Thread | None = None
        self._monitor_stop = threading.Event()

    # Write these

    def setup(self) -> None:
        """Prepare; called once, before the first job. An exception here fails the start."""

    def teardown(self) -> None:
        """Clean up; called once, after the last job, unless the process dies."""

    def process_job(self, job: Any) -> Any:
        """Do the job; return its value, or raise.

        In callback style, call `complete_job` before returning, or return `LATER` and call it
        afterwards, from any thread.
        """
        raise NotImplementedError

    def on_master_message(self, msg: Message) -> None:
        """Handle a message from the conductor; between jobs, or at once if it is a reply.

        A reply whose callback is not fired here is fired afterwards, with the message.
        """

    # Use these

    @property
    def job(self) -> JobInfo | None:
        """Key and attempt of the job at hand, or None between jobs."""
        return self._runtime.job_at_hand() if self._runtime else None

    def start(self) -> None:
        """Work until the conductor has no more jobs.

        Called for you, unless the script is run again in its worker processes (see `is_worker`).

        Raises:
            ConductorStateError: this process was not started by a conductor.
        """
        _runtime.start(self)

    def complete_job(self, err: Any = None, job: Any = None, *, value: Any = None) -> None:
        """End the job at hand: done with `value`, or failed if `err` is given.

        `job` is what `process_job` was given; a job that is no longer at hand is ignored with a
        warning.
        """
        self._live.complete(err, job, value)

    def get_next_job(self) -> Any:
        """Within `process_job`, after `complete_job`: begin another job that waits here.

        Returns:
            Its payload, or None if none waits; then return from `process_job`.
        """
        return self._live.next_job()

    def crash(self, err: BaseException | str | None = None) -> NoReturn:
        """End this process with exit code 4; another one takes its place.

        Use it when only a fresh process would help. The job at hand is charged with a crash.
        """
        self._live.die(err)

    def send_request_to_master(
        self,
        command_name: str,
        data: Any = None,
        callback: Callable[[BaseException | None, Any], Any] | None = None,
    ) -> Reply:
        """Send the conductor a message that it may reply to.

        Args:
            callback: called with error and reply, a `Message`, when it is here.

        Returns:
            A future; ``result(timeout)`` is the reply.
        """
        return self._live.ask(command_name, data, callback)

    def request(self, command_name: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Send the conductor a message and wait for the data of its reply.

        Raises:
            TimeoutError: no reply came in `timeout` seconds.
            UnknownCommandError: the conductor does not handle this command.
            Exception: what its handler raised.
        """
        reply = self.send_request_to_master(command_name, data).result(timeout)
        return getattr(reply, "data", reply)

    def fire_request_callback(
        self, callback_name: str, err: BaseException | None = None, data: Any = None
    ) -> None:
        """Hand a reply to whoever sent the request; for use in `on_master_message`."""
        self._live.fire(callback_name, err, data)

    def lookup(self, name: str, key: Any, default: Any = None) -> Any:
        """Return one entry of a lookup in the conductor.

        Raises:
            UnknownLookupError: there is no lookup of that name.
        """
        (found,) = self._live.look_up(name, [key])
        return default if found is None else found[0]

    def lookup_many(self, name: str, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return the entries there are for these keys, in one round trip."""
        wanted = list(keys)
        found = self._live.look_up(name, wanted)
        return {key: hit[0] for key, hit in zip(wanted, found, strict=True) if hit is not None}

    def set_lookup(self, name: str, key: Any, value: Any) -> None:
        """Set an entry of a lookup in the conductor; returns when every worker can see it.

        Raises:
            UnknownLookupError: there is no lookup of that name.
        """
        self._live.set_lookup(name, key, value)

    def start_monitoring(self) -> None:
        """Report the counters every `stats_interval` seconds. Done for you at the start."""
        if self._monitor is None:
            self._monitor_stop = threading.Event()
            self._monitor = threading.Thread(
                target=self._report_repeatedly, name="stats", daemon=True
            )
            self._monitor.start()

    def stop_monitoring(self) -> None:
        """Stop reporting; the last report, at the end, is still sent."""
        self._monitor_stop.set()
        self._monitor = None

    # For the runtime

    def _attach(self, runtime: Runtime, place: Assignment) -> None:
        self._runtime = runtime
        self.worker_id, self.slot = place.worker_id, place.slot
        self.master_id = place.master_id

    @property
    def _live(self) -> Runtime:
        if self._runtime is None:
            where = "before start()" if assignment.is_worker() else "outside a worker process"
            message = f"{type(self).__qualname__} cannot talk to a conductor {where}"
            raise ConductorStateError(message)
        return self._runtime

    def _take_report(self) -> tuple[dict[str, Any], float]:
        """Copy the counters that can be added up, and the time since the previous copy."""
        now = monotonic()
        span, self._reported_at = now - self._reported_at, now
        counters = dict(self.stats)
        self.last_stats = {k: v for k, v in counters.items() if isinstance(v, int | float)}
        return self.last_stats, span

    def _report_repeatedly(self) -> None:
        stop = self._monitor_stop
        while not stop.wait(self.stats_interval):
            self._live.report_stats()


class FunctionWorker(ConductorWorker):
    """A worker made of a function from job to value."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        if not hasattr(function, "__code__"):
            function = _in_a_frame(function)
        self.process_job = function  # type: ignore[method-assign,assignment]  # no extra call per job


def _in_a_frame(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a function that is not written in Python a frame of its own.

    By its frame a job is told from the loop around it when it is interrupted.
    """

    def call(job: Any) -> Any:
        return function(job)

    return call
