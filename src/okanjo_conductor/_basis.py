"""What every worker has: counters that are reported, a runtime, and messages to talk through it.

Beneath `ConductorWorker`, and all there is to a worker that was made of a function: that one needs
no events, and so no `pyee`, which takes longer to load than the rest of a worker process.
"""

from __future__ import annotations

import threading
from time import monotonic

from okanjo_conductor import _runtime
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    UnknownCommandError,
)
from okanjo_conductor.lookups._verbs import LookupVerbs

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._runtime import Runtime
    from okanjo_conductor._talk import Reply, Talk
    from okanjo_conductor._types import Key, Message


class Basis(LookupVerbs):
    """A worker, as far as its runtime needs to know it."""

    process_job: Callable[[Any], Any]
    concurrency: int = 1
    """How many jobs it executes at a time."""
    _is_async = False

    def _begin(self, stats: dict[str, Any] | None, stats_interval: float, *, logging: bool) -> None:
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
        self._commands: dict[str, Callable[[Message], Any]] = {}
        """Handlers of messages from the conductor, by command."""
        self._urgent: frozenset[str] = frozenset()
        """Commands whose handlers run during a job."""
        self._runtime: Runtime | None = None
        self._begin_lookups()
        self._reported_at = monotonic()
        self._monitor: threading.Thread | None = None
        self._monitor_stop = threading.Event()

    def setup(self) -> None:
        """Prepare; called once, before the first job. An exception here fails the start."""

    def teardown(self) -> None:
        """Clean up; called once, after the last job, unless the process dies."""

    def on_master_message(self, msg: Message) -> Any:
        """Handle a message from the conductor; between jobs, or at once if it is a reply.

        Not called for commands that have a handler made with `command`. What it returns is the
        reply to a request (`Conductor.request_worker`), and ignored otherwise. A reply whose
        callback is not fired here is fired afterwards, with the message.
        """

    def start(self) -> None:
        """Work until the conductor has no more jobs.

        Called for you, unless the script is run again in its worker processes (see `is_worker`).

        Raises:
            ConductorStateError: this process was not started by a conductor.
        """
        _runtime.start(self)

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

    # Messages

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
        return self._live.talk.ask(command_name, data, callback)

    def request(self, command_name: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Send the conductor a message and wait for the data of its reply.

        Raises:
            TimeoutError: no reply came in `timeout` seconds.
            UnknownCommandError: the conductor does not handle this command.
            Exception: what its handler raised.
        """
        talk = self._live.talk
        reply = talk.ask(command_name, data, None)
        try:
            answer = reply.result(timeout)
        finally:
            talk.drop(reply.name)  # nobody else has it
        return getattr(answer, "data", answer)

    def notify(self, command_name: str, data: Any = None) -> None:
        """Send the conductor a message and go on: nobody replies.

        What its handler raises is logged in the conductor.
        """
        self._live.talk.tell(command_name, data)

    def add_job(self, job: Any, *, key: Key | None = None, timeout: float | None = None) -> None:
        """Give the conductor one more job; the run does not end before that one has.

        Exactly once, also where this job is executed again: the *n*-th job that an attempt adds is
        taken for the *n*-th of the attempt before, and not added twice. So a job should add the
        same jobs in the same order each time.

        Args:
            key: what identifies it; None: as for the others.
            timeout: seconds that it may take; None: as for the others.

        Raises:
            SerialisationError: it cannot be pickled.
        """
        self._live.add_job(job, key, timeout)

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far the job at hand is, from 0 to 1, and what it does.

        The conductor emits ``job_progress``, at most some ten times a second; what was said last
        counts. Nothing is sent between jobs.
        """
        self._live.report_progress(fraction, text)

    def abort(self, reason: str = "") -> None:
        """Ask the conductor to stop the whole run, as its own `abort` does.

        Returns at once; the job at hand has `abort_grace` to end. The report says who asked, and
        the reason.
        """
        self._live.abort_run(reason)

    # For the runtime

    def _handle(self, msg: Message) -> Any:
        """Handle a message from the conductor; return the reply."""
        handler = self._commands.get(msg.cmd)
        if handler is not None:
            return handler(msg)
        own = getattr(self.on_master_message, "__func__", None)
        if own is Basis.on_master_message:
            kind = type(self).__qualname__
            message = (
                f"nobody handles the command {msg.cmd!r} in worker {self.worker_id}: decorate a "
                f"method of {kind} with @command({msg.cmd!r}), or write its on_master_message"
            )
            raise UnknownCommandError(message)
        return self.on_master_message(msg)

    def _attach(self, runtime: Runtime, place: Assignment) -> None:
        self._runtime = runtime
        self.worker_id, self.slot = place.worker_id, place.slot
        self.master_id = place.master_id

    def _hears(self, _event: str) -> bool:
        """Whether anybody listens to an event."""
        return False

    def _tell(self, event: str, *args: Any) -> None:
        """Tell listeners."""

    def _on_listener(self, note: Callable[[str], None]) -> None:
        """Have `note` called with the event that a listener is added for."""

    @property
    def _live(self) -> Runtime:
        if self._runtime is None:
            from okanjo_conductor._io import assignment

            where = "before start()" if assignment.is_worker() else "outside a worker process"
            message = f"{type(self).__qualname__} cannot talk to a conductor {where}"
            raise ConductorStateError(message)
        return self._runtime

    def _talker(self) -> Talk:
        return self._live.talk

    def _take_report(self) -> tuple[dict[str, Any], float]:
        """Copy the counters that can be added up, and the time since the previous copy."""
        now = monotonic()
        span, self._reported_at = now - self._reported_at, now
        counters = {**self.stats, **self._lookups.counters()}
        self.last_stats = {k: v for k, v in counters.items() if isinstance(v, int | float)}
        return self.last_stats, span

    def _report_repeatedly(self) -> None:
        stop = self._monitor_stop
        while not stop.wait(self.stats_interval):
            if not self._live.report_stats_while_alive():
                return


class FunctionWorker(Basis):
    """A worker made of a function from job to value."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        stats: dict[str, Any] | None = None,
        stats_interval: float = 5.0,
        logging: bool = True,
    ) -> None:
        self._begin(stats, stats_interval, logging=logging)
        if not hasattr(function, "__code__"):
            function = _in_a_frame(function)
        self.process_job = function  # no extra call per job


def _in_a_frame(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a function that is not written in Python a frame of its own.

    By its frame a job is told from the loop around it when it is interrupted.
    """

    def call(job: Any) -> Any:
        return function(job)

    return call
